"""Samples of the written output, read back by other code than wrote them, compared by coordinate with the source.

A digest that ignores order cannot see a transposition; a coordinate can. Both sides are read through second readers:
a fresh TensorStore context opened from `_METADATA`, and a plain parse of the safetensors header.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from converters.engine import residue as residue_lib
from converters.engine import values
from converters.engine.gather import chunk_pieces
from converters.engine.plan import ArrayPlan, Plan, Unit
from converters.engine.values import AnyArray, ValuePath
from converters.formats.base import Source
from mappings.language.keeping import is_kept
from mappings.language.regions import Move
from reporting.diagnostics import Diagnostic

# Of a few arrays two units each; where layers are arrays of their own, one each: every reading decodes a chunk.
_UNITS_PER_ARRAY = 2
_FEW_ARRAYS = 64
_POINTS_PER_UNIT = 32


Nearest = Callable[[str, AnyArray, AnyArray], AnyArray]


class ElementReader(Protocol):
    """Reads single elements of a stored checkpoint."""

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at integer coordinates [n, rank], in the stored dtype, [n]."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Places in one source array and the places in one target array that must correspond.

    Attributes:
        source: name, `source_at` [n, rank] its coordinates; likewise for the target.
    """

    source: str
    source_at: AnyArray
    target: str
    target_at: AnyArray


def sample(plan: Plan, source: Source, seed: int) -> Iterator[tuple[ArrayPlan, Points]]:
    """Chooses points of every array: from a few of its units, from one source chunk each, corners included."""
    chooser = random.Random(seed)
    count = _UNITS_PER_ARRAY if len(plan.arrays) <= _FEW_ARRAYS else 1
    for array in plan.arrays.values():
        for unit in _some_units(array, count, chooser):
            parts = array.parts_in(unit.box)
            if not parts:
                continue
            piece = chooser.choice(list(chunk_pieces(source, chooser.choice(parts))))[1]
            yield array, _points(piece, chooser)


def compare(
    array: ArrayPlan,
    points: Points,
    source: ElementReader,
    target: ElementReader,
    residue: residue_lib.Residue,
    nearest: Nearest = lambda name, at, values: values,
) -> list[Diagnostic]:
    """Reads the points on both sides; every element that is not what it must be is one diagnostic.

    Args:
        array: what the points belong to.
        points: where to look.
        source: reads the source.
        target: reads the output.
        residue: of the source.
        nearest: from values at coordinates of an array of the output, what that can hold of them.
    """
    path = array.path
    read = source.elements(points.source, points.source_at)
    undone = bool(path.source_ops) and not is_kept(points.source)
    logical = _before(read, path) if undone else values.encode(read, (), path.logical_dtype)
    if path.source_ops and points.source in residue.arrays():
        logical = _patched(points, read, logical, residue)
    expected = nearest(points.target, points.target_at, values.encode(logical, path.target_ops, path.target_dtype))
    found = np.ascontiguousarray(target.elements(points.target, points.target_at))
    if found.dtype != expected.dtype:
        reason = f"The array is stored as {found.dtype}, not {expected.dtype}."
        return [Diagnostic("VERIFICATION_FAILED", reason, subject=points.target)]
    bits = np.dtype(f"u{expected.dtype.itemsize}")
    wrong = np.flatnonzero(expected.view(bits) != found.view(bits))
    return [_difference(points, int(i), expected, found) for i in wrong[:1]]


def _before(stored: AnyArray, path: ValuePath) -> AnyArray:
    """Values before the source's operations, [n]; what `values.decode` says of them, told once more."""
    stored = np.ascontiguousarray(stored)
    plain = values.dtype_of(path.logical_dtype)
    with np.errstate(all="ignore"):
        found = stored.astype(np.float32)
        for op in path.source_ops[::-1]:
            found = (np.divide if op.kind == "scale" else np.subtract)(found, values.factor_of(op))
        recorded = path.recorded_dtype
        if recorded in ("", path.logical_dtype) or values.itemsize(recorded) >= found.itemsize:
            return found.astype(plain)
        once = found.astype(values.dtype_of(recorded)).astype(np.float32)
        again = once
        for op in path.source_ops:
            again = (np.multiply if op.kind == "scale" else np.add)(again, values.factor_of(op))
        bits = f"u{stored.itemsize}"
        as_recorded = again.astype(stored.dtype).view(bits) == stored.view(bits)
        return np.where(as_recorded, once, found).astype(plain)


def check_names(plan: Plan, present: frozenset[str]) -> list[Diagnostic]:
    """Every array of the plan that the second reader does not find."""
    return [
        Diagnostic("VERIFICATION_FAILED", f"{name} is not in the output.", subject=name)
        for name in plan.arrays
        if name not in present
    ]


def _patched(points: Points, read: AnyArray, logical: AnyArray, residue: residue_lib.Residue) -> AnyArray:
    out = logical.copy()
    for i, coordinate in enumerate(points.source_at):
        box = tuple((int(n), int(n) + 1) for n in coordinate)
        one = out[i : i + 1].reshape((1,) * len(box))
        residue.peek(points.source, box, read[i : i + 1].reshape((1,) * len(box)), one)
    return out


def _difference(points: Points, i: int, expected: AnyArray, found: AnyArray) -> Diagnostic:
    where = tuple(int(n) for n in points.target_at[i])
    origin = tuple(int(n) for n in points.source_at[i])
    reason = (
        f"Element {where} of {points.target} is {found[i]!s}, but element {origin} of {points.source} "
        f"makes it {expected[i]!s}."
    )
    return Diagnostic("VERIFICATION_FAILED", reason, subject=points.target)


def _some_units(array: ArrayPlan, count: int, chooser: random.Random) -> Sequence[Unit]:
    counts = [math.ceil(n / c) for n, c in zip(array.info.shape, array.chunk, strict=True)]
    total = math.prod(counts)
    chosen = chooser.sample(range(total), min(total, count))
    units = []
    for flat in chosen:
        box = []
        for n, c, count in reversed(list(zip(array.info.shape, array.chunk, counts, strict=True))):
            flat, digit = divmod(flat, count)
            box.append((digit * c, min((digit + 1) * c, n)))
        units.append(Unit(array, tuple(reversed(box))))
    return units


def _points(move: Move, chooser: random.Random) -> Points:
    digits = [[0] * len(move.dims), [dim.count - 1 for dim in move.dims]]
    while len(digits) < _POINTS_PER_UNIT:
        digits.append([chooser.randrange(dim.count) for dim in move.dims])
    source_at = np.tile(np.array(move.source_base, np.int64).reshape(1, -1), (len(digits), 1))
    target_at = np.tile(np.array(move.target_base, np.int64).reshape(1, -1), (len(digits), 1))
    for row, digit in enumerate(digits):
        for value, dim in zip(digit, move.dims, strict=True):
            source_at[row, dim.source_axis] += value * dim.source_weight
            target_at[row, dim.target_axis] += value * dim.target_weight
    return Points(move.source, source_at, move.target, target_at)
