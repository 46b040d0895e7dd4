"""The copy that conversions are compared with."""

import os
from pathlib import Path

import pytest

from converters.benchmarking import copying
from reporting.diagnostics import RecastError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "0" / "items").mkdir(parents=True)
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "0" / "items" / "weights").write_bytes(os.urandom(3_000_001))
    (folder / "0" / "empty").touch()
    return folder


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_bytes_are_copied_and_each_file_is_made_durable(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    fsync = os.fsync

    def record(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    copying.copy_durably(source, tmp_path / "copy")
    assert _content(tmp_path / "copy") == _content(source)
    assert {path.stat().st_ino for path in (tmp_path / "copy").rglob("*") if path.is_file()} <= synced


def test_the_time_is_of_the_copy_and_of_what_makes_it_durable(source: Path, tmp_path: Path) -> None:
    found = copying.copy_durably(source, tmp_path / "copy")
    assert 0 < found.copy_seconds < found.wall_seconds
    assert found.cpu_seconds > 0


def test_a_copy_that_fails_is_an_error(source: Path, tmp_path: Path) -> None:
    with pytest.raises(RecastError) as error:
        copying.copy_durably(source, tmp_path / "not" / "there")
    assert [found.id for found in error.value.diagnostics] == ["INPUT_OUTPUT"]


def test_bytes_are_those_of_all_files(source: Path) -> None:
    assert copying.warm(source) == copying.bytes_of(source) == 3_000_003
    assert len(copying.files_of(source)) == 3


def test_a_folder_is_removed_with_all_that_is_in_it_and_may_be_gone_already(source: Path) -> None:
    copying.remove(source)
    assert not source.exists()
    copying.remove(source)


def test_warming_leaves_nothing(tmp_path: Path) -> None:
    copying.warm_memory(tmp_path, 9 << 20)
    assert list(tmp_path.iterdir()) == []
