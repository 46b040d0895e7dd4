"""What is said of finite values that became infinite: the dtype of the output, or of decoding, does not hold them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from converters.engine import passing, planning, requantizing, values
from converters.engine.execute import Outcome
from converters.engine.plan import ArrayPlan, Plan
from converters.engine.prepare import Prepared, precision_of
from converters.engine.request import ConversionRequest
from converters.engine.values import Operation, ValuePath
from converters.formats.base import Source
from converters.quantized.source import DecodingSource
from reporting.diagnostics import Diagnostic

# What a run can be asked to write, by how much it holds.
_WIDER = ("bfloat16", "float32")
_NOTHING_HOLDS = (
    "No dtype of the output holds these values; do not use it, and look at where the checkpoint comes from."
)


@dataclasses.dataclass(frozen=True)
class Overflow:
    """Finite values of one array of the source that became infinite in one array of the output.

    Attributes:
        source: name of the array of the source.
        array: the array of the output.
        magnitude: the largest finite magnitude of what passed; infinity where not even float32 holds it.
        rounded: dtype to which decoding rounds first; empty where it does not, or nothing is decoded.
    """

    source: str
    array: ArrayPlan
    magnitude: float
    rounded: str


def warnings(request: ConversionRequest, prepared: Prepared, outcome: Outcome) -> list[Diagnostic]:
    """One warning for each array of the source and each array of the output with infinite values for finite ones."""
    found = list(_overflows(prepared.plan, prepared.opened.source, outcome))
    suggestion = _cure(request, prepared, found)
    return [
        Diagnostic("TENSOR_OVERFLOWED", _reason(overflow), suggestion=suggestion, subject=overflow.source)
        for overflow in found
    ]


def repeated(plan: Plan, source: Source, outcome: Outcome) -> list[Diagnostic]:
    """The same warnings where an output is held against its source, without the flag of the run that wrote it."""
    return [
        Diagnostic("TENSOR_OVERFLOWED", _reason(overflow), subject=overflow.source)
        for overflow in _overflows(plan, source, outcome)
    ]


def refusals(warned: Sequence[Diagnostic], outcome: Outcome) -> list[Diagnostic]:
    """For a run that must be exact: one failure for each array of the output that is not, with the warnings' cure."""
    return [
        Diagnostic(
            "EXACTNESS_NOT_MET",
            f"{name} would be LOSSY: finite values of {', '.join(sorted(sources))} became infinite in it.",
            suggestion=warned[0].suggestion,
            subject=name,
        )
        for name, sources in sorted(outcome.overflowed.items())
    ]


def _overflows(plan: Plan, source: Source, outcome: Outcome) -> Iterator[Overflow]:
    decoded: dict[str, float] = {}
    for target, held in sorted(outcome.overflowed.items()):
        for name, magnitude in sorted(held.items()):
            array, rounded = plan.arrays[target], ""
            if isinstance(source, DecodingSource) and name in source.stored:
                rounded = source.stored[name].rounded
                if math.isinf(magnitude):
                    if name not in decoded:
                        decoded[name] = source.magnitude(name)
                    magnitude = decoded[name]
            yield Overflow(name, array, magnitude, rounded)


def _reason(overflow: Overflow) -> str:
    dtype, magnitude = _too_narrow(overflow.array.path, overflow.rounded, overflow.magnitude)
    shown = f"{overflow.magnitude:.8g}" if math.isfinite(overflow.magnitude) else "more than float32 holds"
    if magnitude != overflow.magnitude:
        shown += f", with the constants that the formats fold in {magnitude:.8g}"
    return (
        f"Finite values of {overflow.source} became infinite in {overflow.array.info.name}: the largest magnitude is "
        f"{shown}; the largest value of {dtype} is {passing.largest_of(dtype):.8g}."
    )


def _too_narrow(path: ValuePath, rounded: str, magnitude: float) -> tuple[str, float]:
    """The first dtype on a path that does not hold a magnitude, and what the magnitude has become there."""
    logical = _changed(magnitude, path.source_ops, undone=True)
    stored = _changed(logical, path.target_ops, undone=False)
    steps = (
        (rounded or path.source_dtype, magnitude),
        (path.source_dtype, magnitude),
        (path.logical_dtype, logical),
        (path.target_dtype, stored),
    )
    return next((step for step in steps if not _holds(*step)), steps[-1])


def _changed(magnitude: float, ops: Sequence[Operation], *, undone: bool) -> float:
    """The largest magnitude that operations can give."""
    for op in reversed(ops) if undone else ops:
        factor = abs(float(values.factor_of(op)))
        if op.kind == "scale":
            magnitude = magnitude / factor if undone else magnitude * factor
        else:
            magnitude += factor
    return magnitude


def _holds(dtype: str, magnitude: float) -> bool:
    with np.errstate(over="ignore"):
        return not values.has_infinity(np.array([magnitude]).astype(values.dtype_of(dtype)))


def _cure(request: ConversionRequest, prepared: Prepared, found: Sequence[Overflow]) -> str:
    """What to do about all overflows at once; empty for the usual, where no flag says the dtype."""
    if not request.dtype_flag:
        return ""
    for dtype in _WIDER:
        if all(_stays_finite(overflow, request, prepared, dtype) for overflow in found):
            return f"Convert again with --{request.dtype_flag}={dtype}, which holds these values."
    return _NOTHING_HOLDS


def _stays_finite(overflow: Overflow, request: ConversionRequest, prepared: Prepared, dtype: str) -> bool:
    """Whether values do not overflow in a run that is asked for another dtype."""
    sides, source = prepared.sides, prepared.opened.source
    tensors = dict(source.tensors)
    if isinstance(source, DecodingSource):
        if overflow.source in source.stored and not (
            _holds(dtype, overflow.magnitude) and _holds(overflow.rounded or dtype, overflow.magnitude)
        ):
            return False
        tensors |= {name: dataclasses.replace(tensors[name], dtype=dtype) for name in source.stored}
    asked = precision_of(dataclasses.replace(request, dtype=dtype), prepared.model)
    asked = requantizing.refined(asked, prepared.form, sides.composition.produced)
    array = overflow.array
    path = planning.path_of(array.info.name, array.moves, sides, tensors, asked, prepared.model.logical_dtypes)
    return not passing.overflows(path, -overflow.magnitude, overflow.magnitude)
