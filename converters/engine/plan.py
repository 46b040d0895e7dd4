"""The plan: which array is written in which units, from which moves, by which value path."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from converters.engine import values
from converters.engine.values import ValuePath
from converters.formats.base import TensorInfo
from converters.formats.regions import parts, whole
from mappings.language import regions
from mappings.language.regions import Move

# Fewer moves than this are tried one by one.
_MANY_MOVES = 8

Box = tuple[tuple[int, int], ...]
Sizes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ArrayPlan:
    """One array of the output.

    Attributes:
        info: name, shape and stored dtype.
        chunk: box sizes of its units; where the grid of the target is free, its chunks.
        path: what happens to its values.
        moves: what fills it.
        read_bytes: what one read of its source holds in memory, or one of what it is compared with if that is more.
        ones: moves whose targets hold ones; what neither these nor `moves` fill is zero.
    """

    info: TensorInfo
    chunk: tuple[int, ...]
    path: ValuePath
    moves: tuple[Move, ...]
    read_bytes: int = 0
    ones: tuple[Move, ...] = ()

    @property
    def unit_count(self) -> int:
        """How many units the array has."""
        return math.prod([-(-size // step) for size, step in zip(self.info.shape, self.chunk, strict=True)])

    @property
    def bytes(self) -> int:
        """Size of the array as stored."""
        return math.prod(self.info.shape) * values.itemsize(self.info.dtype)

    @functools.cached_property
    def unit_bytes(self) -> int:
        """Bytes of buffers that one unit holds: the values as they come, between the operations, and as stored."""
        return math.prod(self.chunk) * sum(widths(self.path)) + 2 * self.read_bytes

    @functools.cached_property
    def gathered_bytes(self) -> int:
        """Bytes of the one buffer that a unit fills from the source."""
        return math.prod(self.chunk) * gathered_width(self.path)

    def parts_in(self, box: Box) -> list[Move]:
        """The parts of the moves that fill a box."""
        return [part for move in self._near(box) for part in regions.restrict(move, box)]

    def _near(self, box: Box) -> Iterable[Move]:
        """The moves that may fill a part of a box: of a stack of layers only those of the layers in it."""
        if not self._by_layer:
            return self.moves
        axis, moves = self._by_layer
        start, stop = box[axis]
        return (move for index in range(start, stop) for move in moves.get(index, ()))

    @functools.cached_property
    def _by_layer(self) -> tuple[int, Mapping[int, tuple[Move, ...]]] | None:
        """The moves by their index on an axis where each has only one; None where they are few, or no axis is so."""
        if len(self.moves) < _MANY_MOVES:
            return None
        wide = {dim.target_axis for move in self.moves for dim in move.dims if dim.count > 1}
        axis = next((axis for axis in range(len(self.info.shape)) if axis not in wide), None)
        if axis is None:
            return None
        found: dict[int, list[Move]] = {}
        for move in self.moves:
            found.setdefault(move.target_base[axis], []).append(move)
        return axis, {index: tuple(moves) for index, moves in found.items()}

    def units(self) -> Iterable[Unit]:
        """All units of the array, in C order."""
        return (Unit(self, box) for box in self.boxes())

    def boxes(self) -> Iterator[Box]:
        """The regions of the units, in C order."""
        return parts(whole(self.info.shape), self.chunk)


class Unit(NamedTuple):
    """One region of one array: written once, whole."""

    array: ArrayPlan
    box: Box

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the region."""
        return tuple(stop - start for start, stop in self.box)


@dataclasses.dataclass(frozen=True)
class Group:
    """Units that are made together, since they take their values from the same chunks of the source.

    Attributes:
        units: in the order in which they are written.
        in_turn: they share no chunk of the source, but one of what they are compared with: each is made on its own.
    """

    units: tuple[Unit, ...]
    in_turn: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of buffers that the group holds: all gathered values, and one unit on its way to the target."""
        if self.in_turn:
            return max(unit.array.unit_bytes for unit in self.units)
        gathered = sum(unit.array.gathered_bytes for unit in self.units)
        return gathered + max(unit.array.unit_bytes - unit.array.gathered_bytes for unit in self.units)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a run will do.

    Attributes:
        arrays: by name, in the order in which they are written.
        bytes_in: bytes of the source's arrays that are read.
        bytes_out: bytes of the output's arrays.
        threads: how many groups are worked on at a time.
        peak_bytes: buffers held at a time, at most.
        bytes_decoded: bytes that reading decodes; more than `bytes_in` where chunks are decoded more than once.
        shared: the groups of more than one unit; every other unit is a group of its own.
    """

    arrays: Mapping[str, ArrayPlan]
    bytes_in: int
    bytes_out: int
    threads: int
    peak_bytes: int
    bytes_decoded: int
    shared: tuple[Group, ...] = ()

    @property
    def amplification(self) -> float:
        """How many times each byte of the source is decoded, on average."""
        return self.bytes_decoded / self.bytes_in if self.bytes_in else 1.0

    @property
    def logical_dtypes(self) -> dict[str, str]:
        """For each array whose values are changed: their dtype before that, which the way back must know."""
        changed = {name: array.path for name, array in self.arrays.items() if array.path.target_ops}
        return {name: path.recorded_dtype or path.logical_dtype for name, path in changed.items()}

    def units(self) -> Iterable[Unit]:
        """All units, array by array."""
        for array in self.arrays.values():
            yield from array.units()

    def groups(self) -> Iterator[Group]:
        """All units once, each in its group, in the order of the first unit of each group."""
        grouped = {(unit.array.info.name, unit.box): group for group in self.shared for unit in group.units}
        for unit in self.units():
            group = grouped.get((unit.array.info.name, unit.box))
            if group is None:
                yield Group((unit,))
            elif group.units[0] == unit:
                yield group


def widths(path: ValuePath) -> tuple[int, ...]:
    """Bytes of an element in each buffer that a unit holds."""
    stored = values.itemsize(path.target_dtype)
    as_gathered = bool(path.source_ops) and not path.target_ops and path.logical_dtype == path.target_dtype
    if path.moves_bytes or as_gathered:
        return (stored,)
    return (stored, values.itemsize(path.source_dtype), values.itemsize(path.logical_dtype))


def gathered_width(path: ValuePath) -> int:
    """Bytes of an element in the buffer that a unit fills from the source."""
    return values.itemsize(path.logical_dtype if path.source_ops else path.source_dtype)
