"""The output grows in a staging folder inside the destination and appears at the end; DONE is last.

The folder lies inside, not beside, the destination: the destination may be a mount point whose parent is read-only,
and renames must stay on one file system.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from converters.engine import publication
from converters.engine.destination import DONE, OUTPUT, PUBLISHING, STAGING, is_folder
from converters.engine.run_files import JOURNAL, empty, holds_strange_entries
from converters.engine.signals import uninterrupted
from reporting.diagnostics import RecastError

_LOCK = "lock"
# Written after everything else of an output, so that an earlier attempt's are no part of what is listed.
_CLOSING = (DONE, "report.txt", "report.json", "checkpoint-manifest.json")


class Staging:
    """The staging folder of one run.

    Attributes:
        destination: the directory that the user named.
        folder: what a run keeps there meanwhile: its output, its journal, and what it replaces.
        root: where the output is written.
    """

    def __init__(self, destination: Path):
        self.destination = destination
        self.folder = destination / STAGING
        self.root = self.folder / OUTPUT
        self._made: list[Path] = []
        self._lock: int | None = None

    def open(self) -> None:
        """Makes the folder and takes its lock; what an interrupted run left in it stays, until `clear`.

        Raises:
            RecastError: DESTINATION_NOT_WRITABLE, DESTINATION_BUSY, or DESTINATION_EXISTS if something else has the
                folder's name.
        """
        if not is_folder(self.folder) and os.path.lexists(self.folder):
            raise RecastError.of(
                "DESTINATION_EXISTS", f"{STAGING} in the destination is no folder of a run.", subject=str(self.folder)
            )
        with uninterrupted():
            try:
                self._make_directories()
                self._take_lock()
            except OSError as error:
                if self._lock is not None and self.folder in self._made:
                    # Nobody else has seen the folder in use: without its lock it can be removed again.
                    with contextlib.suppress(OSError):
                        (self.folder / _LOCK).unlink()
                self._release()
                self._unmake()
                if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT):
                    raise
                raise _not_writable(self.destination) from error
            publication.settle(self.destination)
            if not is_folder(self.root) or holds_strange_entries(self.folder):
                self.clear()

    def clear(self) -> None:
        """Removes what an interrupted run left, and makes room for an output."""
        empty(self.folder, keep=(_LOCK,))
        self.root.mkdir()

    def path(self, *parts: str) -> Path:
        """A path inside the folder; its parent directory exists afterwards."""
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def forget_an_earlier_closing(self) -> None:
        """Removes what an earlier attempt wrote last, so that it is no part of what this one lists."""
        for name in _CLOSING:
            (self.root / name).unlink(missing_ok=True)

    def publish(self, last: Iterable[str], check: Callable[[], None]) -> None:
        """Moves everything to the destination, DONE last; what was there goes first, and comes back if a move fails.

        Args:
            last: names that must appear after the others.
            check: raises if what is at the destination by now may not be replaced.

        Raises:
            RecastError: what `check` raises, or DESTINATION_NOT_WRITABLE.
        """
        with uninterrupted() as held:
            try:
                publication.move_into_place(self.destination, [*last, DONE], check)
            except PermissionError as error:
                raise _not_writable(self.destination) from error
            # It is done: whoever wanted the run to stop gets what it would have left by ending a moment earlier.
            held.came.clear()
            self._made.clear()
            if (self.folder / PUBLISHING).exists():
                # It could not be noted that the output counts: the next run does so, from what lies here.
                self._release()
                return
            with contextlib.suppress(OSError):
                self._clear()

    def settle(self) -> None:
        """Finishes or undoes what a run that was killed while it published had moved, unless it still runs."""
        if is_folder(self.folder) and (self.folder / PUBLISHING).exists():
            self.tidy()

    def tidy(self) -> None:
        """Removes the litter of a publication that was complete; a folder in use, or with finished units, stays."""
        if not is_folder(self.folder) or not os.access(self.folder, os.W_OK):
            return
        try:
            self.open()
        except (RecastError, OSError):
            return
        if (self.folder / JOURNAL).exists():
            self.keep()
        else:
            self.discard()

    def keep(self) -> None:
        """Lets go of the folder and leaves it as it is, for a run that continues."""
        self._release()

    def discard(self) -> None:
        """Removes the folder if it is this run's, and the destination if this run made it and it is empty."""
        with uninterrupted():
            if (self.folder / PUBLISHING).exists():
                # What was replaced lies there, and putting it back has failed: the next run tries again.
                self._release()
            if self._lock is not None:
                self._clear()
            self._unmake()

    def _clear(self) -> None:
        """Removes the folder; the lock goes last, so that nobody else uses the folder meanwhile."""
        with contextlib.suppress(OSError):
            empty(self.folder, keep=(_LOCK,))
        with contextlib.suppress(OSError):
            (self.folder / _LOCK).unlink()
            self.folder.rmdir()
        self._release()

    def _make_directories(self) -> None:
        missing = [path for path in (self.folder, *self.folder.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made.append(path)
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable", str(self.folder))

    def _take_lock(self) -> None:
        descriptor = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        self._lock = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            said = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip()
            holder = said if said.isdecimal() else "unknown"
            self._release()
            raise RecastError.of(
                "DESTINATION_BUSY",
                f"Another run (process {holder}) is writing to this directory.",
                subject=str(self.destination),
            ) from error
        if not os.path.samestat(os.fstat(descriptor), os.stat(self.folder / _LOCK)):
            self._release()
            raise RecastError.of("DESTINATION_BUSY", "Another run has just ended here.", subject=str(self.destination))
        # The number is a courtesy to whoever is refused; a disk that is full shall not stop a run that continues.
        with contextlib.suppress(OSError):
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


def _not_writable(destination: Path) -> RecastError:
    return RecastError.of(
        "DESTINATION_NOT_WRITABLE", "This user may not write to the destination.", subject=str(destination)
    )
