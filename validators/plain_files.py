"""Small files read whole, and only if they are files: never a device, a pipe or something without an end."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class UnreadableError(Exception):
    """A file that cannot be taken; the text says why, without the file's name.

    Attributes:
        missing: whether it is not there at all.
    """

    def __init__(self, reason: str, *, missing: bool = False):
        super().__init__(reason)
        self.missing = missing


def size_of(path: Path, max_bytes: int) -> int:
    """The size of a regular file, links followed.

    Raises:
        UnreadableError: it is not there, is no regular file, or has more than `max_bytes`.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        what = "it is a link to nothing" if path.is_symlink() else "it does not exist"
        raise UnreadableError(what, missing=True) from None
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableError("it is no regular file")
    if status.st_size > max_bytes:
        raise UnreadableError(f"it has {status.st_size} bytes, more than {max_bytes}")
    return status.st_size


def read(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file, links followed.

    Raises:
        UnreadableError: as `size_of`, or it cannot be read.
    """
    size_of(path, max_bytes)
    try:
        # What was checked may have been replaced since: without O_NONBLOCK, opening a pipe would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from None
    if len(content) > max_bytes:
        raise UnreadableError(f"it has more than {max_bytes} bytes")
    return content
