"""Copies between strided views with the fewest and longest runs; transposes as 2-D tiles.

A general permutation in one call is ten times slower than memory in every library (NumPy, torch, TensorStore, jax).
So a copy is reduced to loops over two shapes only: runs, and 2-D transposes of same-width integers.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

AnyArray = np.ndarray[Any, np.dtype[Any]]
Axis = tuple[int, int, int]
"""(count, source stride in bytes, target stride in bytes)."""

# 512 x 512 sixteen-bit elements fit the second-level cache twice; measured best with OpenCV.
_TILE_ROWS = 512
_TILE_COLUMNS = 512
# Below this many elements a transpose has no advantage over NumPy's own loop.
_SHORT = 16
# Columns gathered at a time, so that the scratch block stays in the cache.
_GATHER = 1024

# Same-width types that OpenCV transposes; only bits move, so signs and NaNs do not matter.
_CARRIER = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}


def fuse(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Sorts axes by target stride, drops those of one element and joins neighbours that run on in both arrays."""
    out: list[Axis] = []
    for count, source, target in sorted(axes, key=lambda axis: -axis[2]):
        if count == 1:
            continue
        if out and out[-1][1] == source * count and out[-1][2] == target * count:
            out[-1] = (out[-1][0] * count, source, target)
            continue
        out.append((count, source, target))
    return tuple(out)


def copy(source: AnyArray, target: AnyArray, axes: Sequence[Axis]) -> None:
    """Copies elements of equal width from `source` to `target`.

    Args:
        source: an array whose first element is the first one to copy.
        target: a writable array whose first element is the first one to fill.
        axes: counts and byte strides, in any order; no target element twice.

    Raises:
        ValueError: if the element widths differ.
    """
    width = source.dtype.itemsize
    if width != target.dtype.itemsize:
        raise ValueError(f"elements of {width} and {target.dtype.itemsize} bytes")
    kind = _CARRIER.get(width)
    if kind is None:
        raise ValueError(f"elements of {width} bytes")
    if any(count == 0 for count, _, _ in axes):
        return
    fused = fuse(axes)
    _copy(source.view(kind) if source.dtype != kind else source, target.view(kind), fused, width)


def _copy(source: AnyArray, target: AnyArray, axes: tuple[Axis, ...], width: int) -> None:
    across = _find(axes, lambda axis: axis[1] == width)
    last = len(axes) - 1
    if across is None or across == last or axes[last][2] != width:
        _plain(source, target, axes)
    elif axes[across][0] < _SHORT:
        _transpose_then_scatter(source, target, axes, width)
    elif axes[last][0] < _SHORT:
        _gather_then_transpose(source, target, axes, across, width)
    else:
        outer = [axis for i, axis in enumerate(axes) if i not in (across, last)]
        pair = (axes[across], axes[last])
        for source_offset, target_offset in _offsets(outer):
            _transpose(_view(source, pair, 1, source_offset), _view(target, pair, 2, target_offset))


def _plain(source: AnyArray, target: AnyArray, axes: Sequence[Axis]) -> None:
    np.copyto(_view(target, axes, 2), _view(source, axes, 1))


def _gather_then_transpose(source: AnyArray, target: AnyArray, axes: tuple[Axis, ...], across: int, width: int) -> None:
    """Rows that end up side by side are gathered into a block, which is then one wide transpose."""
    block, outer = _contiguous_block(axes, across, side=2, width=width)
    rows = math.prod(count for count, _, _ in block)
    if rows < _SHORT:
        _plain(source, target, axes)
        return
    count, _, stride = axes[across]
    step = min(count, _GATHER)
    scratch = np.empty((rows, step), target.dtype)
    gather = [(n, source_stride, target_stride * step) for n, source_stride, target_stride in block]
    for source_offset, target_offset in _offsets(outer):
        for start in range(0, count, step):
            columns = min(step, count - start)
            row = (columns, width, width)
            _copy(_shifted(source, source_offset + start * width), scratch, fuse([*gather, row]), width)
            goal = ((columns, 0, stride), (rows, 0, width))
            _transpose(scratch[:, :columns].T, _view(target, goal, 2, target_offset + start * stride))


def _transpose_then_scatter(source: AnyArray, target: AnyArray, axes: tuple[Axis, ...], width: int) -> None:
    """One wide transpose into a block, whose rows are then scattered as runs."""
    last = len(axes) - 1
    block, outer = _contiguous_block(axes, last, side=1, width=width)
    rows = math.prod(count for count, _, _ in block)
    if rows < _SHORT:
        _plain(source, target, axes)
        return
    count, stride, _ = axes[last]
    step = min(count, _GATHER)
    scratch = np.empty((rows, step), target.dtype)
    scatter = [(n, source_stride * step, target_stride) for n, source_stride, target_stride in block]
    for source_offset, target_offset in _offsets(outer):
        for start in range(0, count, step):
            columns = min(step, count - start)
            origin = ((rows, width, 0), (columns, stride, 0))
            _transpose(_view(source, origin, 1, source_offset + start * stride), scratch[:, :columns])
            row = (columns, width, width)
            _copy(scratch, _shifted(target, target_offset + start * width), fuse([*scatter, row]), width)


def _contiguous_block(axes: Sequence[Axis], without: int, side: int, width: int) -> tuple[list[Axis], list[Axis]]:
    """The axes that together fill one contiguous stretch on a side, and all others but `without`."""
    block: list[Axis] = []
    left = [axis for i, axis in enumerate(axes) if i != without]
    expected = width
    while True:
        found = next((i for i, axis in enumerate(left) if axis[side] == expected), None)
        if found is None:
            return block, left
        axis = left.pop(found)
        block.insert(0, axis)
        expected *= axis[0]


def _transpose(source: AnyArray, target: AnyArray) -> None:
    """target[i, j] = source[i, j], where source is contiguous along i and target along j."""
    transpose = _cv2_transpose()
    rows, columns = target.shape
    for i in range(0, rows, _TILE_ROWS):
        for j in range(0, columns, _TILE_COLUMNS):
            tile = source[i : i + _TILE_ROWS, j : j + _TILE_COLUMNS]
            goal = target[i : i + _TILE_ROWS, j : j + _TILE_COLUMNS]
            if transpose is None or min(tile.shape) < 2:
                np.copyto(goal, tile)
            else:
                transpose(tile.T, goal)


@functools.lru_cache(maxsize=1)
def _cv2_transpose() -> Callable[[AnyArray, AnyArray], Any] | None:
    """OpenCV's transpose of a strided tile into a strided tile; None where OpenCV is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(1)
    return lambda tile, goal: cv2.transpose(tile, dst=goal)


def _offsets(axes: Sequence[Axis]) -> Iterator[tuple[int, int]]:
    """Byte offsets in source and target of every combination of the axes' indices."""
    for index in itertools.product(*(range(count) for count, _, _ in axes)):
        steps = list(zip(index, axes, strict=True))
        yield sum(i * axis[1] for i, axis in steps), sum(i * axis[2] for i, axis in steps)


def _view(array: AnyArray, axes: Sequence[Axis], side: int, offset: int = 0) -> AnyArray:
    return as_strided(_shifted(array, offset), [axis[0] for axis in axes], [axis[side] for axis in axes])


def _shifted(array: AnyArray, offset: int) -> AnyArray:
    """The memory of an array from a byte offset on, as an array of one element."""
    elements = offset // array.dtype.itemsize
    return as_strided(array, (elements + 1,), (array.dtype.itemsize,))[elements:]


def _find(axes: Sequence[Axis], test: Callable[[Axis], bool]) -> int | None:
    return next((i for i, axis in enumerate(axes) if test(axis)), None)
