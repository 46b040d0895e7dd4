import json
from pathlib import Path

import blake3
import pytest

from converters.engine import manifest


def _output(folder: Path) -> Path:
    (folder / "0").mkdir()
    (folder / "0" / "data").write_bytes(b"x" * 1000)
    text = manifest.describe(folder, {"a": {"dtype": "float32", "shape": [1], "units": []}}, "request", 1)
    (folder / manifest.FILE).write_text(text)
    (folder / "DONE").write_text(manifest.done(text, "request"))
    return folder


def test_the_manifest_names_every_file_with_size_and_digest(tmp_path: Path) -> None:
    data = json.loads((_output(tmp_path) / manifest.FILE).read_text())
    assert data["files"] == {"0/data": {"bytes": 1000, "blake3": blake3.blake3(b"x" * 1000).hexdigest()}}
    assert data["tensors"]["a"]["dtype"] == "float32"


def test_a_whole_output_is_complete_for_its_request_only(tmp_path: Path) -> None:
    _output(tmp_path)
    assert manifest.is_complete(tmp_path, "request")
    assert not manifest.is_complete(tmp_path, "another")


def test_a_file_that_is_gone_or_cut_makes_it_incomplete(tmp_path: Path) -> None:
    _output(tmp_path)
    (tmp_path / "0" / "data").write_bytes(b"x" * 999)
    assert not manifest.is_complete(tmp_path, "request")
    (tmp_path / "0" / "data").unlink()
    assert not manifest.is_complete(tmp_path, "request")


def test_a_manifest_that_is_not_the_one_of_done_makes_it_incomplete(tmp_path: Path) -> None:
    _output(tmp_path)
    path = tmp_path / manifest.FILE
    path.write_text(path.read_text().replace("1000", "1001"))
    assert not manifest.is_complete(tmp_path, "request")


def test_without_done_nothing_is_complete(tmp_path: Path) -> None:
    assert not manifest.is_complete(tmp_path, "request")
    (tmp_path / "DONE").write_text("[" * 100_000)
    assert not manifest.is_complete(tmp_path, "request")


def _item(folder: Path, *, ocdbt: bool) -> Path:
    """An output whose item has a file at its top and data of two arrays, one of them `q`."""
    items = folder / "0" / "items"
    data = [f"d/{'7' * 32}"] if ocdbt else ["q/0.0", "k/0.0"]
    for name in ("_METADATA", *data):
        (items / name).parent.mkdir(parents=True, exist_ok=True)
        (items / name).write_bytes(b"x" * 100)
    text = manifest.describe(folder, {}, "request", 1)
    (folder / manifest.FILE).write_text(text)
    (folder / "DONE").write_text(manifest.done(text, "request"))
    return items


@pytest.mark.parametrize("ocdbt", [True, False])
def test_an_item_that_nothing_touched_is_the_one_that_was_written(tmp_path: Path, ocdbt: bool) -> None:
    _item(tmp_path, ocdbt=ocdbt)
    assert manifest.doubt(tmp_path, "0/items", {"q"}) == ""


@pytest.mark.parametrize("changed", ["_METADATA", "q/0.0"])
def test_other_bytes_of_the_same_length_cast_doubt_on_an_item(tmp_path: Path, changed: str) -> None:
    (_item(tmp_path, ocdbt=False) / changed).write_bytes(b"y" * 100)
    assert changed in manifest.doubt(tmp_path, "0/items", {"q"})


def test_other_files_or_lengths_cast_doubt_on_an_item(tmp_path: Path) -> None:
    items = _item(tmp_path, ocdbt=True)
    (items / "d" / ("8" * 32)).write_bytes(b"x")
    assert "not among the files" in manifest.doubt(tmp_path, "0/items", {"q"})
    (items / "d" / ("8" * 32)).unlink()
    (items / "d" / ("7" * 32)).write_bytes(b"x" * 99)
    assert "not the file" in manifest.doubt(tmp_path, "0/items", {"q"})
    (items / "d" / ("7" * 32)).unlink()
    assert "gone" in manifest.doubt(tmp_path, "0/items", {"q"})


def test_an_item_beside_no_confirmed_manifest_is_in_doubt(tmp_path: Path) -> None:
    _item(tmp_path, ocdbt=True)
    (tmp_path / "DONE").write_text("{}")
    assert "DONE" in manifest.doubt(tmp_path, "0/items", {"q"})
