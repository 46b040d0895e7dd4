import json
from pathlib import Path

import blake3

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
