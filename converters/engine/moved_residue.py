"""Restates a residue where elements move to other arrays: the same bits, by the names and indices of the target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from converters.engine.plan import ArrayPlan, Box
from converters.engine.residue import Part, Residue
from converters.engine.values import AnyArray
from mappings.language import regions
from mappings.language.regions import Dim, Move

_Kind = tuple[str, str]
_Columns = tuple[AnyArray, AnyArray, AnyArray]


def parts(residue: Residue, array: ArrayPlan) -> Iterator[Part]:
    """The entries of a residue that lie in what moves into an array: for each of its units one part of each kind."""
    if not any(residue.parts(move.source) for move in array.moves):
        return
    for box in array.boxes():
        found: dict[_Kind, list[_Columns]] = {}
        for move in array.parts_in(box):
            for kind, columns in _taken(residue, move):
                found.setdefault(kind, []).append(columns)
        for kind, taken in found.items():
            yield _part(array, box, kind, taken)


def _taken(residue: Residue, move: Move) -> Iterator[tuple[_Kind, _Columns]]:
    """What moves, in blocks: indices in the target, stored and original bits."""
    box = regions.source_box(move)
    for part in residue.meeting(move.source, box):
        for positions, where in part.inside(box):
            moves, index = _moved(where, positions.size, move)
            if index.size:
                taken = positions[moves]
                yield (part.stored_dtype, part.original_dtype), (index, part.stored[taken], part.original[taken])


def _moved(where: tuple[AnyArray, ...], count: int, move: Move) -> tuple[AnyArray, AnyArray]:
    """Which of the places in the source move, and their flat indices in the target."""
    inside = np.ones(count, bool)
    target = [np.full(count, base, np.int64) for base in move.target_base]
    for axis, base in enumerate(move.source_base):
        rest = where[axis].astype(np.int64) - base
        for dim in _digits(move, axis):
            digit = rest // dim.source_weight
            inside &= (digit >= 0) & (digit < dim.count)
            rest -= digit * dim.source_weight
            target[dim.target_axis] += digit * dim.target_weight
        inside &= rest == 0
    kept = tuple(axis[inside] for axis in target)
    if not kept:
        return inside, np.zeros(int(inside.sum()), np.int64)
    return inside, np.ravel_multi_index(kept, move.target_shape).astype(np.int64)


def _digits(move: Move, axis: int) -> list[Dim]:
    """The loops over an axis of the source, major first."""
    return sorted((dim for dim in move.dims if dim.source_axis == axis), key=lambda dim: -dim.source_weight)


def _part(array: ArrayPlan, box: Box, kind: _Kind, taken: list[_Columns]) -> Part:
    """One part in ascending order, as `Part.inside` looks entries up fastest."""
    index, stored, original = (np.concatenate(columns) for columns in zip(*taken, strict=True))
    order = np.argsort(index, kind="stable")
    info = array.info
    return Part(info.name, info.shape, box, *kind, index[order], stored[order], original[order])
