"""Tests of reading plain files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from validators import plain_files
from validators.plain_files import UnreadableError


def _refused(path: Path, max_bytes: int = 100) -> UnreadableError:
    with pytest.raises(UnreadableError) as caught:
        plain_files.read(path, max_bytes)
    return caught.value


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert plain_files.read(tmp_path / "a", 3) == b"abc"
    assert plain_files.size_of(tmp_path / "a", 3) == 3


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"abc")
    (tmp_path / "a").symlink_to("blob")
    assert plain_files.read(tmp_path / "a", 3) == b"abc"


def test_a_file_that_is_too_large_is_refused_with_both_sizes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abcd")
    assert str(_refused(tmp_path / "a", 3)) == "it has 4 bytes, more than 3"


def test_a_file_without_an_end_is_refused() -> None:
    assert str(_refused(Path("/dev/zero"))) == "it is no regular file"


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert str(_refused(tmp_path / "pipe")) == "it is no regular file"


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert str(_refused(tmp_path)) == "it is no regular file"


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    assert _refused(tmp_path / "a").missing


def test_a_path_through_a_file_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    assert _refused(tmp_path / "a" / "b").missing


def test_a_link_to_nothing_is_told_as_one(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    error = _refused(tmp_path / "a")
    assert error.missing
    assert str(error) == "it is a link to nothing"


def test_a_link_to_itself_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    assert "symbolic links" in str(_refused(tmp_path / "a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_this_user_may_not_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "a").chmod(0)
    assert str(_refused(tmp_path / "a")) == "Permission denied"
