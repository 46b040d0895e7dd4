"""Files that survive a power failure."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from converters.formats.storage_errors import writing

_SYNC_THREADS = 4


def sync_file(path: Path) -> None:
    """Returns once the bytes and the size of a file are on the device."""
    _sync(path, os.O_RDONLY)


def sync_files(paths: Iterable[Path]) -> None:
    """`sync_file` for many: several at once, since the journal of a file system takes them together."""
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        for _ in pool.map(sync_file, paths):
            continue


def sync_directory(path: Path) -> None:
    """Returns once the names in a directory are on the device."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def write_file(path: Path, data: bytes) -> None:
    """Writes a whole small file so that a reader sees the old content, the new one, or no file, and never a part."""
    draft = path.with_name(path.name + ".part")
    with writing(path):
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)


def _sync(path: Path, flags: int) -> None:
    with writing(path):
        descriptor = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
