"""For tests: running a composition with NumPy, and layouts from texts. A conversion is the engine's, not this."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mappings.language.arrays import BoundOp
from mappings.language.composition import Composition
from mappings.language.family import Family, bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.loader import parse_family, parse_layout
from mappings.language.regions import Move

Values = np.ndarray[Any, np.dtype[Any]]


def family_of(text: str, config: Mapping[str, object]) -> Family:
    """A bound family from its text; messages call its file family.textproto."""
    return bind_family(parse_family(text), config)


def layout_of(family: Family, text: str, **options: object) -> Layout:
    """A bound layout from its text; messages call its file layout.textproto."""
    return bind_layout(family, parse_layout(text, "layout.textproto", family.name), options)


def numbered(layout: Layout, *, mirrors: bool = False) -> dict[str, Values]:
    """For each array that is not optional, values that no other element of any array has; padding is not zero."""
    arrays: dict[str, Values] = {}
    first = 1
    for name, array in layout.arrays.items():
        if not array.optional and (mirrors or not array.mirror):
            values = np.arange(first, first + int(np.prod(array.shape)), dtype=np.int64).reshape(array.shape)
            arrays[name] = values
            first += values.size
    return arrays


def run(composition: Composition, source: Mapping[str, Values], dtype: Any = np.float64) -> dict[str, Values]:
    """The produced arrays. Raises AssertionError where an element is written twice or not at all."""
    arrays = {name: np.zeros(composition.target.arrays[name].shape, dtype) for name in composition.produced}
    written = {name: np.zeros(values.shape, bool) for name, values in arrays.items()}
    for move in composition.moves:
        place(move, _applied(source[move.source], move), arrays, written)
    for fill in composition.fills:
        for move in fill.moves:
            place(move, _applied(_filling(fill.kind, fill.mean_of, source, move), move), arrays, written)
    for name, marks in written.items():
        assert marks.all(), f"{name} is not written everywhere"
    return arrays


def place(move: Move, source: Values, arrays: Mapping[str, Values], written: Mapping[str, Values]) -> None:
    """Copies the elements of a move one dim at a time, by index arrays rather than by strides."""
    assert source.shape == move.source_shape, (move.source, source.shape, move.source_shape)
    from_index, to_index = indices(move)
    target, marks = arrays[move.target], written[move.target]
    assert target.shape == move.target_shape, (move.target, target.shape, move.target_shape)
    assert not marks[to_index].any(), f"{move.target} is written twice"
    target[to_index] = source[from_index]
    marks[to_index] = True


def indices(move: Move) -> tuple[tuple[Values, ...], tuple[Values, ...]]:
    """Index arrays of all elements of a move, in the source and in the target."""
    source = [np.array(base) for base in move.source_base]
    target = [np.array(base) for base in move.target_base]
    for dim in move.dims:
        steps = np.arange(dim.count)
        source = [index[..., None] + 0 * steps for index in source]
        target = [index[..., None] + 0 * steps for index in target]
        source[dim.source_axis] = source[dim.source_axis] + steps * dim.source_weight
        target[dim.target_axis] = target[dim.target_axis] + steps * dim.target_weight
    return tuple(source), tuple(target)


def _applied(values: Values, move: Move) -> Values:
    for op in reversed(move.source_ops):
        values = _inverse(op, values)
    for op in move.target_ops:
        values = values * op.value if op.kind == "scale" else values + op.value
    return values


def _inverse(op: BoundOp, values: Values) -> Values:
    return values / op.value if op.kind == "scale" else values - op.value


def _filling(kind: str, mean_of: Iterable[Move], source: Mapping[str, Values], move: Move) -> Values:
    if kind != "MEAN":
        return np.full(move.source_shape, {"ZERO": 0.0, "ONE": 1.0}[kind])
    moves = list(mean_of)
    logical = {"": np.zeros(moves[0].target_shape)}
    marks = {"": np.zeros(moves[0].target_shape, bool)}
    for part in moves:
        place(part, _applied(source[part.source], part), logical, marks)
    return np.broadcast_to(logical[""].mean(axis=0), move.source_shape)


def combinations(**values: Iterable[object]) -> list[dict[str, object]]:
    """All combinations of named values."""
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
