import errno
import os

import pytest

from converters.formats.storage_errors import reading, write_error_id, writing
from reporting.diagnostics import RecastError


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "DISK_FULL"),
        (errno.EDQUOT, "DISK_FULL"),
        (errno.EACCES, "DESTINATION_NOT_WRITABLE"),
        (errno.EPERM, "DESTINATION_NOT_WRITABLE"),
        (errno.EROFS, "DESTINATION_NOT_WRITABLE"),
        (errno.ENOMEM, "OUT_OF_MEMORY"),
        (errno.EIO, "INPUT_OUTPUT"),
        (None, "INPUT_OUTPUT"),
    ],
)
def test_a_failed_write_has_the_id_of_its_cause(number: int | None, expected: str) -> None:
    assert write_error_id(number) == expected


def test_a_full_device_is_disk_full_with_the_file_as_its_subject() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(RecastError) as caught, writing("/dev/full"):
        full.write(b"x")
    (found,) = caught.value.diagnostics
    assert (found.id, found.subject) == ("DISK_FULL", "/dev/full")
    assert "No space left" in found.reason


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOENT, "SOURCE_NOT_FOUND"), (errno.ENOMEM, "OUT_OF_MEMORY"), (errno.EIO, "INPUT_OUTPUT")],
)
def test_a_failed_read_has_the_id_of_its_cause(number: int, expected: str) -> None:
    with pytest.raises(RecastError) as caught, reading("file"):
        raise OSError(number, os.strerror(number))
    assert caught.value.diagnostics[0].id == expected
