"""What every refused run must fulfil, and which error ids the tests of this folder trigger."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ParamSpec

from absl import flags

from container import entrypoint
from converters.cli import usage
from tests.bad_input.running import Entry, Run

P = ParamSpec("P")

# Stated again on purpose: exit codes are documented, and a script may rely on them.
_EXIT_CODES = {
    "DISK_FULL": 5,
    "INPUT_OUTPUT": 5,
    "WORKER_KILLED": 5,
    "SERVER_UNREACHABLE": 5,
    "OUT_OF_MEMORY": 4,
    "MEMORY_PLAN": 4,
    "TERMINATED": 143,
    "VERIFICATION_FAILED": 3,
    "MAPPING_INVALID": 3,
    "INTERNAL": 3,
    "QUICKSTART_FAILED": 3,
    "CHECKPOINTS_DIFFER": 1,
}
_WORST_FIRST = (3, 2, 4, 5, 143, 1)
_LIBRARY = ("VERIFICATION_FAILED", "MAPPING_INVALID", "INTERNAL", "QUICKSTART_FAILED")

_seen: list[str] = []


@dataclasses.dataclass(frozen=True)
class Fault:
    """One expected diagnostic: its id, and texts that its reason or its subject must hold."""

    id: str
    says: tuple[str, ...] = ()

    def __init__(self, id: str, *says: str):
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "says", says)

    def fits(self, entry: Entry) -> bool:
        shown = f"{entry.reason}\n{entry.subject}"
        return entry.id == self.id and all(text in shown for text in self.says)


@dataclasses.dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        name: what is wrong.
        damage: makes it wrong: gets the directory of a good checkpoint.
        faults: everything that the report must list.
        arguments: flags of the run besides the two paths.
    """

    name: str
    damage: Callable[[Path], object]
    faults: tuple[Fault, ...]
    arguments: tuple[str, ...] = ()


def refused(run: Run, *faults: Fault) -> None:
    """Checks the report of a run that failed: exactly these faults, each fully described, and the exit code."""
    run.check_form()
    assert run.ids == sorted(fault.id for fault in faults), run.summary
    _matched(run.failures, faults, run)
    codes = {_EXIT_CODES.get(fault.id, 2) for fault in faults}
    assert run.code == next(code for code in _WORST_FIRST if code in codes), run.summary
    for entry in run.failures:
        assert entry.owner == ("LIBRARY" if entry.id in _LIBRARY else "USAGE")
    _seen.extend(fault.id for fault in faults)


def completed(run: Run, *warnings: Fault) -> None:
    """Checks the report of a run that succeeded: exactly these warnings, each fully described."""
    run.check_form()
    assert run.code == 0, run.summary
    assert sorted(entry.id for entry in run.warnings) == sorted(fault.id for fault in warnings), run.summary
    _matched(run.warnings, warnings, run)
    _seen.extend(fault.id for fault in warnings)


@contextlib.contextmanager
def unchanged(*places: Path) -> Iterator[None]:
    """Checks that a block leaves everything below these directories as it was: names, bytes, modes, times."""
    before = [snapshot(place) for place in places]
    yield
    for place, then in zip(places, before, strict=True):
        assert_same(snapshot(place), then)


def snapshot(place: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory by relative path; nothing if it does not exist."""
    found: dict[str, tuple[Any, ...]] = {}
    for folder, folders, names in os.walk(place):
        for name in [*folders, *names, "."]:
            path = Path(folder, name)
            found[os.path.relpath(path, place)] = _state(path)
    return found


def assert_same(now: dict[str, tuple[Any, ...]], then: dict[str, tuple[Any, ...]]) -> None:
    """Checks that two snapshots are equal; names what is not."""
    left, gone = sorted(now.keys() - then.keys()), sorted(then.keys() - now.keys())
    changed = [name for name in then if name in now and now[name] != then[name]]
    assert not left, f"left behind: {left}"
    assert not gone, f"removed: {gone}"
    assert not changed, f"changed: {changed}"


def triggers(*ids: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Says which error ids a test brings about, and checks that it did."""

    def wrap(test: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(test)
        def checked(*args: P.args, **kwargs: P.kwargs) -> None:
            _seen.clear()
            test(*args, **kwargs)
            assert set(ids) <= set(_seen)

        checked.triggered = frozenset(ids)  # type: ignore[attr-defined]
        return checked

    return wrap


@functools.cache
def _flags_of(subcommand: str) -> frozenset[str]:
    module, _ = entrypoint.SUBCOMMANDS[subcommand]
    values = flags.FlagValues()
    importlib.import_module(module).PROGRAM.define(values)
    usage.define_common(values)
    return frozenset(values) | {"help"}


def _matched(entries: list[Entry], faults: tuple[Fault, ...], run: Run) -> None:
    left = list(entries)
    for fault in faults:
        match = next((entry for entry in left if fault.fits(entry)), None)
        assert match is not None, f"nothing like {fault} in {run.summary}"
        left.remove(match)
    for entry in entries:
        _check_described(entry, run)


def _check_described(entry: Entry, run: Run) -> None:
    assert entry.reason, run.summary
    assert entry.suggestion, run.summary
    assert entry.owner in ("USAGE", "LIBRARY"), run.summary
    subcommand = run.arguments[0] if run.arguments else ""
    if subcommand in entrypoint.SUBCOMMANDS:
        advised = set(re.findall(r"--([a-z][a-z_0-9]*)", entry.suggestion))
        assert advised <= _flags_of(subcommand), f"{subcommand} has no such flag: {entry.suggestion}"


def _state(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return kind, os.readlink(path)
    if stat.S_ISREG(status.st_mode):
        return kind, mode, status.st_mtime_ns, status.st_ino, path.read_bytes()
    return kind, mode
