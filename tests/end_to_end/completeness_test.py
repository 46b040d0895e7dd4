"""When an output counts as complete for a request: only if everything that it depends on is what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reporting import version
from tests import checkpoints
from tests.end_to_end.running import Outcome, converted, recast

_CONFIG = checkpoints.CONFIGS["grouped"]
_TEMPLATES = "additional_chat_templates"


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    tensors = checkpoints.element_coded_llama(_CONFIG, "bfloat16", seed=0)
    folder = checkpoints.write_safetensors(tmp_path / "hf", tensors, _CONFIG)
    (folder / "tokenizer.json").write_text("{}", "utf-8")
    (folder / _TEMPLATES).mkdir()
    (folder / _TEMPLATES / "tools.jinja").write_text("old", "utf-8")
    return folder


def _run(hf: Path, out: Path, **flags: object) -> Outcome:
    return recast("hf-to-maxtext", hf_model_path=hf, base_output_directory=out, **flags)


def _is_stale(outcome: Outcome) -> bool:
    return outcome.code == 2 and "DESTINATION_EXISTS" in outcome.text


def test_an_output_is_complete_for_the_request_that_made_it(hf: Path, tmp_path: Path) -> None:
    assert _run(hf, tmp_path / "out").code == 0
    again = _run(hf, tmp_path / "out")
    assert again.code == 0
    assert "already complete" in again.text


def test_an_output_of_another_version_is_not_complete(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(hf, tmp_path / "out").code == 0
    monkeypatch.setattr(version, "VERSION", "99.0.0")
    assert _is_stale(_run(hf, tmp_path / "out"))


def test_an_output_is_not_complete_after_a_chat_template_in_a_folder_changed(hf: Path, tmp_path: Path) -> None:
    assert _run(hf, tmp_path / "out").code == 0
    (hf / _TEMPLATES / "tools.jinja").write_text("new", "utf-8")
    assert _is_stale(_run(hf, tmp_path / "out"))


def test_an_output_is_not_complete_after_a_tokenizer_beside_a_config_file_changed(hf: Path, tmp_path: Path) -> None:
    apart = tmp_path / "apart"
    apart.mkdir()
    shutil.copy(hf / "config.json", apart / "config.json")
    (apart / "tokenizer.json").write_text("{}", "utf-8")
    converted("hf-to-maxtext", hf_model_path=hf, base_output_directory=tmp_path / "maxtext")
    flags = {
        "load_parameters_path": tmp_path / "maxtext",
        "base_output_directory": tmp_path / "back",
        "hf_config_path": apart / "config.json",
    }
    assert recast("maxtext-to-hf", **flags).code == 0
    (apart / "tokenizer.json").write_text('{"version": "2"}', "utf-8")
    assert _is_stale(recast("maxtext-to-hf", **flags))


def test_links_to_shards_in_the_destination_do_not_let_overwrite_remove_them(hf: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(hf, store)
    for shard in hf.glob("*.safetensors"):
        shard.unlink()
        shard.symlink_to(store / shard.name)
    kept = {path.name: path.read_bytes() for path in store.glob("*.safetensors")}
    outcome = _run(hf, store, overwrite=True)
    assert outcome.code == 2
    assert "DESTINATION_INSIDE_SOURCE" in outcome.text
    assert {path.name: path.read_bytes() for path in store.glob("*.safetensors")} == kept


def test_a_tokenizer_that_changes_during_a_run_is_a_changed_source(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from converters.engine import running

    run = running.run

    def changing(*arguments: object) -> object:
        (hf / "tokenizer.json").write_text(json.dumps({"changed": True}), "utf-8")
        return run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "run", changing)
    outcome = _run(hf, tmp_path / "out")
    assert outcome.code == 2
    assert "SOURCE_CHANGED" in outcome.text
