"""The output grows in a staging folder inside the destination and appears at the end; DONE is last.

The folder lies inside, not beside, the destination: the destination may be a mount point whose parent is read-only,
and renames must stay on one file system.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import fnmatch
import json
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from reporting.diagnostics import RecastError
from validators import carried_files

STAGING = ".recast-staging"
DONE = "DONE"
_LOCK = "lock"
_REPLACED = "replaced"
_KEPT = (_LOCK, _REPLACED, "publishing")
_PUBLISHING = "publishing"
# What marks a directory as a checkpoint of ours, of Hugging Face or of MaxText.
_MARKS = ("checkpoint-manifest.json", "config.json", "0/_CHECKPOINT_METADATA", "0/items/_METADATA")
# What such a directory may hold at its top, beside what a manifest of ours lists.
_OURS = (DONE, "checkpoint-manifest.json", "report.txt", "report.json", "recast", "0", STAGING)
_PATTERNS = ("*.safetensors", "*.safetensors.index.json", *carried_files.PATTERNS)


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
        with uninterrupted():
            try:
                self._make_directories()
                self._take_lock()
            except OSError as error:
                self.discard()
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT):
                    raise
                raise _not_writable(self.destination) from error
        self._take_back_an_interrupted_publication()
        for entry in self.root.iterdir():
            if entry.name != _LOCK:
                _remove(entry)

    def path(self, *parts: str) -> Path:
        """A path inside the folder; its parent directory exists afterwards."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def publish(self, last: Iterable[str] = ()) -> None:
        """Moves everything to the destination, DONE last; what was there goes first, and comes back if a move fails."""
        order = [*last, DONE]
        replaced = self.root / _REPLACED
        with uninterrupted():
            moved: list[tuple[Path, Path]] = []
            try:
                names = [entry.name for entry in self.root.iterdir() if entry.name != _LOCK]
                write_durably(self.root / _PUBLISHING, json.dumps(names))
                replaced.mkdir()
                old = [entry.name for entry in self.destination.iterdir() if entry.name != STAGING]
                for name in sorted(old, key=lambda name: name != DONE):
                    _move(self.destination / name, replaced / name, moved)
                new = sorted(entry.name for entry in self.root.iterdir() if entry.name not in _KEPT)
                for name in sorted(new, key=lambda name: (order.index(name) if name in order else -1, name)):
                    _move(self.root / name, self.destination / name, moved)
            except BaseException as error:
                _take_back(moved)
                if isinstance(error, PermissionError):
                    raise _not_writable(self.destination) from error
                raise
            self._made.clear()
            with contextlib.suppress(OSError):
                sync_directory(self.destination)
                self._clear()

    def discard(self) -> None:
        """Removes the folder if it is this run's, and the destination if this run made it and it is empty."""
        with uninterrupted():
            if self._lock is not None:
                self._clear()
            self._unmake()

    def _clear(self) -> None:
        """Removes the folder; the lock goes last, so that nobody else uses the folder meanwhile."""
        for entry in self.root.iterdir():
            if entry.name != _LOCK:
                with contextlib.suppress(OSError):
                    _remove(entry)
        with contextlib.suppress(OSError):
            (self.root / _LOCK).unlink()
            self.root.rmdir()
        self._release()

    def _take_back_an_interrupted_publication(self) -> None:
        """Undoes what a run that was killed while it published had moved."""
        if not (self.root / _PUBLISHING).exists():
            return
        for name in _being_published(self.root):
            _remove(self.destination / name)
        replaced = self.root / _REPLACED
        for entry in sorted(replaced.iterdir()) if replaced.is_dir() else ():
            os.rename(entry, self.destination / entry.name)

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
        self._lock = descriptor
        if not os.path.samestat(os.fstat(descriptor), os.stat(self.root / _LOCK)):
            self._release()
            raise RecastError.of("DESTINATION_BUSY", "Another run has just ended here.", subject=str(self.destination))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)

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


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds SIGTERM and SIGINT back until a block has ended."""
    held = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    os.rename(source, target)
    moved.append((source, target))


def _take_back(moved: list[tuple[Path, Path]]) -> None:
    for source, target in reversed(moved):
        os.rename(target, source)


def is_vacant(destination: Path) -> bool:
    """Whether nothing is there, or nothing but what an interrupted run left in its staging folder."""
    if not destination.exists():
        return True
    if not destination.is_dir() or (destination / DONE).exists():
        return False
    staging = destination / STAGING
    left = (
        set(_being_published(staging)) if _is_staging(staging) and not _holds_anything(staging / _REPLACED) else set()
    )
    return all(entry.name in left or (entry.name == STAGING and _is_staging(entry)) for entry in destination.iterdir())


def is_replaceable(destination: Path) -> bool:
    """Whether a directory is a checkpoint and holds nothing else, so that `--overwrite` may replace it."""
    if not destination.is_dir():
        return False
    marked = any((destination / mark).exists() for mark in _MARKS) or any(destination.glob("*.safetensors"))
    return marked and all(_is_ours(entry.name) for entry in destination.iterdir())


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


def _is_ours(name: str) -> bool:
    patterns = (pattern.split("/")[0] for pattern in _PATTERNS)
    return name in _OURS or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _being_published(staging: Path) -> list[str]:
    """Top names that a run was moving into place when it was killed."""
    try:
        names = json.loads((staging / _PUBLISHING).read_text("utf-8"))
    except (OSError, ValueError):
        return []
    usable = isinstance(names, list) and all(isinstance(name, str) and "/" not in name for name in names)
    return [name for name in names if name not in ("", ".", "..", STAGING)] if usable else []


def _holds_anything(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


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
