"""Boxes in which two sides are compared: whole chunks of one or both, pieces of a large one, and what these decode."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A piece may be so many times the size that was asked for, or a so small part of it, to end where its chunk ends.
_LARGER = 4
_SMALLER = 8


def grown(shape: Sequence[int], chunk: Sequence[int] | None, itemsize: int, limit: int) -> tuple[int, ...]:
    """A box of as many whole chunks as `limit` bytes hold, and of one where that is more.

    Args:
        shape: of the array.
        chunk: its chunks, None where any region costs the same; then boxes are contiguous ranges.
        itemsize: bytes of an element.
        limit: bytes of a box.
    """
    box = [max(1, min(n, size)) for n, size in zip(chunk or [1] * len(shape), shape, strict=True)]
    for axis in reversed(range(len(box))):
        times = limit // (math.prod(box) * itemsize)
        box[axis] = min(max(shape[axis], 1), box[axis] * max(times, 1))
        if box[axis] < shape[axis]:
            break
    return tuple(box)


def pieces(
    shape: Sequence[int], chunk: Sequence[int], step: Sequence[int], itemsize: int, limit: int
) -> tuple[int, ...]:
    """A box of at most about `limit` bytes, none of which crosses a border of the chunks; a chunk where none is near.

    Args:
        shape: of the array.
        chunk: what is cut.
        step: what boxes are multiples of, each a divisor of the chunk's size unless that is the whole axis.
        itemsize: bytes of an element.
        limit: bytes of a box.
    """
    box = list(chunk)
    for axis, size in enumerate(chunk):
        rest = math.prod(box) // size * itemsize
        if rest * size <= limit:
            break
        box[axis] = _piece(size, min(step[axis], size), max(limit // rest, 1), whole=size >= shape[axis])
    return tuple(box)


def decoded(shape: Sequence[int], chunk: Sequence[int], box: Sequence[int], itemsize: int) -> int:
    """Bytes of the chunks that all boxes of a grid touch, each chunk as often as it is touched."""
    axes = (
        sum(min(-(-min(start + step, n) // size) * size, n) - start // size * size for start in range(0, n, step))
        for n, size, step in zip(shape, chunk, box, strict=True)
    )
    return math.prod(axes) * itemsize


def _piece(size: int, step: int, wanted: int, *, whole: bool) -> int:
    if whole:
        return min(size, max(step, wanted // step * step))
    fitting = [multiple for multiple in range(step, size + 1, step) if size % multiple == 0]
    below = max((multiple for multiple in fitting if multiple <= wanted), default=0)
    above = min((multiple for multiple in fitting if multiple > wanted), default=size)
    if below * _SMALLER >= wanted:
        return below
    return above if above <= wanted * _LARGER else size
