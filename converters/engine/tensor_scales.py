"""One scale for all of an array: what of a plan is read twice for that, the first reading, and the check of scales."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import numpy as np

from converters.engine import values
from converters.engine.plan import ArrayPlan, Box, Plan
from converters.engine.staging import Staging
from converters.engine.verify import ElementReader
from converters.quantized.forms import Form
from converters.quantized.magnitudes import Magnitudes
from converters.quantized.whole_tensors import WholeTensors
from reporting.diagnostics import Diagnostic

_MAGNITUDES = "magnitudes.journal"
# Stated again on purpose: names shared with the encoder would hide its mistakes.
_LARGEST_CODE = np.float32(448)
_SCALE_OF_ZEROS = np.float32(2.0**-23)


def read_twice(plan: Plan, form: Form | None) -> list[ArrayPlan]:
    """The arrays with one scale that are written in parts: all of each is looked at before the first part is."""
    if not isinstance(form, WholeTensors):
        return []
    return [array for name, array in plan.arrays.items() if name in form.names and array.unit_count > 1]


def magnitudes(form: Form | None, staging: Staging, *, resume: bool) -> Magnitudes | None:
    """What is known of largest magnitudes, where a form needs them; with `resume`, what an earlier run noted."""
    return Magnitudes(staging.folder / _MAGNITUDES, resume=resume) if isinstance(form, WholeTensors) else None


@dataclasses.dataclass(frozen=True)
class FirstReading:
    """What has to be looked at before the first code is written.

    Attributes:
        plan: of the arrays that are read twice.
        done: their units that were looked at before, by array and box.
        bytes: of the other units.
    """

    plan: Plan
    done: frozenset[tuple[str, Box]]
    bytes: int


def not_known(plan: Plan, form: Form | None, known: Magnitudes) -> FirstReading:
    """The first reading, as far as the largest magnitudes are not known.

    Args:
        plan: all that a run will do.
        form: what is encoded.
        known: of magnitudes.
    """
    arrays = {array.info.name: array for array in read_twice(plan, form)}
    part = dataclasses.replace(plan, arrays=arrays, shared=())
    done, size = set(), 0
    for unit in part.units():
        name = unit.array.info.name
        if known.knows(name, unit.box):
            done.add((name, unit.box))
        else:
            size += math.prod(unit.shape) * values.itemsize(unit.array.info.dtype)
    return FirstReading(part, frozenset(done), size)


def check(
    plan: Plan,
    form: Form | None,
    staging: Staging,
    source: ElementReader,
    target: ElementReader,
    guard: Callable[[], None],
) -> Iterator[Diagnostic]:
    """Holds every scale that was written against the element of the source that is said to be the largest.

    That element shows that a scale is not too large; elements that are sampled elsewhere, that it is not too small.

    Args:
        plan: what was written.
        form: how it was encoded.
        staging: has the notes of the run.
        source: reads elements of the source.
        target: reads elements as they are stored.
        guard: raises when the run has to end.
    """
    if not isinstance(form, WholeTensors):
        return
    known = Magnitudes(staging.folder / _MAGNITUDES, resume=True)
    try:
        for name in sorted(form.names):
            guard()
            array = plan.arrays[name]
            if not array.bytes:
                continue
            at = known.of(name).at
            found = np.float32(target.elements(name + form.ending, np.zeros((1, 1), np.int64))[0])
            expected = _scale(_element(array, at, source))
            if found != expected:
                reason = (
                    f"The scale of {name} is {found!s}, but element {list(at)}, the largest that was found, makes it "
                    f"{expected!s}."
                )
                yield Diagnostic("VERIFICATION_FAILED", reason, subject=name + form.ending)
    finally:
        known.close()


def _element(array: ArrayPlan, at: tuple[int, ...], source: ElementReader) -> np.float32:
    """The plain value of one element of an array; zero where nothing fills it."""
    box = tuple((n, n + 1) for n in at)
    for part in array.parts_in(box):
        read = source.elements(part.source, np.array([part.source_base], np.int64))
        path = array.path
        logical = values.decode(np.ascontiguousarray(read), path.source_ops, path.logical_dtype, path.recorded_dtype)
        return np.float32(values.encode(logical, path.target_ops, path.target_dtype)[0])
    return np.float32(0)


def _scale(value: np.float32) -> np.float32:
    scale = np.float32(abs(value) / _LARGEST_CODE)
    return scale if scale > 0 else _SCALE_OF_ZEROS
