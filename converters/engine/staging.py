"""The output grows in a staging folder inside the destination and appears at the end; DONE is last.

The folder lies inside, not beside, the destination: the destination may be a mount point whose parent is read-only,
and renames must stay on one file system.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from reporting.diagnostics import RecastError

STAGING = ".recast-staging"
DONE = "DONE"
_LOCK = "lock"
# What a checkpoint directory may hold at its top; `--overwrite` replaces directories that have one of these.
_MARKS = (DONE, "checkpoint-manifest.json", "config.json", "recast", "0", STAGING)


class Staging:
    """The staging folder of one run.

    Attributes:
        destination: the directory that the user named.
        root: where the output is written meanwhile.
    """

    def __init__(self, destination: Path):
        self.destination = destination
        self.root = destination / STAGING
        self._made: list[Path] = []
        self._lock: int | None = None

    def open(self) -> None:
        """Makes the folder and takes its lock; what an earlier, interrupted run left in it is removed.

        Raises:
            RecastError: DESTINATION_NOT_WRITABLE, DESTINATION_BUSY, or DESTINATION_EXISTS if something else has the
                folder's name.
        """
        if not _is_staging(self.root) and os.path.lexists(self.root):
            raise RecastError.of(
                "DESTINATION_EXISTS", f"{STAGING} in the destination is no folder of a run.", subject=str(self.root)
            )
        try:
            self._make_directories()
            self._take_lock()
        except PermissionError as error:
            self._unmake()
            raise _not_writable(self.destination) from error
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES):
                raise
            self._unmake()
            raise _not_writable(self.destination) from error
        for entry in self.root.iterdir():
            if entry.name != _LOCK:
                _remove(entry)

    def path(self, *parts: str) -> Path:
        """A path inside the folder; its parent directory exists afterwards."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, last: Iterable[str] = ()) -> None:
        """Moves everything but DONE to the destination, the names in `last` after all others.

        What the destination held before is removed first, its DONE before anything else.
        """
        self._clear_destination()
        order = list(last)
        names = sorted(entry.name for entry in self.root.iterdir() if entry.name not in (_LOCK, DONE))
        for name in sorted(names, key=lambda name: (order.index(name) if name in order else -1, name)):
            os.rename(self.root / name, self.destination / name)
        sync_directory(self.destination)

    def complete(self, done: str) -> None:
        """Writes DONE: the run is over, and all of its output is there."""
        staged = self.root / DONE
        write_durably(staged, done)
        os.rename(staged, self.destination / DONE)
        sync_directory(self.destination)
        self._release()
        shutil.rmtree(self.root, ignore_errors=True)
        sync_directory(self.destination)

    def discard(self) -> None:
        """Removes the folder if it is this run's, and the destination if this run made it and it is empty."""
        if self._lock is not None:
            shutil.rmtree(self.root, ignore_errors=True)
        self._release()
        self._unmake()

    def _make_directories(self) -> None:
        missing = [path for path in (self.root, *self.root.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made.append(path)
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable", str(self.root))

    def _take_lock(self) -> None:
        descriptor = os.open(self.root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise RecastError.of(
                "DESTINATION_BUSY",
                f"Another run (process {holder}) is writing to this directory.",
                subject=str(self.destination),
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._lock = descriptor

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _unmake(self) -> None:
        for path in reversed(self._made):
            if not path.exists():
                continue
            if any(path.iterdir()):
                break
            path.rmdir()
        self._made.clear()

    def _clear_destination(self) -> None:
        _remove(self.destination / DONE)
        for entry in self.destination.iterdir():
            if entry.name != STAGING:
                _remove(entry)


def is_vacant(destination: Path) -> bool:
    """Whether nothing is there, or nothing but what an interrupted run left in its staging folder."""
    if not destination.exists():
        return True
    return destination.is_dir() and all(entry.name == STAGING and _is_staging(entry) for entry in destination.iterdir())


def is_replaceable(destination: Path) -> bool:
    """Whether a directory looks like a checkpoint, which `--overwrite` may replace."""
    if not destination.is_dir():
        return False
    return any((destination / mark).exists() for mark in _MARKS) or any(destination.glob("*.safetensors"))


def write_durably(path: Path, content: str) -> None:
    """Writes a text file and waits until it is on the disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Makes every file and directory below a directory durable."""
    for folder, _, files in os.walk(root):
        for name in files:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(folder))


def _is_staging(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _not_writable(destination: Path) -> RecastError:
    return RecastError.of(
        "DESTINATION_NOT_WRITABLE", "This user may not write to the destination.", subject=str(destination)
    )
