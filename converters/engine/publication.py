"""Moves a finished output to its destination in one reversible step, DONE last.

A kill in between is settled by the next run: before DONE is in place everything is undone, afterwards it is finished.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from converters.engine.destination import DONE, OUTPUT, PUBLISHING, REPLACED, STAGING, being_published, is_folder
from converters.engine.run_files import IDENTITY, JOURNAL, remove, write_durably
from converters.formats.durable import sync_directory


def move_into_place(destination: Path, order: Sequence[str], check: Callable[[], None]) -> None:
    """Moves a staged output to the destination; what was there goes to the staging folder first.

    Args:
        destination: with its staging folder.
        order: names that must appear after all others, in this order, DONE the last of them.
        check: raises if what is at the destination may not be replaced; called right before the first move.

    Raises:
        RecastError: what `check` raises.
        OSError: a move failed; everything is where it was before.
    """
    folder = destination / STAGING
    root, replaced = folder / OUTPUT, folder / REPLACED
    check()
    new = sorted(entry.name for entry in root.iterdir())
    if replaced.exists():
        remove(replaced)
    replaced.mkdir()
    write_durably(folder / PUBLISHING, json.dumps(new))
    sync_directory(folder)
    moved: list[tuple[Path, Path]] = []
    try:
        for name in sorted(_names(destination), key=lambda name: name != DONE):
            _move(destination / name, replaced / name, moved)
        if moved:
            sync_directory(replaced)
            sync_directory(destination)
        for name in sorted(new, key=lambda name: (order.index(name) if name in order else -1, name)):
            if name == DONE:
                sync_directory(destination)
            _move(root / name, destination / name, moved)
    except BaseException:
        _take_back(moved)
        (folder / PUBLISHING).unlink(missing_ok=True)
        raise
    # DONE is in place: whatever fails now, the output is there, and the next run finds out.
    with contextlib.suppress(OSError):
        finish(destination)


def settle(destination: Path) -> None:
    """Finishes or undoes what a run that was killed while it published had moved."""
    folder = destination / STAGING
    if not (folder / PUBLISHING).exists():
        return
    root = folder / OUTPUT
    if (destination / DONE).exists() and not (root / DONE).exists() and is_folder(root):
        finish(destination)
    else:
        _undo(destination)


def finish(destination: Path) -> None:
    """Notes that what is at the destination counts; what was replaced and what was journalled is litter then."""
    folder = destination / STAGING
    sync_directory(destination)
    (folder / JOURNAL).unlink(missing_ok=True)
    (folder / IDENTITY).unlink(missing_ok=True)
    (folder / PUBLISHING).unlink(missing_ok=True)
    sync_directory(folder)


def _undo(destination: Path) -> None:
    """Puts everything back.

    All that was there was moved away before the first new entry came; a new one that is still in the staging folder
    never moved, and what has its name outside is an old one.
    """
    folder = destination / STAGING
    root, replaced = folder / OUTPUT, folder / REPLACED
    for name in being_published(folder):
        if is_folder(root) and not os.path.lexists(root / name) and os.path.lexists(destination / name):
            os.rename(destination / name, root / name)
    if is_folder(replaced):
        for entry in sorted(replaced.iterdir()):
            os.rename(entry, destination / entry.name)
        replaced.rmdir()
    sync_directory(destination)
    (folder / PUBLISHING).unlink()
    sync_directory(folder)


def _names(destination: Path) -> list[str]:
    return [entry.name for entry in destination.iterdir() if entry.name != STAGING]


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    os.rename(source, target)
    moved.append((source, target))


def _take_back(moved: list[tuple[Path, Path]]) -> None:
    for source, target in reversed(moved):
        os.rename(target, source)
