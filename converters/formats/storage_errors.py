"""What the operating system or a storage library says, as diagnostics."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

from reporting.diagnostics import RecastError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FROM_THE_BEGINNING = "Run the command again: the damaged files are removed by now, and it starts from the beginning."
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


def damaged(place: Path, why: str) -> RecastError:
    """UNFINISHED_RUN: what an interrupted run had written is not as it left it.

    Args:
        place: where it lies.
        why: a sentence.
    """
    reason = f"The unfinished run cannot be continued: what it had written is damaged. {why}"
    return RecastError.of("UNFINISHED_RUN", reason, subject=str(place), suggestion=_FROM_THE_BEGINNING)


def missing(files: Sequence[str]) -> str:
    """A sentence about files that are gone or too short."""
    others = f" and {len(files) - 1} more are" if len(files) > 1 else " is"
    return f"{files[0]}{others} gone, or cut short."


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
