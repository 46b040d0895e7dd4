"""What a conversion is compared with: `cp` of the source's files, then fsync of each."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

from converters.benchmarking import measuring
from reporting.diagnostics import RecastError

_PIECE = 8 << 20


@dataclasses.dataclass(frozen=True)
class Copy:
    """How a copy went.

    Attributes:
        wall_seconds: until the last file was durable.
        copy_seconds: the part of it that `cp` took.
        cpu_seconds: user and system time of both.
    """

    wall_seconds: float
    copy_seconds: float
    cpu_seconds: float


def copy_durably(source: Path, destination: Path) -> Copy:
    """Copies a directory to a path where nothing is yet.

    Raises:
        RecastError: INPUT_OUTPUT if `cp` fails.
    """
    copied = measuring.run(["cp", "-R", "--reflink=never", str(source), str(destination)])
    if copied.code:
        raise RecastError.of("INPUT_OUTPUT", f"cp: {copied.output.strip()}", subject=str(source))
    start, cpu = time.perf_counter(), time.process_time()
    for path in files_of(destination):
        _sync(path)
    _sync(destination)
    synced, used = time.perf_counter() - start, time.process_time() - cpu
    return Copy(copied.wall_seconds + synced, copied.wall_seconds, copied.cpu_seconds + used)


def warm(folder: Path) -> int:
    """Reads all files of a directory once, so that they are cached; returns their bytes."""
    buffer = bytearray(_PIECE)
    total = 0
    for path in files_of(folder):
        with open(path, "rb", buffering=0) as file:
            while count := file.readinto(buffer):
                total += count
    return total


def warm_memory(folder: Path, size: int) -> None:
    """Writes a file of so many bytes and removes it: the memory that the next one to write gets was used just now.

    A virtual machine gives memory that lies idle for seconds back to its host; the next to touch it pays several times
    the price of a copy, whoever that is. Both sides begin with memory of the same kind.
    """
    path = folder / "warming"
    piece = bytes(_PIECE)
    with open(path, "wb", buffering=0) as file:
        for start in range(0, size, _PIECE):
            file.write(piece[: min(_PIECE, size - start)])
    path.unlink()


def files_of(folder: Path) -> list[Path]:
    """All files below a directory."""
    return sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)


def bytes_of(folder: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in files_of(folder))


def remove(folder: Path) -> None:
    """Removes a directory and waits until the file system has nothing left to write."""
    shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
