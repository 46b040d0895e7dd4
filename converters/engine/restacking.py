"""Binds a conversion between two MaxText layouts of one model, and restates what was recorded of the source.

Both sides mean the same by every value, so what decides values (the order of rotary pairs, say) may stay open here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping

from converters.engine import binding, drivers, kept, model, moved_residue, naming, train_state, values
from converters.engine import residue as residue_lib
from converters.engine.binding import Sides
from converters.engine.drivers import Opened
from converters.engine.model import Model
from converters.engine.naming import Naming
from converters.engine.plan import Plan
from converters.engine.record import ConversionRecord
from converters.engine.request import AUTO, ConversionRequest
from converters.engine.train_state import Tree
from converters.formats.base import TensorInfo
from mappings import catalog
from mappings.language.composition import Composition
from mappings.language.layout import Layout
from reporting.diagnostics import Diagnostic, RecastError, raise_all

FORMAT = "maxtext"
_STEP = "step"
_SHOWN = 4


def applies(request: ConversionRequest) -> bool:
    """Whether a request is one from MaxText to MaxText."""
    return request.source_format == request.target_format == FORMAT


def bind(request: ConversionRequest, opened: Opened, subject: Model) -> tuple[Naming, Sides]:
    """The layouts, the moves of the weights, and what becomes of the training state.

    Raises:
        RecastError: TRAIN_STATE_MISSING, TRAIN_STATE_INCOMPLETE, TRAIN_STATE_NOT_RESTACKABLE, CANNOT_STACK, and what
            binding finds in config, record and headers.
    """
    tree = _tree(opened)
    _check_state(request, tree)
    named = _named(request, subject)
    source, undecided = _source_layout(request, opened, subject, named)
    header = opened.source.tensors
    target = kept.kept_by(source, _target_layout(request, source, named), header, request.residue)
    weights = {
        name: info for name, info in header.items() if name not in source.arrays or not source.arrays[name].mirror
    }
    composition = binding.compose(source, target, weights)
    raise_all(_unstackable(composition, target, header))
    binding.check_header(source, header)
    sides = Sides(source.family, source, target, composition, {})
    if request.init_train_state:
        sides = train_state.initialise(sides, tree, _written_dtypes(request, sides, header), request.step)
    elif request.train_state == "strip":
        sides = train_state.strip(sides, tree, request.step)
    else:
        sides = train_state.keep(sides, tree, request.step)
    assert sides.state is not None
    return named, dataclasses.replace(sides, state=dataclasses.replace(sides.state, undecided=undecided))


def record(
    request: ConversionRequest, sides: Sides, plan: Plan, subject: Model, named: Naming, *, invertible: bool
) -> ConversionRecord:
    """What the way back from the output must know: what the source's own record says, by the output's names."""
    old = subject.record
    state = sides.state
    undecided = state.undecided if state is not None else frozenset()
    options = {
        name: value for name, value in sides.target.options.items() if name not in undecided and value not in ("", None)
    }
    logical: dict[str, str] = {}
    for name, array in plan.arrays.items():
        found = {subject.logical_dtypes.get(move.source, "") for move in array.moves}
        if len(found) == 1 and array.path.moves_bytes and "" not in found:
            logical[name] = found.pop()
    return ConversionRecord(
        family=named.family,
        model_name=named.model_name,
        source_format=old.source_format if old is not None else request.source_format,
        target_format=request.target_format,
        source_options=dict(subject.target_options),
        target_options=options,
        source_dtypes=dict(subject.source_dtypes),
        logical_dtypes=logical,
        step=state.step if state is not None else 0,
        training_state="initialise" if request.init_train_state else request.train_state,
        invertible=invertible,
    )


def carry_residue(residue: residue_lib.Residue, plan: Plan, journal: residue_lib.Journal) -> None:
    """Restates the residue of the source by the names and indices of the output, where bytes only moved."""
    # An earlier, interrupted run may have come as far as this.
    journal.keep_only(())
    for array in plan.arrays.values():
        if array.path.moves_bytes:
            for part in moved_residue.parts(residue, array):
                journal.append(part)


def _tree(opened: Opened) -> Tree:
    tensors = kept.own_of(opened.source.tensors)
    step = opened.step
    own = tensors.get(_STEP)
    if step is None and own is not None and not own.shape and own.dtype in ("int32", "int64", "uint32"):
        step = max(0, int(opened.source.read(_STEP, ())))
    metadata = {name: value for name, value in opened.metadata.items() if name != "scan_layers"}
    return Tree(tensors, opened.leaves, step, metadata, opened.extended())


def _check_state(request: ConversionRequest, tree: Tree) -> None:
    """Holds what was asked for against what the source has."""
    if request.train_state != "keep":
        return
    if request.init_train_state and tree.has_state:
        raise RecastError.of(
            "INVALID_FLAG",
            "--init_train_state was given, but the source has a training state, which is kept.",
            subject="--init_train_state",
            suggestion="Leave it out, or pass --load_parameters_path to take the weights only and start anew.",
        )
    if not request.init_train_state and not tree.has_state:
        raise RecastError.of(
            "TRAIN_STATE_MISSING", "The source holds no training state, only weights.", subject=str(request.source)
        )


def _named(request: ConversionRequest, subject: Model) -> Naming:
    """What the model is called; variants that differ in values only may stay undistinguished."""
    model.check_recorded_name(subject)
    try:
        return naming.resolve(request.model_name or subject.recorded_name, subject.config, FORMAT)
    except RecastError as error:
        family = catalog.family_of(subject.config)
        if family is None or any(d.id != "MODEL_NAME_AMBIGUOUS" for d in error.diagnostics):
            raise
        return Naming(
            family, "", {}, "from config.json; the variants that fit differ in values, which stay as they are"
        )


def _source_layout(
    request: ConversionRequest, opened: Opened, subject: Model, named: Naming
) -> tuple[Layout, frozenset[str]]:
    family = binding.family_for(named.family, subject.config)
    if subject.record is not None:
        checked = dataclasses.replace(request, target_format=subject.record.source_format)
        model.check_recorded_options(subject, family, named.family, checked)
    if subject.source_options and named.options:
        try:
            naming.check_record(family, named, FORMAT, subject.source_options)
        except RecastError as error:
            raise error if request.model_name else model.record_error(error.diagnostics[0].reason) from error
    given = {**named.options, **subject.source_options, **request.source_options}
    given.pop("scan", None)
    source, undecided = binding.detected_layout(family, named.family, FORMAT, given, opened.source.tensors)
    drivers.check_metadata(source.options.get("scan"), opened.options.get("scan"))
    return source, frozenset(undecided)


def _target_layout(request: ConversionRequest, source: Layout, named: Naming) -> Layout:
    target = binding.layout_for(source.family, named.family, FORMAT, {**source.options, **request.target_options})
    if request.dtype != AUTO:
        return target
    arrays = {name: dataclasses.replace(array, keep_dtype=True) for name, array in target.arrays.items()}
    return dataclasses.replace(target, arrays=arrays)


def _unstackable(composition: Composition, target: Layout, header: Mapping[str, TensorInfo]) -> list[Diagnostic]:
    """Layers that would lie in one array and differ in shape, or in a dtype that is to be kept."""
    feeds: dict[str, set[str]] = defaultdict(set)
    for move in composition.moves:
        feeds[move.target].add(move.source)
    found = []
    for name, sources in feeds.items():
        there = [header[source] for source in sorted(sources, key=_natural) if source in header]
        keeps = target.arrays[name].keep_dtype
        kinds = [(list(info.shape), info.dtype if keeps else "") for info in there]
        usual = Counter(map(str, kinds)).most_common(1)
        other = [(info, kind) for info, kind in zip(there, kinds, strict=True) if str(kind) != usual[0][0]]
        if other:
            listed = ", ".join(f"{info.name} ({_kind(info)})" for info, _ in other[:_SHOWN])
            more = f" and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
            rest = next(info for info, kind in zip(there, kinds, strict=True) if str(kind) == usual[0][0])
            reason = f"{name} cannot be stacked: {listed}{more} differ from {rest.name} ({_kind(rest)}) and the others."
            found.append(Diagnostic("CANNOT_STACK", reason, subject=other[0][0].name))
    return found


def _kind(info: TensorInfo) -> str:
    return f"{info.dtype} {list(info.shape)}"


def _natural(name: str) -> tuple[int, str]:
    return len(name), name


def _written_dtypes(request: ConversionRequest, sides: Sides, header: Mapping[str, TensorInfo]) -> dict[str, str]:
    """The dtype in which each weight is written."""
    read: dict[str, set[str]] = defaultdict(set)
    for move in sides.composition.moves:
        read[move.target].add(header[move.source].dtype)
    return {
        name: values.common(read[name]) if sides.target.arrays[name].keep_dtype else request.dtype
        for name in sides.composition.produced
    }
