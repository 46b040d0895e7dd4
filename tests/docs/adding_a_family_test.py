"""docs/adding_a_family.md: its files load, lint, bind, compose and convert, and what it says of mistakes is so."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from converters.engine import convert
from converters.engine.request import ConversionRequest
from mappings import catalog
from mappings.language import loader
from mappings.language.composition import compose
from mappings.language.family import bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.lint import lint_all, lint_family
from recast_proto import mapping_pb2
from reporting.report import Report
from tests import checkpoints
from tests.docs import pages
from tests.docs.pages import Edit
from tests.families import harness
from tests.language import executor
from tests.oracles.arrays import Variant

PAGE = "adding_a_family.md"
FILES = pages.files_of(PAGE)
ORACLE = "tests/oracles/heron.py"
TEST = "tests/families/heron_test.py"
MANIFEST = "mappings/manifests/heron-1b.textproto"
CHECKOUT = Path(__file__).parents[2]
# Heron's checkpoint has the names of this family, whose class in transformers is the witness.
WITNESS = "qwen3"

K_NORM = '  rule { tensor: "attn.k_norm" name: "self_attn.k_norm.weight" axes: "d" }\n'
MISTAKES: tuple[Edit, ...] = (
    ("hf", K_NORM, ""),
    ("maxtext", '"e h d"', '"e h"'),
    ("maxtext", "query_norm.scale", "key_norm.scale"),
    ("maxtext", 'name: "decoder.layers." stack: "l"', 'name: "decoder.layers."'),
    ("maxtext", '"attn.q_norm"', '"attn.qnorm"'),
    ("family", 'let { name: "o_bias" value: "false" }\n', ""),
    ("family", '"num_attention_heads":8', '"num_attention_heads":6'),
)
"""What the rows of the page's table of messages describe."""

UNSEEN: tuple[Edit, ...] = (
    ("hf", "q_norm.weight", "query_norm.weight"),
    ("maxtext", '"e h d"', '"h e d"'),
    ("maxtext", 'stack_axis: "1"', 'stack_axis: "0"'),
    (
        "maxtext",
        'query_norm.scale" axes: "d" }\n  rule { tensor: "attn.k_norm" name: "self_attention.key_norm',
        'key_norm.scale" axes: "d" }\n  rule { tensor: "attn.k_norm" name: "self_attention.query_norm',
    ),
    ("maxtext", '"e h d"', '"e h d" op { scale { of: "size(d)" half_powers: -1 } }'),
    ("maxtext", "option {", 'atom { name: "d" is: "r p" }\noption {'),
)
"""What the rows of the page's table of edits describe that pass the linter."""


@pytest.fixture
def mappings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pages.install_heron(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def oracle(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The page's oracle, as the module that its tests import."""
    module = _module("tests.oracles.heron", FILES[ORACLE])
    monkeypatch.setitem(sys.modules, "tests.oracles.heron", module)
    return module


def _module(name: str, text: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def _config() -> dict[str, Any]:
    untied = _module("tests.families.heron_test", FILES[TEST]).TestHeron.family.configs["untied"]
    return {key: value for key, value in untied.items() if key != "model_type"}


def _layouts(config: Mapping[str, object]) -> tuple[Layout, Layout]:
    family = bind_family(loader.load_family("heron"), config)
    hf, maxtext = (bind_layout(family, loader.load_layout("heron", format)) for format in ("hf", "maxtext"))
    return hf, maxtext


def _numbered(layout: Layout) -> dict[str, executor.Array]:
    header = layout.header(optional=False, mirrors=False)
    return {
        name: np.arange(1, 1 + int(np.prod(shape)), dtype=np.float32).reshape(shape) + 10_000 * i
        for i, (name, shape) in enumerate(header.items())
    }


def test_the_page_has_the_files_of_its_checklist() -> None:
    layouts = {f"mappings/heron/{name}.textproto" for name in ("family", "hf", "maxtext")}
    assert {*layouts, MANIFEST, ORACLE, TEST} == FILES.keys()


def test_the_family_has_no_issues(mappings: Path) -> None:
    assert [str(issue) for issue in lint_family("heron")] == []
    assert [str(issue) for issue in lint_all(mappings)] == []


def test_the_linter_says_what_the_page_says(mappings: Path) -> None:
    rows = pages.table_of(PAGE, "| mistake |")
    untouched = {path: path.read_text(encoding="utf-8") for path in (mappings / "heron").iterdir()}
    for (_, message), mistake in zip(rows, MISTAKES, strict=True):
        pages.edit(mappings, [mistake])
        assert message.strip("`") in [str(issue) for issue in lint_family("heron")]
        for path, text in untouched.items():
            path.write_text(text, encoding="utf-8")


WITNESSES = [row[-1] for row in pages.table_of(PAGE, "| edit |")]


@pytest.mark.parametrize(("witness", "mistake"), list(zip(WITNESSES, UNSEEN, strict=True)))
def test_what_the_linter_cannot_see_comes_back_whole_and_the_witness_finds_it(
    mappings: Path, oracle: types.ModuleType, witness: str, mistake: Edit
) -> None:
    pages.edit(mappings, [mistake])
    assert lint_family("heron") == []
    config = _config()
    hf, maxtext = _layouts(config)
    source = _numbered(hf)
    there = executor.run(compose(hf, maxtext), source, "float32")
    assert checkpoints.differing(executor.run(compose(maxtext, hf), there, "float32"), source) == []
    variant = Variant(save_dtype="float32")
    shapes = harness.header_in_memory({**config, "model_type": WITNESS}, "AutoModelForCausalLM")
    anything = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    leaves = {name: leaf.shape for name, leaf in oracle.to_maxtext(anything, config, variant).items()}
    headers_agree = hf.header(optional=False) == shapes and maxtext.header() == leaves
    assert headers_agree is (witness == "values")
    if headers_agree:
        assert checkpoints.differing(there, oracle.to_maxtext(source, config, variant)) != []


def test_the_manifest_names_the_family(mappings: Path) -> None:
    manifest = catalog.find("heron-1b-instruct")
    assert manifest is not None
    assert (manifest.name, manifest.layout, catalog.family_of(manifest.config)) == ("heron-1b", "heron", "heron")
    hf, maxtext = _layouts(manifest.config)
    assert len([array for array in hf.arrays.values() if not array.optional]) == 2 + 11 * 28
    assert len(maxtext.arrays) == 2 + 11


def test_a_checkpoint_is_converted_both_ways_without_code(mappings: Path, tmp_path: Path) -> None:
    config = {**_config(), "model_type": "heron", "architectures": ["HeronForCausalLM"], "torch_dtype": "float32"}
    source = _numbered(_layouts(config)[0])
    (tmp_path / "hf").mkdir()
    save_file(source, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    there, back = tmp_path / "out", tmp_path / "back"
    report = Report("there")
    convert.run(ConversionRequest(tmp_path / "hf", there, "hf", "maxtext", "float32"), report)
    convert.run(ConversionRequest(there, back, "maxtext", "hf", "auto"), Report("back"))
    assert report.model_name == "heron"
    assert {tensor.exactness for tensor in report.tensors} == {"EXACT"}
    assert checkpoints.differing(load_file(back / "model.safetensors"), source) == []


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout without the family that Heron is made after."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("container", "converters", "mappings", "reporting", "tests", "validators"):
        shutil.copytree(CHECKOUT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("conftest.py", "pyproject.toml"):
        shutil.copyfile(CHECKOUT / file, root / file)
    shutil.rmtree(root / "mappings" / WITNESS)
    for manifest in catalog.manifests():
        if manifest.family == WITNESS:
            (root / "mappings" / "manifests" / f"{manifest.name}.textproto").unlink()
    for folder, end in (("families", "_test"), ("oracles", "")):
        (root / "tests" / folder / f"{WITNESS}{end}.py").unlink()
    return root


def _run(checkout: Path, *arguments: str) -> tuple[int, str]:
    """A subcommand of the copy; exit code and what it printed."""
    generated = Path(str(mapping_pb2.__file__)).parents[1]
    environ = {**os.environ, "PYTHONPATH": f"{checkout}:{generated}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "container.entrypoint", *arguments]
    ended = subprocess.run(command, cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.skipif(not (CHECKOUT / "container").is_dir(), reason="the whole checkout is not here")
@pytest.mark.skipif("TEST_SRCDIR" in os.environ, reason="needs the checkout")
def test_the_commands_of_the_page_make_a_family_that_is_whole(checkout: Path) -> None:
    command, check = (line.split()[1:] for line in pages.blocks_of(PAGE, "")[0].splitlines())
    before = {path for path in checkout.rglob("*") if path.is_file()}
    code, text = _run(checkout, *command)
    assert code == 0, text
    written = {path.relative_to(checkout) for path in checkout.rglob("*") if path.is_file()}
    assert written - {path.relative_to(checkout) for path in before} == {Path(name) for name in FILES}

    code, text = _run(checkout, *check)
    assert code == 2, text
    assert "FAILED   todo" in text
    assert all(f"{name}:1 is left to do" in text for name in FILES)
    assert "not run  tests" in text

    for name, content in FILES.items():
        own = content.replace('model_type: "heron"', f'model_type: "{WITNESS}"')
        own = own.replace('"model_type": "heron"', f'"model_type": "{WITNESS}"')
        (checkout / name).write_text(own.replace("HeronForCausalLM", "Qwen3ForCausalLM"), encoding="utf-8")
    code, text = _run(checkout, *check)
    assert code == 0, text
    shown = pages.blocks_of(PAGE, "text")[-1].splitlines()
    assert [line for line in shown if f"{line}\n" not in text] == []
    assert all(f"ok       {_sentence(name)}: " in text for name in _common_tests())
    assert "heron is whole" in text


def _common_tests() -> list[str]:
    """What is run of every family, but for what only families with a golden record have."""
    names = [name for name in vars(harness.FamilyTests) if name.startswith("test_")]
    return [name for name in names if name != "test_maxtexts_own_tools_write_the_same_bits"]


def _sentence(name: str) -> str:
    return re.sub("^test_", "", name).replace("_", " ")
