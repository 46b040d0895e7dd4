"""One conversion, step by step: open, bind, plan, preflight, convert, verify, commit."""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from converters.engine import (
    allocator,
    drivers,
    manifest,
    model,
    open_run,
    plan_document,
    requantizing,
    restacking,
    resume,
    running,
    tensor_scales,
    verify,
)
from converters.engine import record as record_lib
from converters.engine import residue as residue_lib
from converters.engine.destination import is_vacant
from converters.engine.drivers import Opened
from converters.engine.execute import Outcome
from converters.engine.memory_guard import MemoryGuard
from converters.engine.model import Model
from converters.engine.plan import ArrayPlan, Plan, Sizes
from converters.engine.plan_document import Planned
from converters.engine.prepare import Prepared, occupied, prepare
from converters.engine.record import ConversionRecord
from converters.engine.request import ConversionRequest
from converters.engine.resume import Identity
from converters.engine.run_files import sync_tree, write_durably
from converters.engine.staging import Staging
from converters.engine.verify import Points
from reporting import json_report, text
from reporting.diagnostics import Diagnostic, RecastError, exit_code_of, raise_all
from reporting.report import Report, StepFailed, TensorOutcome, diagnostics_of

# Stopped by a signal, out of memory, an input/output failure.
_RESUMABLE = (143, 4, 5)


def run(request: ConversionRequest, report: Report) -> str:
    """Converts, and adds every step to the report.

    Returns:
        Text to show before the report: the plan, where the request asks for no more than that.

    Raises:
        StepFailed: when a step failed; the report says why, and the destination is as it was before, but for what a
            rerun continues.
    """
    started = time.monotonic()
    opened = open_source(request, report)
    try:
        if request.plan_only:
            return plan_document.render(plan(request, opened, report))
        report.destination = str(request.destination)
        digest = request.digest(opened.fingerprint + model.fingerprint(request, opened))
        Staging(request.destination).settle()
        if _already_complete(request, digest, report):
            return ""
        prepared = prepare(request, opened, report, _earlier_grid(request, digest))
        with MemoryGuard(budget=request.memory_budget) as guard:
            _convert(request, digest, prepared, report, started, guard)
        return ""
    finally:
        opened.source.close()


def open_source(request: ConversionRequest, report: Report) -> Opened:
    """Opens the source, by headers only.

    Raises:
        StepFailed: when it cannot be read.
    """
    report.source = str(request.source)
    allocator.keep_buffers()
    with report.step("open_source") as step:
        opened = drivers.driver_of(request.source_format).open(request.source)
        step.lines.append(f"{len(opened.source.tensors)} arrays in {opened.description}")
        step.lines.extend(opened.remarks)
    return opened


def plan(request: ConversionRequest, opened: Opened, report: Report, published: Model | None = None) -> Planned:
    """Plans the conversion of an opened source, and writes the plan where the request says.

    Raises:
        StepFailed: when a step failed.
    """
    prepared = prepare(request, opened, report, {}, published)
    if request.plan_file is not None:
        with report.step("write_plan"):
            plan_document.write(plan_document.document(request, prepared, report), request.plan_file)
    return plan_document.Planned(plan_document.summary(request, prepared, report), prepared.plan)


def _earlier_grid(request: ConversionRequest, digest: str) -> Mapping[str, Sizes]:
    """The grid of an interrupted run that this one may continue; --overwrite is free to choose another."""
    return {} if request.overwrite else resume.grid_of_earlier_run(request.destination, digest)


def _already_complete(request: ConversionRequest, digest: str, report: Report) -> bool:
    if request.overwrite or not manifest.is_complete(request.destination, digest):
        return False
    with report.step("commit") as step:
        Staging(request.destination).tidy()
        step.lines.append(f"{request.destination} is already complete for this request")
    return True


def _convert(
    request: ConversionRequest, digest: str, prepared: Prepared, report: Report, started: float, guard: MemoryGuard
) -> None:
    staging = Staging(request.destination)
    begun = False
    try:
        with report.step("convert") as step:
            staging.open()
            if not is_vacant(request.destination):
                raise_all(occupied(request))
            resumed = resume.begin(staging, Identity.of(digest, prepared.plan), overwrite=request.overwrite)
            begun = True
            step.diagnostics.extend(resumed.warnings)
            outcome = running.run(request, digest, prepared, staging, resumed, step, guard)
            if resumed.records:
                step.lines.append(f"continued: {len(resumed.records)} units were already written")
        with report.step("verify") as step:
            samples = _verify(request, digest, prepared, staging, guard)
            step.lines.append(f"{samples} elements read back and compared by coordinate")
        with report.step("commit") as step:
            _check_unchanged(request, digest, prepared.opened)
            residue_elements = _carry(request, prepared, staging)
            staging.forget_an_earlier_closing()
            entries = requantizing.entries(outcome.tensor_entries(prepared.plan), prepared.form, staging)
            listed = manifest.describe(staging.root, entries, digest, prepared.plan.threads, guard.check)
            staging.path(manifest.FILE).write_text(listed, "utf-8")
            guard.check()
            outcome.peak_bytes = guard.peak_bytes
            _tell(report, prepared, outcome, residue_elements, samples, started)
            step.lines.extend(requantizing.tell(report, prepared.form, staging))
            step.lines.extend(_closing_lines(prepared, outcome, residue_elements))
        last = drivers.driver_of(request.target_format).last(prepared.sides)
        _finish(request, staging, manifest.done(listed, digest), report, last)
    except BaseException as error:
        code = report.exit_code if isinstance(error, StepFailed) else exit_code_of(diagnostics_of(error))
        _leave(staging, begun, code, report.steps[-1].name == "publish" and code == 2)
        raise


def _leave(staging: Staging, begun: bool, code: int, barred: bool = False) -> None:
    """Keeps what a run can continue that was stopped, or that met what a retry may cure; removes everything else.

    What another run had finished stays as it is where this one did not get so far as to continue or to replace it.
    """
    # What came to the destination during the run can be moved away, and the work of hours be published after all.
    keeps = code in _RESUMABLE or barred
    if (begun and not keeps) or not resume.has_finished_units(staging):
        staging.discard()
        return
    if begun:
        open_run.clear(staging.folder)
    staging.keep()


def _verify(request: ConversionRequest, digest: str, prepared: Prepared, staging: Staging, guard: MemoryGuard) -> int:
    source = prepared.opened.reader()
    plan = prepared.plan
    target = drivers.reader_of(request, staging, plan)
    stored = requantizing.Codes(target, plan, prepared.form)
    chosen = list(verify.sample(plan, prepared.opened.source, seed=len(plan.arrays)))
    # Each reading decodes a chunk of either side: as many at a time as the budget has room for.
    at_a_time = max(1, min(plan.threads, request.memory_budget // max(_largest_reading(plan), 1)))

    def compare(pair: tuple[ArrayPlan, Points]) -> list[Diagnostic]:
        guard.check()
        return verify.compare(*pair, source, stored, prepared.residue, stored.nearest)

    with ThreadPoolExecutor(at_a_time) as pool:
        found = [diagnostic for several in pool.map(compare, chosen) for diagnostic in several]
    samples = sum(len(points.target_at) for _, points in chosen)
    found.extend(tensor_scales.check(plan, prepared.form, staging, source, target, guard.check))
    found.extend(verify.check_names(prepared.plan, target.names()))
    if found:
        _check_unchanged(request, digest, prepared.opened)
    raise_all(found)
    return samples


def _largest_reading(plan: Plan) -> int:
    """Bytes of the largest chunks of both sides, as stored and as read."""
    return max((2 * array.read_bytes + 2 * array.unit_bytes for array in plan.arrays.values()), default=0)


def _check_unchanged(request: ConversionRequest, digest: str, opened: Opened) -> None:
    if request.digest(opened.fingerprint_now() + model.fingerprint(request, opened)) != digest:
        raise RecastError.of("SOURCE_CHANGED", "The source changed during the run.", subject=str(request.source))


def _carry(request: ConversionRequest, prepared: Prepared, staging: Staging) -> int:
    """Puts config, tokenizer, record and residue beside the weights; returns the residue's size in elements."""
    sides, plan = prepared.sides, prepared.plan
    model.carry(request, prepared.model, plan, staging, requantizing.announced(prepared.form, plan))
    journal = residue_lib.Journal(staging.folder / resume.RESIDUE)
    if sides.state is not None:
        restacking.carry_residue(prepared.residue, plan, journal)
    elements = journal.join(staging.path("recast", record_lib.RESIDUE_FILE))
    kept = (
        restacking.record(request, sides, plan, prepared.model, prepared.naming, invertible=not prepared.doubt)
        if sides.state
        else ConversionRecord(
            family=prepared.naming.family,
            model_name=prepared.naming.model_name,
            source_format=request.source_format,
            target_format=request.target_format,
            source_options=dict(sides.source.options),
            target_options=dict(sides.target.options),
            source_dtypes={n: i.dtype for n, i in prepared.opened.source.tensors.items() if n not in sides.unmapped},
            logical_dtypes=plan.logical_dtypes,
            invertible=request.residue != "drop",
        )
    )
    staging.path("recast", record_lib.FILE).write_text(kept.to_json(), "utf-8")
    requantizing.record(request, prepared.opened, staging)
    for name, content in request.extra_files.items():
        staging.path(*name.split("/")).write_text(content, "utf-8")
    return elements


def _finish(request: ConversionRequest, staging: Staging, done: str, report: Report, last: Sequence[str]) -> None:
    """Writes reports and DONE beside the output, then moves all of it into place."""
    report.finish()
    try:
        for name, content in (("report.txt", text.render(report)), ("report.json", json_report.render(report))):
            staging.path(name).write_text(content, "utf-8")
        write_durably(staging.path("DONE"), done)
        sync_tree(staging.root)
        staging.publish(last, lambda: _check_destination(request))
    except BaseException as error:
        report.finished = ""
        with report.step("publish"):
            raise error


def _check_destination(request: ConversionRequest) -> None:
    """Refuses to replace what came to the destination during the run."""
    if not is_vacant(request.destination):
        raise_all(occupied(request))


def _tell(report: Report, prepared: Prepared, outcome: Outcome, residue: int, samples: int, started: float) -> None:
    for name, array in prepared.plan.arrays.items():
        report.tensors.append(
            TensorOutcome(
                name,
                array.info.dtype,
                array.info.shape,
                "LOSSY" if name in outcome.overflowed else array.path.exactness,
                array.path.source_dtype,
                outcome.residue_elements.get(name, 0),
            )
        )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report.figures.update(
        bytes_read=outcome.bytes_read,
        bytes_written=prepared.plan.bytes_out - outcome.resumed_bytes,
        bytes_resumed=outcome.resumed_bytes,
        wall_seconds=time.monotonic() - started,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_anonymous_bytes=outcome.peak_bytes,
        tensors=len(prepared.plan.arrays),
        residue_elements=residue,
        samples_compared=samples,
    )


def _closing_lines(prepared: Prepared, outcome: Outcome, residue: int) -> list[str]:
    lines = [f"{len(prepared.opened.source.tensors)} arrays of the source accounted for"]
    if prepared.residue.applied:
        lines.append(f"{prepared.residue.applied} elements restored from the residue of the source")
    if residue:
        lines.append(f"{residue} elements kept in recast/{record_lib.RESIDUE_FILE}")
    dropped = sum(outcome.residue_elements.values()) - residue
    if dropped:
        lines.append(f"{dropped} elements that the stored values do not give back were not kept")
    return lines
