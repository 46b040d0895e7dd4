"""What the operating system or a storage library says, as diagnostics."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from reporting.diagnostics import RecastError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def write_error(error: OSError, path: Path | str) -> RecastError:
    """The error of a failed write as DISK_FULL, DESTINATION_NOT_WRITABLE, OUT_OF_MEMORY or INPUT_OUTPUT."""
    reason = f"writing {path}: {error.strerror or error}"
    return RecastError.of(write_error_id(error.errno), reason, subject=str(path))


def read_error(error: OSError, path: Path | str) -> RecastError:
    """The error of a failed read as SOURCE_NOT_FOUND, SOURCE_NOT_READABLE, OUT_OF_MEMORY or INPUT_OUTPUT."""
    reason = f"reading {path}: {error.strerror or error}"
    return RecastError.of(_read_error_id(error.errno), reason, subject=str(path))


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Turns an OSError inside into the RecastError of `write_error`."""
    try:
        yield
    except OSError as error:
        raise write_error(error, path) from error


@contextlib.contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turns an OSError inside into the RecastError of `read_error`."""
    try:
        yield
    except OSError as error:
        raise read_error(error, path) from error


def _read_error_id(number: int | None) -> str:
    if number in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
        return "SOURCE_NOT_FOUND"
    if number in (errno.EACCES, errno.EPERM):
        return "SOURCE_NOT_READABLE"
    return "OUT_OF_MEMORY" if number == errno.ENOMEM else "INPUT_OUTPUT"


def write_error_id(number: int | None) -> str:
    """The id of a failed write by the system's error number, None where that is not known."""
    if number in _FULL:
        return "DISK_FULL"
    if number in _REFUSED:
        return "DESTINATION_NOT_WRITABLE"
    return "OUT_OF_MEMORY" if number == errno.ENOMEM else "INPUT_OUTPUT"
