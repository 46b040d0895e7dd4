"""Groups the units of a plan that take their values from the same chunks, so that each chunk is decoded once.

What units take is said in boxes of chunks, and found once for all arrays that lie alike: of the matrices of a model's
experts, of which there are tens of thousands, hundreds are cut from the same chunks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from converters.engine import values
from converters.engine.plan import ArrayPlan, Box, Group, Unit
from converters.formats.base import Source
from mappings.language import regions
from mappings.language.regions import Move

Chunk = tuple[str, tuple[int, ...]]
"""A source array and the position of one of its chunks in the grid."""

Chunks = frozenset[tuple[str, Box]]
"""Source arrays and boxes of positions in their grids, disjoint; two are equal exactly if their chunks are."""


def groups(arrays: Mapping[str, ArrayPlan], source: Source, budget: int) -> tuple[tuple[Group, ...], int]:
    """The groups of more than one unit, and the bytes that reading all units decodes.

    A group that would hold more than the budget is made in parts, each of which decodes the chunks again.
    """
    reach = _Reach(source)
    sharing: dict[Chunks, list[Unit]] = {}
    decoded = 0
    for array in arrays.values():
        plain, chunked = reach.sorted(array)
        decoded += sum(move.elements * values.itemsize(source.tensors[move.source].dtype) for move in plain)
        if chunked:
            for box, chunks in reach.of(array, chunked):
                sharing.setdefault(chunks, []).append(Unit(array, box))
    shared: list[Group] = []
    for chunks, units in sharing.items():
        parts = list(_parts(units, budget)) if len(units) > 1 else [units]
        decoded += len(parts) * reach.bytes(chunks)
        shared.extend(Group(tuple(part)) for part in parts if len(part) > 1)
    return tuple(shared), decoded


def grid_box(box: Sequence[tuple[int, int]], chunk: Sequence[int]) -> Box:
    """The chunks that a box touches, as a box of their positions."""
    return tuple((start // size, -(-stop // size)) for (start, stop), size in zip(box, chunk, strict=True))


def grid_boxes(box: Sequence[tuple[int, int]], chunk: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Positions of the chunks that a box touches."""
    yield from itertools.product(*(range(*axis) for axis in grid_box(box, chunk)))


def chunk_box(position: Sequence[int], chunk: Sequence[int], shape: Sequence[int]) -> Box:
    """The part of an array that the chunk at a position holds."""
    return tuple(
        (index * size, min((index + 1) * size, whole))
        for index, size, whole in zip(position, chunk, shape, strict=True)
    )


class _Reach:
    """Which chunks units take their values from."""

    def __init__(self, source: Source):
        self._source = source
        self._chunk_of: dict[str, tuple[int, ...] | None] = {}
        self._found: dict[object, Sequence[tuple[Box, Chunks]]] = {}

    def sorted(self, array: ArrayPlan) -> tuple[list[Move], list[Move]]:
        """An array's moves from mapped memory, and those from chunks."""
        plain: list[Move] = []
        chunked: list[Move] = []
        for move in array.moves:
            (plain if self._chunk(move.source) is None else chunked).append(move)
        return plain, chunked

    def of(self, array: ArrayPlan, moves: Sequence[Move]) -> Sequence[tuple[Box, Chunks]]:
        """The box of each unit of an array, in C order, and the chunks from which some moves fill it."""
        alike = (array.info.shape, array.chunk, tuple(self._lies(move) for move in moves))
        found = self._found.get(alike)
        if found is None:
            found = self._found[alike] = self._find(array, moves)
        return found

    def bytes(self, chunks: Chunks) -> int:
        """What decoding chunks gives."""
        return sum(self._bytes(name, box) for name, box in chunks)

    def _chunk(self, name: str) -> tuple[int, ...] | None:
        if name not in self._chunk_of:
            self._chunk_of[name] = self._source.chunk(name)
        return self._chunk_of[name]

    def _lies(self, move: Move) -> tuple[object, ...]:
        """What says which chunks a move reads for which units: where a chunk holds many layers, any of them will do."""
        chunk = self._chunk(move.source) or ()
        wide = {dim.source_axis for dim in move.dims}
        base = tuple(
            start if axis in wide else start // size
            for axis, (start, size) in enumerate(zip(move.source_base, chunk, strict=True))
        )
        return move.source, base, move.target_base, move.dims

    def _find(self, array: ArrayPlan, moves: Iterable[Move]) -> Sequence[tuple[Box, Chunks]]:
        found: dict[Box, list[tuple[str, Box]]] = {box: [] for box in array.boxes()}
        for move in moves:
            chunk = self._chunk(move.source) or ()
            for position in grid_boxes(regions.target_box(move), array.chunk):
                box = chunk_box(position, array.chunk, array.info.shape)
                for part in regions.restrict(move, box):
                    found[box].append((part.source, grid_box(regions.source_box(part), chunk)))
        return [(box, _distinct(taken)) for box, taken in found.items()]

    def _bytes(self, name: str, box: Box) -> int:
        info, chunk = self._source.tensors[name], self._chunk(name) or ()
        sizes = (
            min(last * size, whole) - first * size
            for (first, last), size, whole in zip(box, chunk, info.shape, strict=True)
        )
        return math.prod(sizes) * values.itemsize(info.dtype)


def _distinct(taken: Sequence[tuple[str, Box]]) -> Chunks:
    """Boxes of chunks that may overlap as boxes that do not: one for an array where that is all, else single chunks."""
    if len(taken) == 1:
        return frozenset(taken)
    by_source: dict[str, set[Box]] = {}
    for name, box in taken:
        by_source.setdefault(name, set()).add(box)
    return frozenset((name, box) for name, boxes in by_source.items() for box in _disjoint(boxes))


def _disjoint(boxes: Collection[Box]) -> Iterable[Box]:
    if len(boxes) == 1:
        return boxes
    positions = {position for box in boxes for position in itertools.product(*(range(*axis) for axis in box))}
    hull = tuple((min(axis), max(axis) + 1) for axis in zip(*positions, strict=True))
    if math.prod(stop - start for start, stop in hull) == len(positions):
        return [hull]
    return [tuple((index, index + 1) for index in position) for position in positions]


def _parts(units: Sequence[Unit], budget: int) -> Iterator[list[Unit]]:
    part: list[Unit] = []
    gathered = on_its_way = 0
    for unit in units:
        own = unit.array.gathered_bytes
        rest = unit.array.unit_bytes - own
        if part and gathered + own + max(on_its_way, rest) > budget:
            yield part
            part, gathered, on_its_way = [], 0, 0
        part.append(unit)
        gathered, on_its_way = gathered + own, max(on_its_way, rest)
    yield part
