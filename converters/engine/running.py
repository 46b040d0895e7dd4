"""Runs a plan into a staged output: checks of values, the journal, progress, the guard of memory."""

from __future__ import annotations

import sys

from converters.engine import checks, drivers, overflow, requantizing, tensor_scales
from converters.engine import record as record_lib
from converters.engine import residue as residue_lib
from converters.engine.execute import Executor, Outcome
from converters.engine.journal import Journal, UnitRecord
from converters.engine.memory_guard import MemoryGuard
from converters.engine.open_run import Keeper, OpenRun
from converters.engine.plan import Plan
from converters.engine.prepare import Prepared
from converters.engine.request import ConversionRequest
from converters.engine.resume import RESIDUE, Resumed
from converters.engine.run_files import JOURNAL
from converters.engine.staging import Staging
from converters.quantized.magnitudes import Magnitudes
from reporting.diagnostics import Diagnostic, raise_all
from reporting.progress import Progress
from reporting.report import StepRecord
from validators import memory


def run(
    request: ConversionRequest,
    digest: str,
    prepared: Prepared,
    staging: Staging,
    resumed: Resumed,
    step: StepRecord,
    guard: MemoryGuard,
) -> Outcome:
    """Writes all units that are not written yet; afterwards the output's arrays are complete and durable.

    Raises:
        RecastError: whatever a source, a sink or a check of values found; the journal then says what was finished.
    """
    plan = prepared.plan
    found = checks.check(prepared.sides.composition, prepared.opened.source)
    raise_all([d for d in found if not d.warning])
    step.diagnostics.extend(found)
    residue_out = residue_lib.Journal(staging.folder / RESIDUE)
    records = _usable(request, plan, resumed, residue_out)
    done = frozenset((record.array, record.box) for record in records)
    sink = drivers.sink_of(request, staging, prepared.sides, plan, resumed.continues)
    known = tensor_scales.magnitudes(prepared.form, staging, resume=resumed.continues)
    sink = requantizing.encoding(sink, prepared.form, staging, resumed.continues, known)
    done_bytes = sum(record.bytes for record in records)
    try:
        sink.declare(drivers.declared(plan))
        if records:
            sink.check_written((record.array, record.box) for record in records)

        def make_durable() -> None:
            residue_out.sync()
            sink.sync()

        with Journal(staging.folder / JOURNAL, make_durable) as journal:

            def recorded(record: UnitRecord) -> None:
                journal.add(record)
                progress.advance(record.bytes)

            executor = Executor(
                plan,
                prepared.opened.source,
                sink,
                budget=request.memory_budget,
                residue_in=prepared.residue,
                residue_out=residue_out if request.residue == "keep" else None,
                recorded=recorded,
                done=done,
            )
            for record in records:
                executor.outcome.add(record)
            twice = sum(array.bytes for array in tensor_scales.read_twice(plan, prepared.form))
            progress = Progress(
                sum(array.bytes for array in plan.arrays.values()) + twice,
                stream=sys.stderr,
                memory=memory.anonymous_bytes,
                initial=done_bytes,
                mode=request.progress,
            )
            mark = OpenRun.of_this_process(digest, "", request.memory_budget)
            with (
                Keeper(staging.folder, mark, lambda: (guard.limit, guard.peak_bytes, guard.peak_used)),
                progress,
            ):
                if known is not None:
                    executor.outcome.bytes_read += _look_first(request, prepared, known, guard, progress)
                with guard.telling(executor.stop):
                    outcome = executor.run()
        outcome.resumed_bytes = requantizing.bytes_of(records, plan, prepared.form)
        _check_residue(request, outcome)
        _check_overflow(request, prepared, outcome, step)
        sink.commit()
        guard.check()
    except BaseException:
        sink.abort()
        raise
    step.diagnostics.extend(_value_warnings(prepared, outcome))
    step.diagnostics.extend(_residue_warnings(prepared.residue))
    return outcome


def _look_first(
    request: ConversionRequest, prepared: Prepared, known: Magnitudes, guard: MemoryGuard, progress: Progress
) -> int:
    """Looks at the arrays that are read twice, so that their scales are known; returns the bytes that were read."""
    plan, form = prepared.plan, prepared.form
    todo = tensor_scales.not_known(plan, form, known)
    progress.advance(sum(array.bytes for array in tensor_scales.read_twice(plan, form)) - todo.bytes)
    if not todo.bytes:
        return 0
    first = Executor(
        todo.plan,
        prepared.opened.source,
        known,
        budget=request.memory_budget,
        residue_in=prepared.residue,
        residue_out=None,
        recorded=lambda record: progress.advance(record.bytes),
        done=todo.done,
    )
    with guard.telling(first.stop):
        read = first.run().bytes_read
    known.sync()
    return read


def _usable(request: ConversionRequest, plan: Plan, resumed: Resumed, residue: residue_lib.Journal) -> list[UnitRecord]:
    """The records of an earlier run that hold: of units of this plan, with the residue that they speak of."""
    units = {(unit.array.info.name, unit.box) for unit in plan.units()} if resumed.records else set()
    known = [record for record in resumed.records if (record.array, record.box) in units]
    kept = residue.keep_only(frozenset((record.array, record.box) for record in known))
    if request.residue != "keep":
        return known
    return [record for record in known if kept.get((record.array, record.box), 0) == record.residue]


def _check_residue(request: ConversionRequest, outcome: Outcome) -> None:
    if request.residue != "refuse":
        return
    raise_all(
        [
            Diagnostic("RESIDUE_REFUSED", f"{count} elements of {name} would not come back bit for bit.", subject=name)
            for name, count in sorted(outcome.residue_elements.items())
        ]
    )


def _check_overflow(request: ConversionRequest, prepared: Prepared, outcome: Outcome, step: StepRecord) -> None:
    """Warns of finite values that became infinite, and refuses them where the output was to be exact."""
    warned = overflow.warnings(request, prepared, outcome)
    step.diagnostics.extend(warned)
    if request.require_exact:
        raise_all(overflow.refusals(warned, outcome))


def _value_warnings(prepared: Prepared, outcome: Outcome) -> list[Diagnostic]:
    found = []
    weights = prepared.sides.source.arrays
    for name, (largest, infinity) in sorted(outcome.largest.items()):
        if name not in weights or weights[name].mirror:
            continue
        if largest >= infinity:
            found.append(Diagnostic("TENSOR_NOT_FINITE", f"{name} holds NaN or infinite values.", subject=name))
        elif largest == 0:
            found.append(Diagnostic("TENSOR_ALL_ZERO", f"{name} holds nothing but zeros.", subject=name))
    return found


def _residue_warnings(residue: residue_lib.Residue) -> list[Diagnostic]:
    if not residue.stale:
        return []
    reason = f"{residue.stale} recorded elements no longer apply; {residue.applied} were restored."
    return [Diagnostic("RESIDUE_STALE", reason, subject=f"recast/{record_lib.RESIDUE_FILE}")]
