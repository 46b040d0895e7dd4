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

    def watch(descriptor: int) -> None:
        seen.append(path.exists())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    durable.write_file(path, b"new")
    assert seen == [False]


def test_a_draft_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (tmp_path / "file.part").symlink_to(outside)
    with pytest.raises(RecastError):
        durable.write_file(tmp_path / "file", b"new")
    assert outside.read_bytes() == b"precious"


def test_many_files_are_synced_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / str(i) for i in range(20)]
    for path in paths:
        path.write_bytes(b"x")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    durable.sync_files(paths)
    assert sorted(synced) == sorted(map(str, paths))


def test_one_file_of_many_that_cannot_be_synced_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(RecastError):
        durable.sync_files([tmp_path / "a", tmp_path / "none"])


def test_syncing_a_file_that_is_not_there_is_an_input_output_error(tmp_path: Path) -> None:
    with pytest.raises(RecastError) as caught:
        durable.sync_file(tmp_path / "none")
    assert caught.value.diagnostics[0].id == "INPUT_OUTPUT"


def test_a_directory_can_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    durable.sync_directory(tmp_path)
    assert synced == [str(tmp_path)]
