"""Runs a composition on whole arrays in memory, by nothing but its own strides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mappings.language.arrays import BoundOp
from mappings.language.composition import Composition
from mappings.language.regions import Move
from tests.oracles.llama import Array, Arrays, dtype_of

_CONSTANTS = {"ZERO": 0.0, "ONE": 1.0}


def run(composition: Composition, arrays: Mapping[str, Array], dtype: str) -> Arrays:
    """The target arrays.

    Values are rounded to `dtype`, multiplied or added to in float32, and rounded to `dtype` once more.

    Args:
        composition: what to move.
        arrays: the source arrays by name.
        dtype: name of the dtype of every target array.

    Raises:
        AssertionError: a move leaves an array, or an element of a target is not written exactly once.
    """
    goal = dtype_of(dtype)
    shapes = {move.target: tuple(move.target_shape) for move in composition.moves}
    shapes |= {move.target: tuple(move.target_shape) for fill in composition.fills for move in fill.moves}
    assert set(shapes) == set(composition.produced), f"{sorted(shapes)} instead of {sorted(composition.produced)}"
    targets = {name: np.zeros(shape, goal) for name, shape in shapes.items()}
    written = {name: np.zeros(shape, np.uint8) for name, shape in shapes.items()}
    for move in composition.moves:
        move_into(move, arrays[move.source].astype(goal), targets[move.target])
        count_into(move, written[move.target])
    for fill in composition.fills:
        for move in fill.moves:
            move_into(move, np.full(move.source_shape, _CONSTANTS[fill.kind], goal), targets[move.target])
            count_into(move, written[move.target])
    for name, counts in written.items():
        assert (counts == 1).all(), f"{name}: elements are written {np.unique(counts).tolist()} times"
    return targets


def move_into(move: Move, source: Array, target: Array) -> None:
    """Writes the elements of one move."""
    _target_view(move, target)[...] = operated(move, _source_view(move, source))


def count_into(move: Move, counts: Array) -> None:
    """Adds one to the elements of a target-shaped array that a move writes."""
    written = _target_view(move, counts)
    written[...] = written + 1


def mark_source(move: Move, marks: Array) -> None:
    """Sets the elements of a source-shaped array that a move reads."""
    _source_view(move, marks)[...] = True


def broken_checks(composition: Composition, arrays: Mapping[str, Array]) -> list[str]:
    """What the composition demands of the source and the arrays do not keep, one line a region."""
    problems = [
        f"{check.tensor}: {check.move.source} is not zero"
        for check in composition.zeros
        if np.any(_source_view(check.move, arrays[check.move.source]) != 0)
    ]
    problems += [
        f"{check.kind}: {check.move.source} is not {check.move.target}"
        for check in composition.checks
        if _source_view(check.move, arrays[check.move.source]).tobytes()
        != _target_view(check.move, arrays[check.move.target]).tobytes()
    ]
    return sorted(set(problems))


def _source_view(move: Move, array: Array) -> Array:
    assert array.shape == tuple(move.source_shape), f"{move.source}: {array.shape}, not {move.source_shape}"
    places = [(dim.count, dim.source_axis, dim.source_weight) for dim in move.dims]
    return _view(array, move.source_base, places)


def _target_view(move: Move, array: Array) -> Array:
    places = [(dim.count, dim.target_axis, dim.target_weight) for dim in move.dims]
    return _view(array, move.target_base, places)


def _view(array: Array, base: Sequence[int], places: Sequence[tuple[int, int, int]]) -> Array:
    """The elements base + sum of i * weight on the dims' axes, with one axis for each dim."""
    assert array.flags.c_contiguous
    last = list(base)
    for count, axis, weight in places:
        last[axis] += (count - 1) * weight
    assert all(0 <= start <= end < size for start, end, size in zip(base, last, array.shape, strict=True)), (
        f"the box from {list(base)} to {last} leaves an array of shape {array.shape}"
    )
    corner = array[tuple(slice(start, None) for start in base)]
    counts = [count for count, _, _ in places]
    strides = [weight * array.strides[axis] for _, axis, weight in places]
    return as_strided(corner, counts, strides)


def operated(move: Move, values: Array) -> Array:
    """Values as the target stores them: float32 arithmetic, one rounding to the dtype of the values."""
    if not move.source_ops and not move.target_ops:
        return values
    wide = values.astype(np.float32)
    with np.errstate(over="ignore"):
        for op in reversed(move.source_ops):
            wide = wide / _operand(op) if op.kind == "scale" else wide - _operand(op)
        for op in move.target_ops:
            wide = wide * _operand(op) if op.kind == "scale" else wide + _operand(op)
        return wide.astype(values.dtype)


def _operand(op: BoundOp) -> np.float32:
    if op.factor_dtype:
        return np.float32(dtype_of({"bf16": "bfloat16"}.get(op.factor_dtype, op.factor_dtype)).type(op.value))
    return np.float32(op.value)
