"""Groups the units of a plan that take their values from the same chunks, so that each chunk is decoded once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from converters.engine import values
from converters.engine.plan import ArrayPlan, Box, Group, Unit
from converters.formats.base import Source
from mappings.language import regions

Chunk = tuple[str, tuple[int, ...]]
"""A source array and the position of one of its chunks in the grid."""


def groups(arrays: Mapping[str, ArrayPlan], source: Source, budget: int) -> tuple[tuple[Group, ...], int]:
    """The groups of more than one unit, and the bytes that reading all units decodes.

    A group that would hold more than the budget is made in parts, each of which decodes the chunks again.
    """
    chunk_of = {name: source.chunk(name) for array in arrays.values() for name in {m.source for m in array.moves}}
    sharing: dict[frozenset[Chunk], list[Unit]] = {}
    decoded = 0
    for array in arrays.values():
        plain = [move for move in array.moves if chunk_of[move.source] is None]
        decoded += sum(move.elements * values.itemsize(source.tensors[move.source].dtype) for move in plain)
        if len(plain) == len(array.moves):
            continue
        for unit in array.units():
            sharing.setdefault(frozenset(_chunks(unit, chunk_of)), []).append(unit)
    shared: list[Group] = []
    for chunks, units in sharing.items():
        parts = list(_parts(units, budget)) if len(units) > 1 else [units]
        decoded += len(parts) * sum(_bytes(chunk, source, chunk_of) for chunk in chunks)
        shared.extend(Group(tuple(part)) for part in parts if len(part) > 1)
    return tuple(shared), decoded


def grid_boxes(box: Sequence[tuple[int, int]], chunk: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Positions of the chunks that a box touches."""
    yield from itertools.product(
        *(range(start // size, -(-stop // size)) for (start, stop), size in zip(box, chunk, strict=True))
    )


def chunk_box(position: Sequence[int], chunk: Sequence[int], shape: Sequence[int]) -> Box:
    """The part of an array that the chunk at a position holds."""
    return tuple(
        (index * size, min((index + 1) * size, whole))
        for index, size, whole in zip(position, chunk, shape, strict=True)
    )


def _chunks(unit: Unit, chunk_of: Mapping[str, tuple[int, ...] | None]) -> Iterator[Chunk]:
    for part in unit.array.parts_in(unit.box):
        chunk = chunk_of[part.source]
        if chunk is None:
            continue
        for position in grid_boxes(regions.source_box(part), chunk):
            yield part.source, position


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


def _bytes(chunk: Chunk, source: Source, chunk_of: Mapping[str, tuple[int, ...] | None]) -> int:
    name, position = chunk
    info, size = source.tensors[name], chunk_of[name]
    if size is None:
        raise ValueError(f"{name} has no chunks")
    box = chunk_box(position, size, info.shape)
    return math.prod(stop - start for start, stop in box) * values.itemsize(info.dtype)
