"""hf-to-maxtext without --hf_model_path: the model's name gives the source, if the local cache of the hub holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf, recast
from tests.checkpoints import differing, read_safetensors

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, which the run takes for the user's."""
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.delenv("HUGGINGFACE_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub"


def _downloaded(cache: Path, hub_id: str) -> Path:
    """A tiny Llama in the cache under the id of a published model."""
    home = cache / f"models--{hub_id.replace('/', '--')}"
    written = cp.write(home / "written")
    snapshot = home / "snapshots" / REVISION
    (home / "blobs").mkdir()
    snapshot.mkdir(parents=True)
    for file in sorted(written.iterdir()):
        file.rename(home / "blobs" / f"blob-{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob-{file.name}")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(REVISION)
    return snapshot


@triggers("HF_MODEL_PATH_REQUIRED")
@pytest.mark.parametrize(
    ("name", "hub_id"),
    [
        ("llama3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("llama3.1-8b-Instruct", "meta-llama/Llama-3.1-8B-Instruct"),
        ("qwen3-4b", "Qwen/Qwen3-4B"),
        ("Qwen/Qwen3-4B-Base", "Qwen/Qwen3-4B-Base"),
    ],
)
def test_a_model_that_the_cache_does_not_hold_is_named_with_how_to_get_it(
    name: str, hub_id: str, cache: Path, destination: Path, tmp_path: Path
) -> None:
    with unchanged(tmp_path):
        run = recast("hf-to-maxtext", f"--model_name={name}", f"--base_output_directory={destination}")
    refused(run, Fault("HF_MODEL_PATH_REQUIRED", f" {hub_id} ", str(cache), "downloads nothing"))
    assert f"hf download {hub_id}" in run.failures[0].suggestion


@triggers("HF_MODEL_PATH_REQUIRED")
def test_a_name_of_several_checkpoints_asks_for_one(cache: Path, destination: Path) -> None:
    run = recast("hf-to-maxtext", "--model_name=qwen3-30b-a3b-2504", f"--base_output_directory={destination}")
    refused(run, Fault("HF_MODEL_PATH_REQUIRED", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-30B-A3B-Base"))


@triggers("HF_MODEL_PATH_REQUIRED")
def test_a_layout_name_has_no_default_source(cache: Path, destination: Path) -> None:
    run = recast("hf-to-maxtext", "--model_name=llama3.1", f"--base_output_directory={destination}")
    refused(run, Fault("HF_MODEL_PATH_REQUIRED", "llama3.1 is no published name"))


def test_the_checkpoint_in_the_cache_is_read_and_held_against_its_name(cache: Path, destination: Path) -> None:
    _downloaded(cache, "meta-llama/Llama-2-7b-hf")
    run = recast("hf-to-maxtext", "--model_name=llama2-7b", f"--base_output_directory={destination}")
    assert {entry.id for entry in run.failures} == {"MODEL_NAME_MISMATCH"}


def test_a_hub_id_in_the_place_of_the_path_is_looked_up_in_the_cache(
    cache: Path, destination: Path, tmp_path: Path
) -> None:
    snapshot = _downloaded(cache, "someone/Tiny-Llama")
    completed(hf_to_maxtext(Path("someone/Tiny-Llama"), destination))
    completed(maxtext_to_hf(destination, tmp_path / "back", "--weight_dtype=auto"))
    assert differing(read_safetensors(tmp_path / "back"), read_safetensors(snapshot)) == []


@triggers("SOURCE_NOT_FOUND")
def test_what_is_neither_a_path_nor_in_the_cache_is_told_with_both(cache: Path, destination: Path) -> None:
    run = recast("hf-to-maxtext", "--hf_model_path=someone/Tiny", f"--base_output_directory={destination}")
    refused(run, Fault("SOURCE_NOT_FOUND", "someone/Tiny does not exist", str(cache), "downloads nothing"))
    assert "Check the path" in run.failures[0].suggestion
    assert "hf download someone/Tiny" in run.failures[0].suggestion


@triggers("SOURCE_NOT_RECOGNIZED")
def test_a_link_out_of_the_cache_is_not_followed(cache: Path, destination: Path, tmp_path: Path) -> None:
    snapshot = _downloaded(cache, "someone/Tiny-Llama")
    (tmp_path / "secret").write_text("{}")
    (snapshot / "tokenizer.json").symlink_to(tmp_path / "secret")
    run = recast("hf-to-maxtext", "--hf_model_path=someone/Tiny-Llama", f"--base_output_directory={destination}")
    refused(run, Fault("SOURCE_NOT_RECOGNIZED", "tokenizer.json"))
