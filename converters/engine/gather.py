"""Gathers the values of units from the source: every chunk that units of a group share is decoded once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from converters.engine import comparing, strided, values
from converters.engine import residue as residue_lib
from converters.engine.grouping import Chunk, chunk_box, grid_boxes
from converters.engine.plan import Box, Unit
from converters.engine.values import AnyArray
from converters.formats.base import Region, Source, piece_of
from mappings.language import regions
from mappings.language.keeping import is_kept
from mappings.language.regions import Dim, Move

Note = Callable[[Unit, str, AnyArray], None]


@dataclasses.dataclass
class _Filling:
    """One unit being gathered."""

    unit: Unit
    parts: list[Move]
    buffer: AnyArray | None = None


class Gatherer:
    """Reads units' regions of logical values, in the target's order. Not thread-safe.

    Attributes:
        bytes_read: taken from the source so far.
    """

    def __init__(self, source: Source, residue: residue_lib.Residue, note: Note):
        """Args: the residue of the source; what is told its values as they pass, unchanged, and for which unit."""
        self._source = source
        self._residue = residue
        self._note = note
        self.bytes_read = 0

    def gather(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, AnyArray]]:
        """The logical values of each unit, in any order; memory is that of `Group.bytes`, and given up one by one."""
        fillings = [self._filling(unit) for unit in units]
        shared: dict[Chunk, list[tuple[_Filling, Move]]] = {}
        for filling in fillings:
            # Each read decodes a chunk, which units of a group share.
            direct = self._as_it_is(filling) if len(fillings) == 1 else None
            if direct is not None:
                filling.buffer = direct
                continue
            filling.buffer = _buffer(filling)
            for part in filling.parts:
                for chunk, piece in self._pieces(part):
                    shared.setdefault(chunk, []).append((filling, piece))
        for (name, _), pieces in shared.items():
            self._fill(name, pieces)
        while fillings:
            filling = fillings.pop(0)
            yield filling.unit, self._finished(filling)

    def _filling(self, unit: Unit) -> _Filling:
        return _Filling(unit, unit.array.parts_in(unit.box))

    def _pieces(self, part: Move) -> Iterator[tuple[Chunk, Move]]:
        if self._source.chunk(part.source) is not None:
            yield from chunk_pieces(self._source, part)
            return
        box = piece_of(self._source, part.source)
        if box is not None:
            yield from _cut(self._source, part, box)
            return
        # Mapped memory: each part is read where it lies.
        yield (part.source, part.source_base), part

    def _as_it_is(self, filling: _Filling) -> AnyArray | None:
        """What the source holds, where it already is the unit, byte for byte in order, in one read."""
        unit, path = filling.unit, filling.unit.array.path
        if len(filling.parts) != 1 or path.source_ops or unit.array.ones:
            return None
        part = filling.parts[0]
        if piece_of(self._source, part.source) is not None:
            return None
        dims = regions.normal_form(part).dims
        if part.elements != math.prod(unit.shape) or any(dim[1:] != (1, 1) for dim in dims):
            return None
        box = regions.source_box(part)
        chunk = self._source.chunk(part.source)
        if math.prod(stop - start for start, stop in box) != part.elements:
            return None
        if chunk is not None and sum(1 for _ in grid_boxes(box, chunk)) > 1:
            return None
        read = self._source.read(part.source, box)
        if str(read.dtype) != path.source_dtype or not read.flags.c_contiguous:
            return None
        self.bytes_read += read.nbytes
        return read.reshape(unit.shape)

    def _fill(self, name: str, pieces: Sequence[tuple[_Filling, Move]]) -> None:
        whole = _union([regions.source_box(piece) for _, piece in pieces])
        read = self._source.read(name, whole)
        self.bytes_read += read.nbytes
        for filling, piece in pieces:
            box = regions.source_box(piece)
            self._place(filling, piece, box, within(read, whole, box))

    def _place(self, filling: _Filling, piece: Move, box: Region, read: AnyArray) -> None:
        unit, path = filling.unit, filling.unit.array.path
        buffer = filling.buffer
        if buffer is None:
            raise ValueError("nothing to fill")
        changed = path.source_ops and not is_kept(piece.source)
        read = np.ascontiguousarray(read) if changed else read
        if path.source_ops or len({part.source for part in filling.parts}) > 1:
            self._note(unit, piece.source, _taken(read, box, piece))
        if changed:
            self._place_undone(filling, piece, box, read)
            return
        if read.dtype != buffer.dtype:
            read = values.encode(read, (), str(buffer.dtype))
        move_into(buffer, unit.box, read, box, piece)

    def _place_undone(self, filling: _Filling, piece: Move, box: Region, stored: AnyArray) -> None:
        """Places values without the source's operations; in parts where they are wider than they are stored.

        All at once, those would take more than the plan counts for a read.
        """
        unit, buffer = filling.unit, filling.buffer
        if buffer is None:
            raise ValueError("nothing to fill")
        if buffer.dtype.itemsize <= stored.dtype.itemsize:
            move_into(buffer, unit.box, self._undo(piece.source, box, stored, unit), box, piece)
            return
        turned = swapped(piece)
        for part in comparing.blocks(box):
            logical = self._undo(piece.source, part, np.ascontiguousarray(within(stored, box, part)), unit)
            for move in regions.restrict(turned, part):
                move_into(buffer, unit.box, logical, part, swapped(move))

    def _undo(self, name: str, box: Region, stored: AnyArray, unit: Unit) -> AnyArray:
        path = unit.array.path
        logical = values.decode(stored, path.source_ops, path.logical_dtype, path.recorded_dtype)
        if name in self._residue.arrays():
            logical = logical.copy() if logical is stored else logical
            self._residue.patch(name, box, stored, logical)
        return logical

    def _finished(self, filling: _Filling) -> AnyArray:
        unit, path, buffer = filling.unit, filling.unit.array.path, filling.buffer
        if buffer is None:
            raise ValueError("nothing was filled")
        for move in unit.array.ones:
            for part in regions.restrict(move, unit.box):
                _fill_with_one(buffer, unit.box, part)
        sources = {part.source for part in filling.parts}
        if len(sources) == 1 and not path.source_ops:
            self._note(unit, next(iter(sources)), buffer)
        if path.source_ops or path.source_dtype == path.logical_dtype:
            return buffer
        return values.encode(buffer, (), path.logical_dtype)


def chunk_pieces(source: Source, move: Move) -> Iterator[tuple[Chunk, Move]]:
    """The move cut at the source's chunk borders, each piece with the chunk that it lies in."""
    chunk = source.chunk(move.source)
    if chunk is None:
        yield (move.source, ()), move
        return
    yield from _cut(source, move, chunk)


def _cut(source: Source, move: Move, chunk: Sequence[int]) -> Iterator[tuple[Chunk, Move]]:
    """The move cut at the borders of a grid of boxes on its source, each piece with its box's position."""
    turned = swapped(move)
    shape = source.tensors[move.source].shape
    for position in grid_boxes(regions.source_box(move), chunk):
        for part in regions.restrict(turned, chunk_box(position, chunk, shape)):
            yield (move.source, position), swapped(part)


def move_into(target: AnyArray, target_box: Box, source: AnyArray, source_box: Region, move: Move) -> None:
    """Copies a move's elements from a region of its source into a region of its target."""
    width = source.dtype.itemsize
    start = _offset(source, source_box, move.source_base)
    goal = _offset(target, target_box, move.target_base)
    axes = [
        (
            dim.count,
            dim.source_weight * source.strides[dim.source_axis],
            dim.target_weight * target.strides[dim.target_axis],
        )
        for dim in move.dims
    ]
    strided.copy(_from(source, start, width), _from(target, goal, width), axes)


def swapped(move: Move) -> Move:
    """The move in the other direction."""
    return dataclasses.replace(
        move,
        source=move.target,
        target=move.source,
        source_shape=move.target_shape,
        target_shape=move.source_shape,
        source_base=move.target_base,
        target_base=move.source_base,
        dims=tuple(
            Dim(dim.count, dim.target_axis, dim.target_weight, dim.source_axis, dim.source_weight) for dim in move.dims
        ),
        source_ops=move.target_ops,
        target_ops=move.source_ops,
    )


def _buffer(filling: _Filling) -> AnyArray:
    path, shape = filling.unit.array.path, filling.unit.shape
    covered = sum(part.elements for part in filling.parts)
    make = np.empty if covered == math.prod(shape) else np.zeros
    out: AnyArray = make(shape, values.dtype_of(path.logical_dtype if path.source_ops else path.source_dtype))
    return out


def _union(boxes: Sequence[Region]) -> Region:
    return tuple((min(start for start, _ in axis), max(stop for _, stop in axis)) for axis in zip(*boxes, strict=True))


def within(read: AnyArray, whole: Region, box: Region) -> AnyArray:
    """The part of a region that was read."""
    index: tuple[Any, ...] = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(box, whole, strict=True))
    return read[(*index, ...)]


def _fill_with_one(target: AnyArray, box: Box, move: Move) -> None:
    one = np.ones(1, target.dtype)
    axes = [(dim.count, 0, dim.target_weight * target.strides[dim.target_axis]) for dim in move.dims]
    goal = _offset(target, box, move.target_base)
    strided.copy(one, _from(target, goal, target.dtype.itemsize), axes)


def _offset(array: AnyArray, box: Region, base: tuple[int, ...]) -> int:
    return sum((b - start) * stride for b, (start, _), stride in zip(base, box, array.strides, strict=True))


def _taken(read: AnyArray, box: Region, move: Move) -> AnyArray:
    """The elements of a region that a move takes, in any order: all of it, or a view."""
    if move.elements == read.size:
        return read
    first = _from(read, _offset(read, box, move.source_base), read.dtype.itemsize)
    counts = tuple(dim.count for dim in move.dims)
    steps = tuple(dim.source_weight * read.strides[dim.source_axis] for dim in move.dims)
    return np.lib.stride_tricks.as_strided(first, counts, steps, writeable=False)


def _from(array: AnyArray, offset: int, width: int) -> AnyArray:
    """The array's memory from a byte offset on."""
    elements = offset // width
    return np.lib.stride_tricks.as_strided(array, (elements + 1,), (width,))[elements:]
