"""Files and folders of a run: written so that they last, removed in an order that leaves nothing misleading."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Collection
from pathlib import Path

from converters.formats.durable import sync_directory, sync_file

# What says that units are finished goes first: should the removal be cut short, nothing claims what is gone.
JOURNAL = "journal"
IDENTITY = "resume.json"
_CLAIMS = (JOURNAL, IDENTITY)


def write_durably(path: Path, content: str) -> None:
    """Writes a text file and waits until it is on the disk."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_tree(root: Path) -> None:
    """Makes every file and directory below a directory durable."""
    for folder, _, files in os.walk(root):
        for name in files:
            sync_file(Path(folder, name))
        sync_directory(Path(folder))


def empty(folder: Path, keep: Collection[str] = ()) -> None:
    """Removes everything in a run's folder but what is named, claims of finished units first and durably.

    Raises:
        OSError: something could not be removed.
    """
    claims = [folder / name for name in _CLAIMS if os.path.lexists(folder / name)]
    for path in claims:
        remove(path)
    if claims:
        with contextlib.suppress(OSError):
            sync_directory(folder)
    for entry in folder.iterdir():
        if entry.name not in keep:
            remove(entry)


def holds_strange_entries(folder: Path) -> bool:
    """Whether anything below a folder is neither a file nor a directory: a run makes no links, and follows none."""
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            mode = os.lstat(os.path.join(place, name)).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                return True
    return False


def remove(path: Path) -> None:
    """Removes a file, a link itself, or a directory with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
