"""new-family and check-family: names that cannot be, places that are taken, and a family that is not whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from mappings import catalog
from mappings.language import loader
from tests.bad_input.judging import Fault, refused, triggers, unchanged
from tests.bad_input.running import recast

# It copies files of the checkout, and Bazel shows a test no others than its own.
pytestmark = pytest.mark.skipif("TEST_SRCDIR" in os.environ, reason="needs the checkout")

ROOT = Path(__file__).parents[2]
PATTERNS = ("families/harness.py", "families/llama_test.py", "families/qwen3_next_test.py", "families/mtp.py")
ORACLES = ("llama_style", "qwen3_next")
# Names the oracle, and imports nothing.
ORACLE = '"""\nfrom tests.oracles import llama_style\n"""\n\n\n'


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Mappings, and the tests of two families, in a place where families may be made."""
    shutil.copytree(ROOT / "mappings", tmp_path / "mappings", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name in (*PATTERNS, *(f"oracles/{oracle}.py" for oracle in ORACLES)):
        place = tmp_path / "tests" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "tests" / name, place)
    monkeypatch.setattr(loader, "mappings_root", lambda: tmp_path / "mappings")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["Heron", "1heron", "her on", "her-on", "../heron", "common", "manifests", "h" * 41, "_"]
)
@triggers("INVALID_FLAG")
def test_a_name_that_no_family_can_have(name: str, checkout: Path) -> None:
    with unchanged(checkout):
        run = recast("new-family", name, "--like=llama")
    refused(run, Fault("INVALID_FLAG", "no name of a family"))


@triggers("DESTINATION_EXISTS")
def test_a_family_that_is_there_already(checkout: Path) -> None:
    with unchanged(checkout):
        run = recast(
            "new-family", "llama", "--like=llama", "--model=other-1b", "--config=" + _config(checkout, "other")
        )
    refused(run, *(Fault("DESTINATION_EXISTS", place) for place in ("mappings/llama", "llama_test", "llama_style")))


@triggers("DESTINATION_EXISTS")
def test_a_test_that_is_there_already_is_not_overwritten(checkout: Path) -> None:
    (checkout / "tests" / "families" / "heron_test.py").write_text("mine")
    with unchanged(checkout / "tests"):
        run = recast("new-family", "heron", "--like=llama")
    refused(run, Fault("DESTINATION_EXISTS", "heron_test.py"))


@pytest.mark.parametrize(
    ("like", "said"),
    [
        ("", "--like was not given"),
        ("lama", "no family lama; known: "),
        ("mistral", "take --like=llama"),
        ("gemma2", "tests/families/gemma2_test.py"),
    ],
)
@triggers("INVALID_FLAG")
def test_a_pattern_that_is_none(like: str, said: str, checkout: Path) -> None:
    with unchanged(checkout):
        run = recast("new-family", "heron", *([f"--like={like}"] if like else []))
    assert {entry.id for entry in run.failures} == {"INVALID_FLAG"}
    refused(run, *(Fault("INVALID_FLAG") for _ in run.failures))
    assert any(said in entry.reason for entry in run.failures)


@triggers("INVALID_FLAG")
def test_names_of_the_published_model_that_cannot_be_are_listed_together(checkout: Path) -> None:
    config = _config(checkout, "llama")
    with unchanged(checkout):
        run = recast("new-family", "heron", "--like=llama", "--model=Heron 1B", "--hub_id=heron", f"--config={config}")
    refused(
        run,
        Fault("INVALID_FLAG", "model_type llama", "llama's already"),
        Fault("INVALID_FLAG", "'Heron 1B' is no name"),
        Fault("INVALID_FLAG", "'heron' is not ORGANISATION/NAME"),
    )


@triggers("INVALID_FLAG")
def test_the_name_of_a_published_model_is_not_taken_again(checkout: Path) -> None:
    run = recast("new-family", "heron", "--like=llama", "--model=qwen3-4b-base")
    refused(run, Fault("INVALID_FLAG", "qwen3-4b-base is taken by manifests/qwen3-4b.textproto"))


@triggers("DESTINATION_NOT_WRITABLE", "INVALID_FLAG")
def test_an_installation_without_tests_has_no_place_for_a_family(checkout: Path) -> None:
    shutil.rmtree(checkout / "tests")
    run = recast("new-family", "heron", "--like=llama")
    assert "DESTINATION_NOT_WRITABLE" in run.ids
    refused(run, *(Fault(name) for name in run.ids))
    refused(recast("check-family", "llama"), Fault("INVALID_FLAG", "no checkout"))


@triggers("INVALID_FLAG")
def test_a_family_that_is_not_there_is_not_checked(checkout: Path) -> None:
    refused(recast("check-family", "heron"), Fault("INVALID_FLAG", "There is no family heron", "llama"))


@pytest.mark.parametrize("like", ["llama", "qwen3_next"])
@triggers("FAMILY_INCOMPLETE")
def test_a_family_fresh_from_its_pattern_is_not_whole_and_says_what_is_left(like: str, checkout: Path) -> None:
    made = recast("new-family", "heron", f"--like={like}", "--model=heron-1b", "--hub_id=example/Heron-1B")
    assert made.code == 0, made.summary
    _forget()
    manifest = catalog.find("heron-1b")
    assert manifest is not None
    assert (manifest.family, manifest.hub_id, manifest.config["model_type"]) == ("heron", "example/Heron-1B", "heron")
    run = recast("check-family", "heron")
    refused(run, *(Fault("FAMILY_INCOMPLETE", ": ", "TODO") for _ in run.failures))
    named = {entry.subject.removeprefix(f"{checkout}/") for entry in run.failures}
    assert named == {
        *(f"mappings/heron/{name}.textproto" for name in ("family", "hf", "maxtext")),
        "mappings/manifests/heron-1b.textproto",
        "tests/families/heron_test.py",
        "tests/oracles/heron.py",
    }
    lines = run.output.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["ok", "files:"],
        ["FAILED", "todo"],
        ["ok", "linter:"],
        ["ok", "manifests:"],
    ]
    assert lines[4].startswith("not run  tests")
    compile((checkout / "tests" / "families" / "heron_test.py").read_text(), "heron_test.py", "exec")


def test_a_config_that_is_given_is_what_the_manifest_holds(checkout: Path) -> None:
    config = _config(checkout, "heron_text")
    run = recast("new-family", "heron", "--like=llama", f"--config={config}")
    assert run.code == 0, run.summary
    _forget()
    manifest = catalog.find("heron-1b")
    assert manifest is not None
    assert manifest.config == json.loads(Path(config).read_text())
    assert loader.load_family("heron").node.model_type == ("heron_text",)


@triggers("FAMILY_INCOMPLETE")
def test_files_that_are_gone_and_mistakes_of_the_mapping_are_told_at_once(checkout: Path) -> None:
    (checkout / "tests" / "oracles" / "llama_style.py").unlink()
    layout = checkout / "mappings" / "llama" / "maxtext.textproto"
    layout.write_text(layout.read_text().replace('"common/maxtext_norms.textproto"', '"common/maxtext_mlp.textproto"'))
    run = recast("check-family", "llama")
    refused(run, *(Fault("FAMILY_INCOMPLETE") for _ in run.failures))
    reasons = " ".join(entry.reason for entry in run.failures)
    assert "tests/oracles/llama_style.py is not there" in reasons
    assert "norms.attn" in reasons
    assert "llama2-7b: " in reasons


@triggers("FAMILY_INCOMPLETE")
def test_a_module_that_leaves_out_what_is_run_of_every_family_is_no_proof(checkout: Path) -> None:
    shutil.copyfile(ROOT / "pyproject.toml", checkout / "pyproject.toml")
    stub = f"{ORACLE}def test_nothing() -> None:\n    assert True\n"
    (checkout / "tests" / "families" / "llama_test.py").write_text(stub)
    run = recast("check-family", "llama")
    refused(run, Fault("FAMILY_INCOMPLETE", "does not run what is run of every family", "the mapping has no issues"))


@triggers("FAMILY_INCOMPLETE")
def test_tests_that_fail_are_named_with_their_reason(checkout: Path) -> None:
    shutil.copyfile(ROOT / "pyproject.toml", checkout / "pyproject.toml")
    harness = checkout / "tests" / "families" / "harness.py"
    harness.write_text("class FamilyTests:\n    def test_all(self):\n        return\n")
    stub = f"{ORACLE}def test_all():\n    assert not 'wrong values'\n"
    (checkout / "tests" / "families" / "llama_test.py").write_text(stub)
    run = recast("check-family", "llama")
    refused(run, Fault("FAMILY_INCOMPLETE", "wrong values", "test_all"))
    assert "FAILED   all" in run.output


def _forget() -> None:
    """What this process read of the manifests before new ones were written."""
    for cached in (catalog._load, catalog._by_name, catalog._model_types):
        cached.cache_clear()


def _config(folder: Path, model_type: str) -> str:
    path = folder.parent / f"{folder.name}-config.json"
    content = {"model_type": model_type, "architectures": ["HeronForCausalLM"], "name": "it's \\ \u00e9"}
    manifest = catalog.find("llama3-8b")
    assert manifest is not None
    path.write_text(json.dumps({**manifest.config, **content}))
    return str(path)
