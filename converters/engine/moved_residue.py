"""Restates a residue where elements move to other arrays: the same bits, by the names and indices of the target."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from converters.engine.residue import Part, Residue
from converters.engine.values import AnyArray
from mappings.language import regions
from mappings.language.regions import Dim, Move


def parts(residue: Residue, moves: Iterable[Move]) -> list[Part]:
    """The entries of a residue that lie in what moves, as entries for the moves' target: one part for each kind."""
    found: dict[tuple[str, str, str], list[Part]] = {}
    for move in moves:
        for part in residue.parts(move.source):
            moved = _moved(part, move)
            if moved.index.size:
                found.setdefault((moved.array, moved.stored_dtype, moved.original_dtype), []).append(moved)
    return [_joined(same) for same in found.values()]


def _moved(part: Part, move: Move) -> Part:
    where = np.unravel_index(part.index, part.shape) if part.shape else ()
    inside = np.ones(part.index.size, bool)
    target = [np.full(part.index.size, base, np.int64) for base in move.target_base]
    for axis, base in enumerate(move.source_base):
        rest = where[axis].astype(np.int64) - base
        for dim in _digits(move, axis):
            digit = rest // dim.source_weight
            inside &= (digit >= 0) & (digit < dim.count)
            rest -= digit * dim.source_weight
            target[dim.target_axis] += digit * dim.target_weight
        inside &= rest == 0
    kept: list[AnyArray] = [axis[inside] for axis in target]
    shape = move.target_shape
    index = np.ravel_multi_index(kept, shape).astype(np.int64) if shape else np.zeros(int(inside.sum()), np.int64)
    return dataclasses.replace(
        part,
        array=move.target,
        shape=shape,
        box=regions.target_box(move),
        index=index,
        stored=part.stored[inside],
        original=part.original[inside],
    )


def _digits(move: Move, axis: int) -> list[Dim]:
    """The loops over an axis of the source, major first."""
    return sorted((dim for dim in move.dims if dim.source_axis == axis), key=lambda dim: -dim.source_weight)


def _joined(same: Sequence[Part]) -> Part:
    first = same[0]
    return dataclasses.replace(
        first,
        box=tuple((0, size) for size in first.shape),
        index=np.concatenate([part.index for part in same]),
        stored=np.concatenate([part.stored for part in same]),
        original=np.concatenate([part.original for part in same]),
    )
