"""Chooses how arrays are cut: chunks that need no second decoding of the source, and slabs that files take in order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from mappings.language.regions import Dim, Move

ChunkOf = Callable[[str], tuple[int, ...] | None]

# An array up to this size is one chunk: a thousand tiny chunks cost more than they save.
_SMALL_ARRAY = 1 << 20
# A reader that wants whole rows of the array this one came from needs a slab of chunks; it must fit small budgets.
_SLAB_LIMIT = 32 << 20


def cuts(shape: Sequence[int], moves: Iterable[Move], chunk_of: ChunkOf) -> tuple[int, ...]:
    """Where boxes of a target may be cut so that no chunk of a source must be decoded for two of them.

    Returns:
        For each axis a size: where moves are not offset against the chunks and chunks end with whole digits, boxes
        whose borders are multiples of it share no chunk along this axis. Elsewhere some chunks are decoded more than
        once, which the plan counts. 1 where the sources are not chunked; the whole axis where any cut splits chunks.
    """
    out = [1] * len(shape)
    for move in moves:
        chunk = chunk_of(move.source)
        if chunk is None:
            continue
        for axis, size in enumerate(shape):
            out[axis] = min(math.lcm(out[axis], _cut(move, axis, size, chunk)), max(size, 1))
    return tuple(out)


def sharing(moves: Sequence[Move], chunk_of: ChunkOf) -> int:
    """How many arrays take their part of one source chunk, at most: the layers of a stack that one chunk spans."""
    most = 1
    for move in moves:
        chunk = chunk_of(move.source)
        if chunk is None:
            continue
        inside = math.prod(min(dim.count, _steps(dim, move, chunk)) for dim in move.dims)
        whole = math.prod(min(size, full) for size, full in zip(chunk, move.source_shape, strict=True))
        most = max(most, -(-whole // max(inside, 1)))
    return most


def seen_by_cuts(moves: Iterable[Move], chunk_of: ChunkOf) -> tuple[object, ...]:
    """All that `cuts`, `sharing` and `rows_axis` look at: arrays that agree in this and in shape are cut alike."""
    seen: dict[object, None] = {}
    for move in moves:
        chunk = chunk_of(move.source)
        bases = () if chunk is None else tuple(map(int.__mod__, move.source_base, chunk))
        seen[move.dims, move.source_shape, chunk, tuple(map(bool, bases))] = None
    return tuple(seen)


def free_chunk(
    shape: Sequence[int],
    stacked: Iterable[int],
    slab_axis: int | None,
    aligned: Sequence[int],
    itemsize: int,
    limit: int,
) -> tuple[int, ...]:
    """A grid for an array whose chunks are ours to choose.

    One layer per chunk on stacked axes, since a reader wants a layer at a time; then the axis that was the source's
    rows, so that the way back finds whole rows in few chunks; the rest is cut from the first axis on, which is the one
    that readers shard. Small arrays stay whole. Borders follow those of the source's chunks where it has any.

    Args:
        shape: of the array.
        stacked: positions of its layer axes.
        slab_axis: the axis along which the source's rows lie, if known.
        aligned: what `cuts` returned.
        itemsize: bytes of an element.
        limit: bytes of a chunk, at most, unless one element is larger.
    """
    if math.prod(shape) * itemsize <= min(limit, _SMALL_ARRAY):
        return tuple(max(n, 1) for n in shape)
    fixed = set(stacked)
    chunk = [1 if axis in fixed else max(n, 1) for axis, n in enumerate(shape)]
    free = [axis for axis in range(len(shape)) if axis not in fixed]
    if slab_axis is not None and slab_axis in free:
        _shrink(chunk, [slab_axis], itemsize, max(limit, _SLAB_LIMIT))
    _shrink(chunk, free, itemsize, limit)
    return tuple(
        size if axis in fixed else _follow(size, aligned[axis], shape[axis]) for axis, size in enumerate(chunk)
    )


def slab(shape: Sequence[int], aligned: Sequence[int], itemsize: int, limit: int) -> tuple[int, ...]:
    """Boxes for an array that lies in C order in a file, of at most `limit` bytes where that is possible.

    Contiguous ranges where the source has no chunks or its chunks allow it; else boxes that take whole chunks; below
    the size of a chunk's image, parts of it, which means that it is decoded more than once.
    """
    box = [max(n, 1) for n in shape]
    for axis, size in enumerate(box):
        rest = math.prod(box) // size * itemsize
        if rest * size <= limit:
            return tuple(box)
        step = min(aligned[axis], size)
        box[axis] = max(step, min(size, limit // rest // step * step))
    _shrink(box, list(range(len(box))), itemsize, limit)
    return tuple(box)


def aligned_box(shape: Sequence[int], aligned: Sequence[int]) -> tuple[int, ...]:
    """The smallest box that shares no chunk with another."""
    return tuple(max(1, min(size, step)) for size, step in zip(shape, aligned, strict=True))


def rows_axis(moves: Iterable[Move]) -> int | None:
    """The target axis along which the first axis of a matrix's source lies."""
    for move in moves:
        outer = [dim for dim in move.dims if dim.source_axis == 0 and dim.count > 1]
        if outer and len(move.source_shape) > 1:
            return max(outer, key=lambda dim: dim.source_weight).target_axis
    return None


def _cut(move: Move, axis: int, size: int, chunk: tuple[int, ...]) -> int:
    """The cut along one target axis that one chunked source asks for."""
    dims = [dim for dim in move.dims if dim.target_axis == axis and dim.count > 1]
    if not dims:
        # One position, such as a layer of a stack that is filled from an array of its own.
        return 1
    outer = 0
    for dim in sorted(dims, key=lambda dim: -dim.target_weight):
        steps = _steps(dim, move, chunk)
        if steps >= dim.count:
            # Whole within a chunk: what is cut further in would come back periodically.
            return outer or size
        if steps > 1:
            return steps * dim.target_weight
        outer = dim.target_weight
    return outer or size


def _steps(dim: Dim, move: Move, chunk: tuple[int, ...]) -> int:
    """How many steps of a dim lie in one chunk of the source."""
    size = chunk[dim.source_axis]
    if move.source_base[dim.source_axis] % size == 0 and size >= move.source_shape[dim.source_axis]:
        return dim.count
    return max(1, min(dim.count, size // dim.source_weight))


def _follow(size: int, step: int, whole: int) -> int:
    """A size near the given one that is a multiple or a divisor of a step."""
    if step <= 1 or size >= whole:
        return size
    if size >= step:
        return size // step * step
    parts = -(-step // size)
    while step % parts and parts < step:
        parts += 1
    if step // parts * 4 >= size:
        return step // parts
    # No divisor is near: the whole step where it is not much larger, else a cut that decodes some chunks twice.
    return step if step <= 4 * size else size


def _shrink(chunk: list[int], axes: list[int], itemsize: int, limit: int) -> None:
    for axis in axes:
        rest = math.prod(chunk) // max(chunk[axis], 1) * itemsize
        if rest * chunk[axis] <= limit:
            return
        parts = min(math.ceil(chunk[axis] * rest / limit), chunk[axis])
        # Equal parts, if a few more of them make it so: a reader's shards then end where chunks do.
        even = next((more for more in range(parts, parts * 3 // 2 + 1) if chunk[axis] % more == 0), parts)
        chunk[axis] = math.ceil(chunk[axis] / even)
