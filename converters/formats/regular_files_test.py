import os
from pathlib import Path

import pytest

from converters.formats.regular_files import open_regular


def test_a_file_is_opened_for_reading(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    file = open_regular(tmp_path / "file")
    assert file is not None
    with file:
        assert file.read() == b"content"


def test_a_pipe_a_directory_and_a_device_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        assert open_regular(path) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_not_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
