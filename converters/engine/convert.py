"""One conversion, step by step: open, bind, plan, preflight, convert, verify, commit."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence

from converters.engine import checks, drivers, manifest, model, verify
from converters.engine import record as record_lib
from converters.engine import residue as residue_lib
from converters.engine.drivers import Opened
from converters.engine.execute import Executor, Outcome
from converters.engine.prepare import Prepared, occupied, prepare
from converters.engine.record import ConversionRecord
from converters.engine.request import ConversionRequest
from converters.engine.staging import Staging, is_vacant, sync_tree, write_durably
from reporting import json_report, text
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report, StepRecord, TensorOutcome
from validators import memory


def run(request: ConversionRequest, report: Report) -> None:
    """Converts, and adds every step to the report.

    Raises:
        StepFailed: when a step failed; the report says why, and the destination is as it was before.
    """
    report.source, report.destination = str(request.source), str(request.destination)
    started = time.monotonic()
    with report.step("open_source") as step:
        opened = drivers.driver_of(request.source_format).open(request.source)
        step.lines.append(f"{len(opened.source.tensors)} arrays in {opened.description}")
        step.lines.extend(opened.remarks)
    try:
        digest = request.digest(opened.fingerprint + model.fingerprint(request, opened))
        if _already_complete(request, digest, report):
            return
        prepared = prepare(request, opened, report)
        _convert(request, digest, prepared, report, started)
    finally:
        opened.source.close()


def _already_complete(request: ConversionRequest, digest: str, report: Report) -> bool:
    if request.overwrite or not manifest.is_complete(request.destination, digest):
        return False
    with report.step("commit") as step:
        step.lines.append(f"{request.destination} is already complete for this request")
    return True


def _convert(request: ConversionRequest, digest: str, prepared: Prepared, report: Report, started: float) -> None:
    staging = Staging(request.destination)
    try:
        with report.step("convert") as step:
            staging.open()
            if not is_vacant(request.destination):
                raise_all(occupied(request))
            outcome = _execute(request, prepared, staging, step)
        with report.step("verify") as step:
            samples = _verify(request, prepared, staging)
            step.lines.append(f"{samples} elements read back and compared by coordinate")
        with report.step("commit") as step:
            _check_unchanged(prepared.opened, request)
            residue_elements = _carry(request, prepared, staging)
            listed = manifest.describe(
                staging.root, outcome.tensor_entries(prepared.plan), digest, prepared.plan.threads
            )
            staging.path(manifest.FILE).write_text(listed, "utf-8")
            _tell(report, prepared, outcome, residue_elements, samples, started)
            step.lines.extend(_closing_lines(prepared, outcome, residue_elements))
        _finish(staging, manifest.done(listed, digest), report, drivers.driver_of(request.target_format).last)
    except BaseException:
        staging.discard()
        raise


def _execute(request: ConversionRequest, prepared: Prepared, staging: Staging, step: StepRecord) -> Outcome:
    plan = prepared.plan
    found = checks.check(prepared.sides.composition, prepared.opened.source)
    raise_all([d for d in found if not d.warning])
    step.diagnostics.extend(found)
    sink = drivers.driver_of(request.target_format).sink(request, staging, prepared.sides.target)
    journal = residue_lib.Journal(staging.path("recast", "residue.journal"))
    try:
        sink.declare(drivers.declared(plan))
        executor = Executor(
            plan,
            prepared.opened.source,
            sink,
            budget=request.memory_budget,
            residue_in=prepared.residue,
            residue_out=journal if request.residue == "keep" else None,
        )
        with memory.PeakSampler() as peak:
            outcome = executor.run()
        outcome.peak_bytes = peak.bytes
        _check_residue(request, outcome)
        sink.commit()
    except BaseException:
        sink.abort()
        raise
    step.diagnostics.extend(_value_warnings(outcome))
    step.diagnostics.extend(_residue_warnings(prepared.residue))
    return outcome


def _check_residue(request: ConversionRequest, outcome: Outcome) -> None:
    if request.residue != "refuse":
        return
    raise_all(
        [
            Diagnostic("RESIDUE_REFUSED", f"{count} elements of {name} would not come back bit for bit.", subject=name)
            for name, count in sorted(outcome.residue_elements.items())
        ]
    )


def _value_warnings(outcome: Outcome) -> list[Diagnostic]:
    found = []
    for name, (largest, infinity) in sorted(outcome.largest.items()):
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


def _verify(request: ConversionRequest, prepared: Prepared, staging: Staging) -> int:
    source = prepared.opened.reader()
    target = drivers.driver_of(request.target_format).reader(staging)
    found: list[Diagnostic] = []
    samples = 0
    for array, points in verify.sample(prepared.plan, prepared.opened.source, seed=len(prepared.plan.arrays)):
        found.extend(verify.compare(array, points, source, target, prepared.residue))
        samples += len(points.target_at)
    found.extend(verify.check_names(prepared.plan, target.names()))
    if found:
        _check_unchanged(prepared.opened, request)
    raise_all(found)
    return samples


def _check_unchanged(opened: Opened, request: ConversionRequest) -> None:
    if opened.fingerprint_now() != opened.fingerprint:
        raise RecastError.of("SOURCE_CHANGED", "The source changed during the run.", subject=str(request.source))


def _carry(request: ConversionRequest, prepared: Prepared, staging: Staging) -> int:
    """Puts config, tokenizer, record and residue beside the weights; returns the residue's size in elements."""
    sides, plan = prepared.sides, prepared.plan
    model.carry(request, prepared.model, plan, staging)
    journal = residue_lib.Journal(staging.path("recast", "residue.journal"))
    elements = journal.join(staging.path("recast", record_lib.RESIDUE_FILE))
    kept = ConversionRecord(
        family=prepared.naming.family,
        model_name=prepared.naming.model_name,
        source_format=request.source_format,
        target_format=request.target_format,
        source_options=dict(sides.source.options),
        target_options=dict(sides.target.options),
        source_dtypes={name: info.dtype for name, info in prepared.opened.source.tensors.items()},
        logical_dtypes={name: array.path.logical_dtype for name, array in plan.arrays.items() if array.path.target_ops},
    )
    staging.path("recast", record_lib.FILE).write_text(kept.to_json(), "utf-8")
    return elements


def _finish(staging: Staging, done: str, report: Report, last: Sequence[str]) -> None:
    """Writes reports and DONE beside the output, then moves all of it into place."""
    report.finish()
    try:
        for name, content in (("report.txt", text.render(report)), ("report.json", json_report.render(report))):
            staging.path(name).write_text(content, "utf-8")
        write_durably(staging.path("DONE"), done)
        sync_tree(staging.root)
        staging.publish(last)
    except BaseException as error:
        report.finished = ""
        with report.step("publish"):
            raise error


def _tell(report: Report, prepared: Prepared, outcome: Outcome, residue: int, samples: int, started: float) -> None:
    for name, array in prepared.plan.arrays.items():
        report.tensors.append(
            TensorOutcome(
                name,
                array.info.dtype,
                array.info.shape,
                array.path.exactness,
                array.path.source_dtype,
                outcome.residue_elements.get(name, 0),
            )
        )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    report.figures.update(
        bytes_read=prepared.plan.bytes_in,
        bytes_written=prepared.plan.bytes_out,
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
