"""Tests of the local cache of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.formats import hub_cache
from reporting.diagnostics import RecastError

HUB_ID = "someone/Toy-1B"
REVISION = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40


def _download(cache: Path, revision: str = REVISION, files: tuple[str, ...] = ("config.json", "a.safetensors")) -> Path:
    """What a download leaves: blobs, and a snapshot of links to them."""
    home = cache / "models--someone--Toy-1B"
    (home / "blobs").mkdir(parents=True, exist_ok=True)
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / "main").write_text(revision)
    folder = home / "snapshots" / revision
    folder.mkdir(parents=True)
    for name in files:
        (home / "blobs" / f"blob-of-{name}").write_text("{}")
        (folder / name).symlink_to(f"../../blobs/blob-of-{name}")
    return folder


def _refusal(cache: Path) -> str:
    with pytest.raises(RecastError) as caught:
        hub_cache.snapshot(HUB_ID, cache)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "SOURCE_NOT_RECOGNIZED"
    return diagnostic.reason


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HF_HOME": ""}, str(Path.home() / ".cache" / "huggingface" / "hub")),
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(environ: dict[str, str], expected: str) -> None:
    assert hub_cache.root(environ) == Path(expected)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("someone/Toy-1B", True),
        ("someone", False),
        ("/someone/Toy", False),
        ("a/b/c", False),
        ("../b", False),
        ("a/..", False),
        ("a/b--c", False),
        ("gs://a/b", False),
        ("", False),
    ],
)
def test_a_hub_id_is_an_organisation_and_a_name(text: str, is_one: bool) -> None:
    assert hub_cache.is_hub_id(text) is is_one


def test_a_snapshot_of_links_to_blobs_is_found(tmp_path: Path) -> None:
    assert hub_cache.snapshot(HUB_ID, tmp_path) is None
    folder = _download(tmp_path)
    assert hub_cache.snapshot(HUB_ID, tmp_path) == folder


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_snapshot_of_files_of_torch_is_found(tmp_path: Path, weights: str) -> None:
    folder = _download(tmp_path, files=("config.json", weights))
    assert hub_cache.snapshot(HUB_ID, tmp_path) == folder


def test_a_cache_behind_a_link_is_found(tmp_path: Path) -> None:
    _download(tmp_path / "disk")
    (tmp_path / "cache").symlink_to("disk")
    found = hub_cache.snapshot(HUB_ID, tmp_path / "cache")
    assert found is not None
    assert found.is_relative_to(tmp_path / "cache")


def test_the_revision_that_main_names_is_taken(tmp_path: Path) -> None:
    _download(tmp_path, OTHER)
    folder = _download(tmp_path)
    assert hub_cache.snapshot(HUB_ID, tmp_path) == folder


def test_of_several_revisions_that_main_does_not_name_none_is_taken(tmp_path: Path) -> None:
    _download(tmp_path)
    _download(tmp_path, OTHER)
    (tmp_path / "models--someone--Toy-1B" / "refs" / "main").unlink()
    assert "2 revisions" in _refusal(tmp_path)


@pytest.mark.parametrize(
    "files",
    [("config.json",), ("a.safetensors",), ("config.json", "tokenizer.json"), ("config.json", "training_args.bin"), ()],
)
def test_a_snapshot_without_config_or_weights_is_none(tmp_path: Path, files: tuple[str, ...]) -> None:
    _download(tmp_path, files=files)
    assert hub_cache.snapshot(HUB_ID, tmp_path) is None


def test_a_link_that_leads_out_of_the_download_is_refused(tmp_path: Path) -> None:
    folder = _download(tmp_path)
    (tmp_path / "elsewhere").write_text("secret")
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere")
    assert "tokenizer.json" in _refusal(tmp_path)


def test_a_snapshot_that_is_itself_a_link_to_elsewhere_is_not_followed_out(tmp_path: Path) -> None:
    folder = _download(tmp_path)
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("config.json", "a.safetensors"):
        (outside / name).write_text("{}")
    moved = folder.with_name("kept")
    folder.rename(moved)
    folder.symlink_to(outside)
    assert "leads out" in _refusal(tmp_path)


def test_a_reference_of_any_content_names_no_other_folder(tmp_path: Path) -> None:
    folder = _download(tmp_path)
    reference = folder.parents[1] / "refs" / "main"
    for content in ("../../../etc", "x" * 1000, ""):
        reference.write_text(content)
        assert hub_cache.snapshot(HUB_ID, tmp_path) == folder
