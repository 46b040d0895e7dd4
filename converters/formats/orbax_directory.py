"""Finds the item that holds a tree of arrays in an Orbax checkpoint directory, and tells finished saves from others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from converters.formats.orbax_metadata import COMMIT_FILE, STEP_FILE, TEMPORARY_MARK, TREE_FILE, read_step
from converters.formats.storage_errors import reading
from reporting.diagnostics import RecastError

DATABASE_FILE = "manifest.ocdbt"
PROCESS_PREFIX = "ocdbt.process_"
_USUAL_ITEM = "items"
# Beside the arrays the number is stored as an int64.
_LARGEST_STEP = 2**63 - 1
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Location:
    """A finished checkpoint.

    Attributes:
        items: the directory with `_METADATA` and the arrays.
        step: the step's number, None where the path does not say.
        custom_metadata: of the step's `_CHECKPOINT_METADATA`.
        other_steps: finished or unfinished steps beside it that were not taken, newest first.
        unfinished: names of newer steps that were passed over because their save was interrupted, newest first.
    """

    items: Path
    step: int | None
    custom_metadata: Mapping[str, Any]
    other_steps: tuple[int, ...] = ()
    unfinished: tuple[str, ...] = ()


def resolve(path: Path) -> Location:
    """The checkpoint at `DIR`, `DIR/STEP` or `DIR/STEP/items`; of several steps the newest finished one.

    Raises:
        RecastError: SOURCE_NOT_FOUND, SOURCE_NOT_RECOGNIZED, CHECKPOINT_UNFINISHED, ORBAX_METADATA_INVALID.
    """
    path = path.absolute()
    if not path.exists():
        raise RecastError.of("SOURCE_NOT_FOUND", f"{path} does not exist", subject=str(path))
    if not path.is_dir():
        raise RecastError.of("SOURCE_NOT_RECOGNIZED", f"{path} is not a directory", subject=str(path))
    if TEMPORARY_MARK in path.name or TEMPORARY_MARK in path.parent.name:
        raise _unfinished(path, "its name is that of a save in progress")
    if (path / TREE_FILE).exists():
        return _of_item(path)
    steps = _steps(path)
    if steps:
        return _newest(path, steps)
    if any(name[0].isdigit() for name in _temporary(path)):
        raise _unfinished(path, f"it holds only a save in progress, {_temporary(path)[0]}")
    return _of_step(path)


def steps_by_other_names(path: Path) -> list[str]:
    """Directories that hold an item, or are one, under names that are no plain numbers, such as 00000003 or step_3."""
    names = [name for name in _directories(path) if TEMPORARY_MARK not in name]
    below = {name: [name, *(f"{name}/{entry}" for entry in _directories(path / name))] for name in names}
    return [name for name, places in below.items() if any((path / place / TREE_FILE).exists() for place in places)]


def _of_item(items: Path) -> Location:
    # `Checkpointer.save(path)` puts the step's and the item's metadata into one directory.
    step = next((place for place in (items, items.parent) if (place / STEP_FILE).exists()), None)
    if step is None:
        return Location(items, _number(items.parent), {})
    return Location(items, _number(step), _custom_of(step))


def _of_step(step: Path) -> Location:
    found = [entry for entry in _directories(step) if (step / entry / TREE_FILE).exists()]
    if _USUAL_ITEM in found:
        found = [_USUAL_ITEM]
    if len(found) > 1:
        reason = f"{step} holds several trees: {', '.join(found)}"
        raise RecastError.of(
            "SOURCE_NOT_RECOGNIZED", reason, subject=str(step), suggestion="Give the path of the one to read."
        )
    custom = _custom_of(step) if (step / STEP_FILE).exists() else {}
    if found:
        return Location(step / found[0], _number(step), custom)
    for place in (step, step / _USUAL_ITEM):
        if _has_arrays(place) or _temporary(place):
            raise _unfinished(place, f"it has no {TREE_FILE}")
    if (step / STEP_FILE).exists():
        raise _unfinished(step, f"no item of it has {TREE_FILE}")
    reason, suggestion = f"{step} holds neither {TREE_FILE} nor steps with items", ""
    others = steps_by_other_names(step)
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        reason += f" under plain numbers, but {', '.join(others[:_SHOWN])}{more}"
        suggestion = f"Give the path of one of them, as {step / others[0]}."
    raise RecastError.of("SOURCE_NOT_RECOGNIZED", reason, subject=str(step), suggestion=suggestion)


def _newest(root: Path, steps: list[int]) -> Location:
    passed: list[str] = []
    for step in steps:
        try:
            place = root / str(step)
            location = _of_item(place) if (place / TREE_FILE).exists() else _of_step(place)
        except RecastError as error:
            # Where one of several is damaged in another way, taking an older one would be a silent guess.
            if len(steps) == 1 or any(d.id != "CHECKPOINT_UNFINISHED" for d in error.diagnostics):
                raise
            passed.append(str(step))
            continue
        others = tuple(other for other in steps if other != step)
        newer = {*map(int, passed), *(number for number in _in_progress(root) if number > step)}
        unfinished = tuple(str(number) for number in sorted(newer, reverse=True))
        return dataclasses.replace(location, other_steps=others, unfinished=unfinished)
    raise _unfinished(root, f"none of its steps is finished: {', '.join(passed)}")


def _custom_of(step: Path) -> Mapping[str, Any]:
    """Raises CHECKPOINT_UNFINISHED for metadata that was written at the start of a save and never completed."""
    metadata = read_step(step / STEP_FILE)
    if not metadata.finished and not (step / COMMIT_FILE).exists():
        raise _unfinished(step, f"{STEP_FILE} has no commit time and there is no {COMMIT_FILE}")
    return metadata.custom_metadata


def _directories(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    with reading(path):
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def _steps(path: Path) -> list[int]:
    return sorted(_numbers(_directories(path)), reverse=True)


def _in_progress(path: Path) -> list[int]:
    """The numbers of steps whose save began in a temporary directory and never ended."""
    return _numbers(name.split(TEMPORARY_MARK)[0] for name in _temporary(path))


def _numbers(names: Iterable[str]) -> list[int]:
    # "007" would not come back from a number, so it is no step.
    numbers = [int(name) for name in names if name.isascii() and name.isdigit() and str(int(name)) == name]
    return [number for number in numbers if number <= _LARGEST_STEP]


def _temporary(path: Path) -> list[str]:
    return [name for name in _directories(path) if TEMPORARY_MARK in name]


def _has_arrays(path: Path) -> bool:
    if (path / DATABASE_FILE).exists():
        return True
    return any(name.startswith(PROCESS_PREFIX) for name in _directories(path))


def _number(path: Path) -> int | None:
    number = int(path.name) if path.name.isascii() and path.name.isdigit() else None
    return None if number is None or number > _LARGEST_STEP else number


def _unfinished(path: Path, why: str) -> RecastError:
    return RecastError.of("CHECKPOINT_UNFINISHED", f"{path}: {why}", subject=str(path))
