import os
from pathlib import Path

import pytest

from converters.formats import durable
from reporting.diagnostics import RecastError


def test_a_written_file_has_its_content_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    durable.write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_the_content_is_synced_before_the_file_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    seen = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (seen.append(path.exists()), sync(descriptor)))
    durable.write_file(path, b"new")
    assert seen == [False]


def test_a_draft_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "file.part").symlink_to(outside)
    with pytest.raises(RecastError):
        durable.write_file(tmp_path / "file", b"new")
    assert outside.read_bytes() == b"precious"


def test_syncing_a_file_that_is_not_there_is_an_input_output_error(tmp_path: Path) -> None:
    with pytest.raises(RecastError) as caught:
        durable.sync_file(tmp_path / "none")
    assert caught.value.diagnostics[0].id == "INPUT_OUTPUT"


def test_a_directory_can_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    durable.sync_directory(tmp_path)
    assert synced == [str(tmp_path)]
