"""Keeps what a run writes beside its output, a report or a plan, out of checkpoints and off files of other kinds."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from converters.cli import command_line, local_paths
from reporting.diagnostics import Diagnostic

REPORT = "report_directory"
MESSAGE = "termination_message_path"
_PLAN = "plan_file"
_FIGURES = "json"
# Flags and positional arguments that name a checkpoint.
_FLAGS = frozenset(
    (
        "hf_model_path",
        "base_model_path",
        "load_parameters_path",
        "load_full_state_path",
        "base_output_directory",
        "maxtext_model_path",
        "original_checkpoint_path",
        "output_checkpoint_path",
        "target_checkpoint_path",
        "draft_checkpoint_path",
        "manifest",
    )
)
_POSITIONAL = frozenset(("source", "destination", "path", "first", "second"))
_MANIFEST = "checkpoint-manifest.json"
# A plan of a model with 100,000 arrays has some 60 MB.
_LARGEST_JSON = 1 << 30
_HEAD = 1 << 12
_PLAN_FIELDS = frozenset(("version", "source_format", "target_format", "units", "digest", "array"))
_REPORT_HEAD = b'{\n "command": '
_FIGURES_FIELDS = frozenset(("schema", "recast", "results"))


@dataclasses.dataclass(frozen=True)
class _Written:
    """A file that a run writes.

    Attributes:
        path: where.
        what: it is, in words.
        is_such: whether a file that is there already is one, and may be replaced.
    """

    path: Path
    what: str
    is_such: Callable[[Path], bool]


def problems(arguments: Sequence[str], values: flags.FlagValues, positional: Sequence[str]) -> list[Diagnostic]:
    """INVALID_FLAG for each place that a run must not write its report, its plan or its figures to.

    In a checkpoint these would be taken for one of its files: they would bar the next run with this destination, and
    change what a manifest lists. A file of another kind is never replaced by them.

    Args:
        arguments: the command line without the program's name.
        values: the program's flags.
        positional: names of its positional arguments.
    """
    given = list(command_line.read(arguments, values))
    checkpoints = list(_checkpoints(given, positional))
    places = {
        one.name: local_paths.expanded(one.value)
        for one in given
        if one.name in _KINDS and one.name in values and not values[one.name].boolean and one.value
    }
    found = []
    for name, place in places.items():
        inside = _inside(name, place, checkpoints)
        found += inside or _occupied(name, place)
    return found


def _inside(name: str, place: str, checkpoints: Sequence[tuple[str, str]]) -> list[Diagnostic]:
    """What is wrong with a place that lies in a checkpoint of this run, or in any output that is finished."""
    what, _ = _KINDS[name]
    # Where a link leads, and where it is itself.
    head, tail = os.path.split(os.path.abspath(place))
    targets = (Path(os.path.realpath(place)), Path(os.path.realpath(head), tail))
    found = []
    for checkpoint, path in checkpoints:
        folder = os.path.realpath(os.path.dirname(path) if os.path.isfile(path) else path)
        if any(target.is_relative_to(folder) for target in targets):
            found.append(_fault(name, f"lies in {checkpoint}, and {what} is no part of a checkpoint"))
    if found:
        return found
    for above in dict.fromkeys(above for target in targets for above in (target, *target.parents)):
        if os.path.lexists(above / _MANIFEST):
            return [_fault(name, f"lies in {above}, a finished output, and {what} is no part of a checkpoint")]
    return []


def _occupied(name: str, place: str) -> list[Diagnostic]:
    """What is wrong with a place where something is already."""
    _, written = _KINDS[name]
    if name != REPORT and os.path.isdir(place):
        return [_fault(name, f"is the directory {place}; it takes a file", "Name a file in it.")]
    above = Path(place, "report.txt") if name == REPORT else Path(place)
    for folder in above.parents:
        if os.path.lexists(folder):
            if not folder.is_dir():
                return [_fault(name, f"is to lie in {folder}, which is not a directory", "Name another place.")]
            break
    found = []
    for file in written(Path(place)):
        try:
            status = os.stat(file.path)
        except OSError:
            continue
        # A terminal or a pipe keeps nothing that could be lost.
        if stat.S_ISREG(status.st_mode) and status.st_size and not file.is_such(file.path):
            reason = f"would replace {file.path}, which is there and is not {file.what}"
            found.append(_fault(name, reason, "Name another place, or move that file away."))
    return found


def _fault(name: str, reason: str, suggestion: str = "") -> Diagnostic:
    beside = "Name a directory beside it." if name == REPORT else "Name a file beside it."
    if name == REPORT:
        beside += " A conversion that succeeds puts its report into its output anyway."
    return Diagnostic("INVALID_FLAG", f"--{name} {reason}.", suggestion=suggestion or beside, subject=f"--{name}")


def _checkpoints(given: Sequence[command_line.Given], positional: Sequence[str]) -> Iterator[tuple[str, str]]:
    for one in given:
        if one.name in _FLAGS and one.value:
            yield f"--{one.name}", local_paths.expanded(one.value)
    words = [one.value for one in given if not one.name and one.value]
    for name, word in zip(positional, words, strict=False):
        if name.strip("[]") in _POSITIONAL:
            yield name.strip("[]").upper(), local_paths.expanded(word)


def _reports(directory: Path) -> list[_Written]:
    return [
        _Written(directory / "report.txt", "a report", lambda path: _head(path).startswith(b"FINAL REPORT FOR: `")),
        _Written(directory / "report.json", "a report", lambda path: _head(path).startswith(_REPORT_HEAD)),
    ]


def _message(path: Path) -> list[_Written]:
    return [_Written(path, "a termination message", lambda path: b"_lib - " in _head(path).split(b"\n")[0])]


def _plan(path: Path) -> list[_Written]:
    return [_Written(path, "a plan", lambda path: not path.is_symlink() and _fields(path) >= _PLAN_FIELDS)]


def _figures(path: Path) -> list[_Written]:
    return [_Written(path, "a file of figures", lambda path: _fields(path) >= _FIGURES_FIELDS)]


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


def _fields(path: Path) -> frozenset[str]:
    """The fields of a JSON object; none of anything else."""
    if not _head(path).lstrip().startswith(b"{"):
        return frozenset()
    try:
        if path.stat().st_size > _LARGEST_JSON:
            return frozenset()
        content: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return frozenset()
    return frozenset(content) if isinstance(content, dict) else frozenset()


_KINDS: dict[str, tuple[str, Callable[[Path], list[_Written]]]] = {
    REPORT: ("a report", _reports),
    MESSAGE: ("a message", _message),
    _PLAN: ("a plan", _plan),
    _FIGURES: ("a file of figures", _figures),
}
