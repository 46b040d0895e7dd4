"""Everything before the first byte: config, binding, plan and preflight; all violations of a step at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from converters.engine import (
    binding,
    decoding,
    drivers,
    kept,
    manifest,
    model,
    naming,
    planning,
    processors,
    requantizing,
    restacking,
    train_state,
)
from converters.engine import record as record_lib
from converters.engine import residue as residue_lib
from converters.engine.binding import Sides
from converters.engine.destination import is_replaceable, is_vacant, staged_bytes
from converters.engine.drivers import Opened
from converters.engine.model import Model
from converters.engine.naming import Naming
from converters.engine.plan import Plan, Sizes
from converters.engine.precision import Precision
from converters.engine.request import ConversionRequest
from converters.formats.base import Source
from converters.quantized.forms import Form
from mappings.language import peers
from mappings.language.layout import Layout
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import NoteLine, Report
from validators import preflight

# Each write of a chunk rewrites one node of its database; old ones go when all is written.
_NODE_BYTES = 1 << 16


@dataclasses.dataclass(frozen=True)
class Prepared:
    """All that is known before the first byte is written.

    `doubt` says why values under the source's operations may not come back bit for bit; empty if they do, or if there
    are none.
    """

    opened: Opened
    model: Model
    naming: Naming
    sides: Sides
    plan: Plan
    residue: residue_lib.Residue
    form: Form | None = None
    doubt: str = ""


def prepare(
    request: ConversionRequest,
    opened: Opened,
    report: Report,
    grid_of_earlier_run: Mapping[str, Sizes],
    published: Model | None = None,
) -> Prepared:
    """Config, binding, plan and preflight of an opened source, each a step of the report.

    Args:
        request: what is asked for.
        opened: the source.
        report: gets the steps.
        grid_of_earlier_run: sizes of units by array, where an interrupted run of this request chose them.
        published: the model, where it is known and not to be read from files.

    Raises:
        StepFailed: when a step failed; nothing was written.
    """
    with report.step("validate_config"):
        subject = published or model.load(request, opened)
    if request.source_format == "hf" and published is None:
        opened = decoding.decoded(request, opened, subject, report)
    with report.step("bind") as step:
        if opened.record_folder is not None:
            kept.check_files(opened.record_folder.parent, digests=not request.plan_only)
        if restacking.applies(request):
            named, sides = restacking.bind(request, opened, subject)
        else:
            model.check_recorded_name(subject)
            # Variants differ in MaxText's values only: between other formats any of them will do.
            format = "maxtext" if "maxtext" in (request.source_format, request.target_format) else request.target_format
            named = naming.resolve(request.model_name or subject.recorded_name, subject.config, format)
            sides = _bind(request, opened, subject, named)
        residue = _residue(opened, request)
        form = requantizing.asked(request, opened, subject, sides)
        if opened.record_folder is not None:
            manifest.check_listed(opened.record_folder.parent, record_lib.FOLDER)
            kept.check_record(sides.composition, opened.source.tensors, subject.dtypes_of(request.target_format))
        report.model_name = named.model_name
        report.options.update(_shown(sides.source), **_shown(sides.target))
        report.notes.extend(_notes(sides))
        if request.exactness == "as_requested":
            report.notes.extend(NoteLine("PEER_DIFFERS", *found) for found in peers.differences(sides.target))
        step.lines.append(f"family {named.family}, model {named.model_name or '(any)'} ({named.reason})")
        step.lines.extend(sides.state.lines if sides.state is not None else ())
        step.lines.extend(kept.lines(sides.source, sides.target, opened.source.tensors))
    with report.step("plan") as step:
        grid = planning.Grid(
            drivers.driver_of(request.target_format).free_grid,
            processors.workers(),
            request.memory_budget,
            grid_of_earlier_run,
            form,
        )
        doubt = _doubt(request, opened, subject, sides)
        precision = dataclasses.replace(precision_of(request, subject), untouched=not doubt)
        precision = requantizing.refined(precision, form, sides.composition.produced)
        plan = planning.make(sides, opened.source, precision, subject.logical_dtypes, grid)
        plan = requantizing.sized(plan, form)
        step.lines.extend(_doubtful(plan, doubt))
        if request.require_exact:
            planning.check_exactness(plan, precision)
        step.lines.extend(_plan_lines(plan, opened.source))
        step.lines.extend(requantizing.plan_lines(plan, form))
    if not request.plan_only:
        with report.step("preflight"):
            _preflight(request, opened, plan)
    return Prepared(opened, subject, named, sides, plan, residue, form, doubt)


def _bind(request: ConversionRequest, opened: Opened, subject: Model, named: Naming) -> Sides:
    family = binding.family_for(named.family, subject.config)
    model.check_recorded_options(subject, family, named.family, request)
    if subject.source_options:
        try:
            naming.check_record(family, named, request.source_format, subject.source_options)
        except RecastError as error:
            raise error if request.model_name else model.record_error(error.diagnostics[0].reason) from error
    asked = dict(request.source_options)
    scan = asked.pop("scan", None)
    stated = dict(opened.options)
    drivers.check_scan(stated.get("scan"), scan, "says that it was saved")
    header = opened.source.tensors
    given = {**named.options, **subject.source_options, **asked}
    given.pop("scan", None)
    source, undecided = binding.detected_layout(family, named.family, request.source_format, given, header)
    drivers.check_scan(source.options.get("scan"), scan, "holds arrays as they are saved")
    drivers.check_metadata(source.options.get("scan"), stated.get("scan"))
    unmapped = binding.check_header(source, header)
    _refuse_undecided(undecided)
    # What was recorded because of an option gives way with it: the names of a part, with the spelling of all names.
    implied = [binding.implied_options(family, named.family, request.target_format, o) for o in request.target_options]
    recorded = {o: value for o, value in subject.target_options.items() if o not in frozenset().union(*implied)}
    given = {**recorded, **named.options, **request.target_options}
    bound = binding.layout_for(family, named.family, request.target_format, given)
    _check_parts(request, source, bound)
    target = kept.kept_by(source, bound, header, request.residue)
    masked = train_state.masked(source, header, opened.leaves)
    # What a publisher wrote though it may be left out is written again.
    same = request.source_format == request.target_format
    wanted = _with_head(request, target, header if same else subject.dtypes_of(request.target_format))
    return Sides(family, source, target, binding.compose(source, target, header, masked, wanted), unmapped)


def _with_head(request: ConversionRequest, target: Layout, wanted: Collection[str]) -> Collection[str]:
    """Optional arrays that the output gets, with or without those that are another one, where that was asked for."""
    tied = {
        name
        for tensor in target.family.ties
        for place in target.places.get(("", tensor), ())
        for rank in place.ranks.values()
        for name in place.names_of(rank)
    }
    return {"untie": {*wanted, *tied}, "tie": {*wanted} - tied}.get(request.tied_head, wanted)


def _check_parts(request: ConversionRequest, source: Layout, target: Layout) -> None:
    """Refuses to convert parts of a model that the family does not have: vision, layers that predict further tokens."""
    name = "use_multimodal"
    asked = {**request.source_options, **request.target_options}.get(name)
    if asked == "true" and name not in {**source.options, **target.options}:
        reason = "--use_multimodal is set, but this family has no vision part."
        raise RecastError.of("INVALID_FLAG", reason, subject=f"--{name}")
    if request.target_options.get("mtp") == "true" and "mtp" not in target.options:
        reason = "--enable_mtp is set, but MaxText has no place for such layers in this family."
        raise RecastError.of("INVALID_FLAG", reason, subject="--enable_mtp")


def _refuse_undecided(options: Mapping[str, tuple[object, ...]]) -> None:
    raise_all(
        [
            Diagnostic(
                "MODEL_NAME_AMBIGUOUS",
                f"The files do not say whether {name} is {' or '.join(str(value) for value in candidates)}.",
                subject="--model_name",
            )
            for name, candidates in options.items()
        ]
    )


def _doubt(request: ConversionRequest, opened: Opened, subject: Model, sides: Sides) -> str:
    if not restacking.applies(request) and not any(move.source_ops for move in sides.composition.moves):
        return ""
    return model.doubt(subject, opened, request.residue)


def _doubtful(plan: Plan, doubt: str) -> list[str]:
    """What a doubt means for the arrays whose values were recorded."""
    count = sum(bool(array.path.source_ops and array.path.recorded_dtype) for array in plan.arrays.values())
    if not count or not doubt:
        return []
    return [
        f"{count} arrays under a folded constant are ROUNDING: {doubt}; elements that nothing changed come back to the "
        "bit, the others as float32 has them"
    ]


def precision_of(request: ConversionRequest, subject: Model) -> Precision:
    """What a request asks for in the arrays of a model."""
    return Precision(
        dtype=request.dtype,
        as_requested=request.exactness == "as_requested",
        residue=request.residue,
        original=subject.source_dtypes,
        # A Hugging Face checkpoint says itself what each tensor was; MaxText keeps masters in float32.
        default="" if request.source_format == "hf" else subject.config_dtype,
    )


def _residue(opened: Opened, request: ConversionRequest) -> residue_lib.Residue:
    if opened.record_folder is None or request.residue == "drop":
        return residue_lib.Residue(residue_lib.EMPTY)
    residue = residue_lib.read(opened.record_folder / record_lib.RESIDUE_FILE)
    residue.check(opened.source.tensors)
    return residue


def _preflight(request: ConversionRequest, opened: Opened, plan: Plan) -> None:
    try:
        found = list(preflight.check_destination(request.destination, opened.root))
        if not found and not is_vacant(request.destination):
            found.extend(occupied(request))
    except OSError as error:
        where = str(request.destination)
        raise RecastError.of("DESTINATION_NOT_WRITABLE", f"{error.strerror}: {where}.", subject=where) from error
    found.extend(
        preflight.check_disk(request.destination, max(0, disk_bytes(plan) - staged_bytes(request.destination)))
    )
    found.extend(preflight.check_memory(plan.peak_bytes + preflight.START_UP_BYTES))
    raise_all(found)


def disk_bytes(plan: Plan) -> int:
    """What an output takes on the disk: arrays, headers and metadata, and while it is written a node for each unit."""
    units = sum(array.unit_count for array in plan.arrays.values())
    return int(plan.bytes_out * 1.01) + (1 << 20) + units * _NODE_BYTES


def occupied(request: ConversionRequest) -> list[Diagnostic]:
    """Why a destination that is not vacant cannot be written to, if it cannot."""
    where = str(request.destination)
    if not request.overwrite:
        only = "Choose another directory; --overwrite replaces only one that holds nothing but a checkpoint."
        cure = "" if is_replaceable(request.destination) else only
        return [Diagnostic("DESTINATION_EXISTS", "The destination is not empty.", suggestion=cure, subject=where)]
    if is_replaceable(request.destination):
        return []
    return [
        Diagnostic(
            "DESTINATION_EXISTS",
            "The destination holds files that are no checkpoint; --overwrite replaces checkpoints only.",
            subject=where,
            suggestion="Choose another directory.",
        )
    ]


def _plan_lines(plan: Plan, source: Source) -> list[str]:
    classes: dict[str, int] = {}
    for array in plan.arrays.values():
        classes[array.path.exactness] = classes.get(array.path.exactness, 0) + 1
    counted = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
    return [
        f"{len(plan.arrays)} arrays to write: {counted}",
        f"{plan.bytes_in} bytes to read, {plan.bytes_out} to write, buffers of at most {plan.peak_bytes} bytes, "
        f"{plan.threads} threads",
        *_amplified(plan, source),
    ]


def _amplified(plan: Plan, source: Source) -> list[str]:
    # A tensor that two others are made of is read twice, too; that is no fault of chunks.
    if plan.amplification <= 1 or not any(source.chunk(name) for name in source.tensors):
        return []
    return [
        f"{plan.bytes_decoded} bytes to decode, {plan.amplification:.2f} times those read: the source's chunks are too "
        "large for the memory budget"
    ]


def _notes(sides: Sides) -> list[NoteLine]:
    notes = [NoteLine(note.kind, note.array or note.tensor, note.reason) for note in sides.composition.notes]
    notes.extend(kept.notes(sides.target, sides.composition))
    notes.extend(NoteLine("NOT_CONVERTED", name, reason) for name, reason in sides.unmapped.items())
    return notes


def _shown(layout: Layout) -> dict[str, str]:
    return {f"{layout.format}.{name}": str(value) for name, value in layout.options.items()}
