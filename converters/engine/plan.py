"""The plan: which array is written in which units, from which moves, by which value path."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping

from converters.engine import values
from converters.engine.values import ValuePath
from converters.formats.base import TensorInfo
from mappings.language.regions import Move

# An array up to this size is one chunk: a thousand tiny chunks cost more than they save.
_SMALL_ARRAY = 1 << 20

Box = tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class ArrayPlan:
    """One array of the output.

    Attributes:
        info: name, shape and stored dtype.
        chunk: box sizes of its units.
        path: what happens to its values.
        moves: what fills it.
        read_bytes: what one read of its source holds in memory.
        ones: moves whose targets hold ones; what neither these nor `moves` fill is zero.
    """

    info: TensorInfo
    chunk: tuple[int, ...]
    path: ValuePath
    moves: tuple[Move, ...]
    read_bytes: int = 0
    ones: tuple[Move, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of the array as stored."""
        return math.prod(self.info.shape) * values.itemsize(self.info.dtype)

    @property
    def unit_bytes(self) -> int:
        """Bytes of buffers that one unit holds: the values as they come, between the operations, and as stored."""
        return math.prod(self.chunk) * sum(widths(self.path)) + 2 * self.read_bytes

    def units(self) -> Iterable[Unit]:
        """All units of the array, in C order."""
        steps = [range(0, n, c) for n, c in zip(self.info.shape, self.chunk, strict=True)]
        for start in itertools.product(*steps):
            box = tuple((a, min(a + c, n)) for a, c, n in zip(start, self.chunk, self.info.shape, strict=True))
            yield Unit(self, box)


@dataclasses.dataclass(frozen=True)
class Unit:
    """One region of one array: written once, whole."""

    array: ArrayPlan
    box: Box

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the region."""
        return tuple(stop - start for start, stop in self.box)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a run will do.

    Attributes:
        arrays: by name, in the order in which they are written.
        bytes_in: bytes of the source's arrays that are read.
        bytes_out: bytes of the output's arrays.
        threads: how many units are worked on at a time.
        peak_bytes: buffers held at a time, at most.
    """

    arrays: Mapping[str, ArrayPlan]
    bytes_in: int
    bytes_out: int
    threads: int
    peak_bytes: int

    def units(self) -> Iterable[Unit]:
        """All units, array by array."""
        for array in self.arrays.values():
            yield from array.units()


def widths(path: ValuePath) -> tuple[int, ...]:
    """Bytes of an element in each buffer that a unit holds."""
    stored = values.itemsize(path.target_dtype)
    if path.moves_bytes:
        return (stored,)
    return (stored, values.itemsize(path.source_dtype), values.itemsize(path.logical_dtype))


def whole_chunks(shape: tuple[int, ...], stacked: Iterable[int], itemsize: int, limit: int) -> tuple[int, ...]:
    """A grid for an array whose chunks are ours to choose.

    One layer per chunk on stacked axes, since a reader wants a layer at a time; the rest is cut from the first
    axis on, which is the one that readers shard, until a chunk holds at most `limit` bytes. Small arrays stay whole.

    Args:
        shape: of the array.
        stacked: positions of its layer axes.
        itemsize: bytes of an element.
        limit: bytes of a chunk, at most, unless one element is larger.
    """
    if math.prod(shape) * itemsize <= min(limit, _SMALL_ARRAY):
        return tuple(max(n, 1) for n in shape)
    fixed = set(stacked)
    chunk = [1 if axis in fixed else n for axis, n in enumerate(shape)]
    return _cut(chunk, [axis for axis in range(len(shape)) if axis not in fixed], itemsize, limit)


def leading_slabs(shape: tuple[int, ...], itemsize: int, limit: int) -> tuple[int, ...]:
    """A grid whose boxes are contiguous ranges of a C-order array, of at most `limit` bytes where rows allow."""
    chunk = [max(n, 1) for n in shape]
    return _cut(chunk, list(range(len(shape))), itemsize, limit)


def _cut(chunk: list[int], axes: list[int], itemsize: int, limit: int) -> tuple[int, ...]:
    for axis in axes:
        rest = math.prod(chunk) // max(chunk[axis], 1) * itemsize
        if rest * chunk[axis] <= limit:
            break
        parts = math.ceil(chunk[axis] * rest / limit)
        chunk[axis] = max(1, math.ceil(chunk[axis] / min(parts, chunk[axis])))
    return tuple(chunk)
