"""What a run that was interrupted may leave behind, and how the same command goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blake3 import blake3

from converters.engine.destination import STAGING
from converters.formats import ocdbt_files
from tests.bad_input.judging import Fault, assert_same, completed, snapshot
from tests.bad_input.running import Convert, Run

# What tells of the run itself, or lists files whose names are random.
_TOLD = ("report.txt", "report.json", "DONE", "checkpoint-manifest.json")
# A database's content is compared by key: the bytes of its files depend on the order of writing.
_DATABASE = ("items/manifest.ocdbt", "items/d/")

Snapshot = dict[str, tuple[Any, ...]]


def units_kept(out: Path) -> int:
    """How many units an unfinished run says that it has finished: the whole lines of its journal."""
    journal = out / STAGING / "journal"
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0


def without_staging(place: Path, out: Path) -> Snapshot:
    """Everything below a directory, but for what an interrupted run keeps in an output for the next one.

    Directories that hold nothing but that are left out too: the run made them, or they were empty.
    """
    kept = out / STAGING
    found = {name: state for name, state in snapshot(place).items() if not (place / name).is_relative_to(kept)}
    if kept.is_dir():
        bare = kept.parent
        while bare != place and [entry.name for entry in bare.iterdir()] == [kept.name]:
            found = {name: state for name, state in found.items() if (place / name) != bare}
            kept, bare = bare, bare.parent
    return found


def only_staging_left(place: Path, out: Path, before: Snapshot) -> int:
    """Checks that an interrupted run left everything as it was, but for units that it had finished.

    Args:
        place: a directory around the output.
        out: the output.
        before: `without_staging(place, out)` from before the run.

    Returns:
        How many units are kept. A staging folder without any would be litter.
    """
    assert_same(without_staging(place, out), before)
    units = units_kept(out)
    assert (units > 0) == (out / STAGING).exists()
    assert not (out / STAGING / "run.json").exists(), "the run has told itself how it ended"
    return units


def continued(convert: Convert, out: Path, whole: Path, *flags: str, warnings: tuple[Fault, ...] = ()) -> Run:
    """Runs an interrupted command again: it goes on from the finished units and ends as if nothing had happened.

    Args:
        convert: the command.
        out: its destination.
        whole: what the same command wrote without an interruption.
        flags: of the command.
        warnings: what the run must say besides.
    """
    units = units_kept(out)
    run = convert(out, *flags)
    completed(run, *warnings)
    assert (f"continued: {units} units were already written" in run.output) == (units > 0), run.output
    assert not (out / STAGING).exists()
    assert_same_output(out, whole)
    return run


def assert_same_output(out: Path, whole: Path) -> None:
    """Checks that two outputs of one request hold the same files, tree, metadata and bytes of arrays."""
    found, expected = _files(out), _files(whole)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    listed = [json.loads((place / "checkpoint-manifest.json").read_bytes()) for place in (out, whole)]
    assert listed[0]["tensors"] == listed[1]["tensors"]
    held = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert held - set(_TOLD) == set(listed[0]["files"])
    for name, entry in listed[0]["files"].items():
        content = (out / name).read_bytes()
        assert entry == {"bytes": len(content), "blake3": blake3(content).hexdigest()}, name
    for items in out.glob("*/items"):
        database = items / "manifest.ocdbt"
        if database.exists():
            assert _database(items) == _database(whole / items.relative_to(out))
            reached = {name for name in ocdbt_files.reachable_files(items) if name.startswith("d/")}
            assert {f"d/{path.name}" for path in (items / "d").iterdir()} == reached


def _files(out: Path) -> dict[str, Any]:
    """What two outputs of one request must have alike, file by file."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if not path.is_file() or name in _TOLD or any(part in name for part in _DATABASE):
            continue
        found[name] = path.read_bytes()
        if path.name == "_CHECKPOINT_METADATA":
            said = json.loads(found[name])
            found[name] = {key: value for key, value in said.items() if not key.endswith("_nsecs")}
    return found


def _database(items: Path) -> dict[bytes, bytes]:
    """All keys of an OCDBT database and what they hold, read by TensorStore alone."""
    import tensorstore as ts

    store = ts.KvStore.open({"driver": "ocdbt", "base": f"file://{items}/"}).result()
    return {key: store.read(key).result().value for key in store.list().result()}
