"""Notices that a source's files changed since they were first read."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3

from converters.formats.regular_files import open_regular
from reporting.diagnostics import Diagnostic

_PIECE = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells a file from a later version of itself.

    Attributes:
        path: relative to the checkpoint.
        size: bytes.
        mtime_ns: time of its last modification, nanoseconds.
        head: how many leading bytes the digest covers.
        digest: BLAKE3 of those bytes, hexadecimal.
    """

    path: str
    size: int
    mtime_ns: int
    head: int
    digest: str


def take(root: Path, path: str, head: int) -> Fingerprint:
    """The fingerprint of a file; raises OSError.

    Args:
        root: directory of the checkpoint.
        path: the file, relative to it.
        head: leading bytes to digest, at most the file's size.
    """
    file = open_regular(root / path)
    if file is None:
        raise OSError(errno.EINVAL, "not a regular file", str(root / path))
    with file:
        status = os.fstat(file.fileno())
        hasher = blake3()
        left = head = min(head, status.st_size)
        while left and (piece := file.read(min(left, _PIECE))):
            hasher.update(piece)
            left -= len(piece)
    return Fingerprint(path, status.st_size, status.st_mtime_ns, head, hasher.hexdigest())


def changes(root: Path, taken: Sequence[Fingerprint]) -> list[Diagnostic]:
    """One SOURCE_CHANGED for each file that is not what it was."""
    found = []
    for old in taken:
        difference = _difference(root, old)
        if difference:
            found.append(Diagnostic("SOURCE_CHANGED", f"{old.path} {difference}", subject=old.path))
    return found


def _difference(root: Path, old: Fingerprint) -> str:
    try:
        new = take(root, old.path, old.head)
    except OSError as error:
        return f"can no longer be read: {error.strerror}"
    if new.size != old.size:
        return f"had {old.size} bytes and now has {new.size}"
    if new.digest != old.digest:
        return f"has other content in its first {old.head} bytes"
    if new.mtime_ns != old.mtime_ns:
        return "was modified"
    return ""
