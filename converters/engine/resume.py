"""Whether a run continues the one that was interrupted at its destination, and what that one had finished."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from converters.engine import journal, open_run
from converters.engine.destination import STAGING
from converters.engine.journal import UnitRecord
from converters.engine.plan import Plan, Sizes
from converters.engine.run_files import IDENTITY, JOURNAL, write_durably
from converters.engine.staging import Staging
from mappings import strict_json
from reporting import version
from reporting.diagnostics import Diagnostic, RecastError

RESIDUE = "residue.journal"


@dataclasses.dataclass(frozen=True)
class Identity:
    """What an interrupted run and one that continues it share.

    Attributes:
        request: digest of the request and of the source's fingerprints.
        plan: digest of the plan.
        grid: sizes of units by array, which depended on the memory budget of the run that chose them.
    """

    request: str
    plan: str
    grid: Mapping[str, Sizes]

    @classmethod
    def of(cls, request: str, plan: Plan) -> Identity:
        """The identity of a run."""
        return cls(request, plan_digest(plan), {name: array.chunk for name, array in plan.arrays.items()})


@dataclasses.dataclass(frozen=True)
class Resumed:
    """What an interrupted run left that this one need not do again.

    Attributes:
        records: of the units that are durable.
        continues: whether the output of that run is continued, even if no unit of it was finished.
        warnings: about a run that ended without a report.
    """

    records: tuple[UnitRecord, ...] = ()
    continues: bool = False
    warnings: tuple[Diagnostic, ...] = ()


def plan_digest(plan: Plan) -> str:
    """What two plans share whose units may be mixed in one output: arrays, grids, how values travel, the version."""
    paths = {path: dataclasses.asdict(path) for path in {array.path for array in plan.arrays.values()}}
    said = [
        [name, array.info.dtype, array.info.shape, array.chunk, paths[array.path]]
        for name, array in plan.arrays.items()
    ]
    hasher = hashlib.sha256(json.dumps([version.VERSION, said], default=_plain).encode())
    for array in plan.arrays.values():
        for move in (*array.moves, *array.ones):
            dims = [(d.count, d.source_axis, d.source_weight, d.target_axis, d.target_weight) for d in move.dims]
            hasher.update(repr((move.source, move.source_base, move.target_base, dims)).encode())
    return hasher.hexdigest()


def begin(staging: Staging, identity: Identity, *, overwrite: bool) -> Resumed:
    """Finds out what is left of an interrupted run, and clears it where it is of no use to this one.

    Args:
        staging: opened.
        identity: of this run.
        overwrite: whether an unfinished run of another request may be thrown away.

    Raises:
        RecastError: UNFINISHED_RUN where another request, another source or another plan left finished units.
    """
    records = tuple(journal.read(staging.folder / JOURNAL))
    found = _read(staging.folder)
    warnings = _abandoned(staging)
    if found is not None and (found.request, found.plan) == (identity.request, identity.plan):
        return Resumed(records, continues=True, warnings=warnings)
    if records and not overwrite:
        raise _other_run(staging, found, identity)
    staging.clear()
    write_durably(staging.folder / IDENTITY, json.dumps(dataclasses.asdict(identity)))
    return Resumed(warnings=warnings)


def grid_of_earlier_run(destination: Path, request: str) -> Mapping[str, Sizes]:
    """Sizes of units by array that an interrupted run of a request chose; empty if there was none."""
    found = _read(destination / STAGING)
    if found is None or found.request != request:
        return {}
    return found.grid


def has_finished_units(staging: Staging) -> bool:
    """Whether an interrupted run would have something to continue; what cannot be read is taken for something."""
    try:
        return bool(journal.read(staging.folder / JOURNAL))
    except OSError:
        return True


def _read(folder: Path) -> Identity | None:
    try:
        said = strict_json.loads((folder / IDENTITY).read_bytes())
        grid = {str(name): tuple(int(size) for size in sizes) for name, sizes in said["grid"].items()}
        return Identity(str(said["request"]), str(said["plan"]), grid)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _abandoned(staging: Staging) -> tuple[Diagnostic, ...]:
    found = open_run.read(staging.folder)
    if found is None:
        return ()
    return (open_run.describe_abandoned(found, datetime.datetime.now(datetime.UTC)),)


def _other_run(staging: Staging, found: Identity | None, identity: Identity) -> RecastError:
    if found is not None and found.request == identity.request:
        reason = "The destination holds an unfinished run of this request by a version that planned otherwise."
    else:
        reason = "The destination holds an unfinished run of another request, or of a source that has changed since."
    return RecastError.of("UNFINISHED_RUN", reason, subject=str(staging.destination))


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
