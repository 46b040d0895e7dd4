"""Finds the entries of a residue that lie in a box, in time and memory that do not grow with the residue.

Flat indices in ascending order are looked up by bisection, run by run of the box. Entries in no order, as older files
may have them, are looked through; in blocks, so that only time grows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from converters.engine.values import AnyArray
from converters.formats.base import Region

Found = tuple[AnyArray, tuple[AnyArray, ...]]
"""Positions of entries, and their coordinates in the array, axis by axis."""

# Entries or runs handled at a time.
_BLOCK = 1 << 16


def ascending(index: AnyArray) -> bool:
    """Whether flat indices are in order."""
    starts = range(0, index.size, _BLOCK)
    return all(bool((part[:-1] <= part[1:]).all()) for part in (index[first : first + _BLOCK + 1] for first in starts))


def inside(index: AnyArray, in_order: bool, shape: Sequence[int], box: Region) -> Iterator[Found]:
    """The entries in a box, some at a time.

    Args:
        index: int64 [n], flat C-order indices into the array.
        in_order: what `ascending` says of them.
        shape: of the array.
        box: the region that is asked for.
    """
    if any(start >= stop for start, stop in box):
        return
    if not shape:
        yield np.arange(index.size), ()
        return
    first, last = (int(np.ravel_multi_index(corner, tuple(shape))) for corner in _corners(box))
    found = _looked_up(index, shape, box, first, last) if in_order else _looked_through(index, first, last)
    for positions in found:
        where = np.unravel_index(index[positions], tuple(shape))
        within = np.ones(positions.size, bool)
        for axis, (start, stop) in zip(where, box, strict=True):
            within &= (axis >= start) & (axis < stop)
        if within.any():
            yield positions[within], tuple(axis[within] for axis in where)


def _corners(box: Region) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(start for start, _ in box), tuple(stop - 1 for _, stop in box)


def _looked_through(index: AnyArray, first: int, last: int) -> Iterator[AnyArray]:
    for start in range(0, index.size, _BLOCK):
        part = index[start : start + _BLOCK]
        near = np.flatnonzero((part >= first) & (part <= last))
        if near.size:
            yield near + start


def _looked_up(index: AnyArray, shape: Sequence[int], box: Region, first: int, last: int) -> Iterator[AnyArray]:
    low, high = (int(n) for n in np.searchsorted(index, [first, last + 1]))
    # The axes before this one are walked; from it on, the box is one run of flat indices.
    axis = max((i for i, (extent, n) in enumerate(zip(box, shape, strict=True)) if extent != (0, n)), default=0)
    runs = math.prod(stop - start for start, stop in box[:axis])
    if runs > high - low:
        for start in range(low, high, _BLOCK):
            yield np.arange(start, min(start + _BLOCK, high))
        return
    inner = math.prod(shape[axis + 1 :])
    start, stop = box[axis]
    extents = [b - a for a, b in box[:axis]]
    for number in range(0, runs, _BLOCK):
        at = np.arange(number, min(number + _BLOCK, runs))
        outer = np.zeros(at.size, np.int64)
        for digits, (a, _), n in zip(np.unravel_index(at, extents) if extents else (), box, shape, strict=False):
            outer = outer * n + digits + a
        begin = (outer * shape[axis] + start) * inner
        yield from _ranges(
            low + np.searchsorted(index[low:high], begin),
            low + np.searchsorted(index[low:high], begin + (stop - start) * inner),
        )


def _ranges(starts: AnyArray, stops: AnyArray) -> Iterator[AnyArray]:
    """All numbers of some ranges, in blocks."""
    ends = np.cumsum(stops - starts)
    total = int(ends[-1]) if ends.size else 0
    for first in range(0, total, _BLOCK):
        number = np.arange(first, min(first + _BLOCK, total))
        of = np.searchsorted(ends, number, side="right")
        yield stops[of] - (ends[of] - number)
