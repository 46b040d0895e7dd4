"""Groups of units, against plain loops over elements, and how much work they take."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping

import pytest

from converters.engine import grouping
from converters.engine.declared_source import DeclaredSource
from converters.engine.grouping import Chunk
from converters.engine.plan import ArrayPlan, Group
from converters.engine.values import ValuePath
from converters.formats.base import TensorInfo
from mappings.language import regions
from mappings.language.regions import Dim, Move

_PATH = ValuePath("float32", "float32", "float32")
_ENDLESS = 1 << 60
_WIDTH = 4


def _elements(move: Move) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for digits in itertools.product(*(range(dim.count) for dim in move.dims)):
        source, target = list(move.source_base), list(move.target_base)
        for digit, dim in zip(digits, move.dims, strict=True):
            source[dim.source_axis] += digit * dim.source_weight
            target[dim.target_axis] += digit * dim.target_weight
        yield tuple(source), tuple(target)


def _expected(
    arrays: Mapping[str, ArrayPlan], source: DeclaredSource
) -> tuple[list[list[tuple[str, tuple[int, ...]]]], int]:
    """Units by name and position, those with the same chunks together, in order; bytes that decoding these gives."""
    sharing: dict[frozenset[Chunk], list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
    plain = 0
    for name, array in arrays.items():
        reads: dict[tuple[int, ...], set[Chunk]] = {
            position: set()
            for position in itertools.product(
                *(range(math.ceil(n / c)) for n, c in zip(array.info.shape, array.chunk, strict=True))
            )
        }
        for move in array.moves:
            chunk = source.chunk(move.source)
            for origin, goal in _elements(move):
                if chunk is None:
                    plain += _WIDTH
                    continue
                at = tuple(place // size for place, size in zip(goal, array.chunk, strict=True))
                reads[at].add((move.source, tuple(place // size for place, size in zip(origin, chunk, strict=True))))
        for position, chunks in reads.items() if any(reads.values()) else ():
            sharing[frozenset(chunks)].append((name, position))
    decoded = sum(_size(chunk, source) for chunks in sharing for chunk in chunks)
    return list(sharing.values()), plain + decoded


def _size(where: Chunk, source: DeclaredSource) -> int:
    name, position = where
    sizes = source.chunk(name) or ()
    shape = source.tensors[name].shape
    return _WIDTH * math.prod(
        min((at + 1) * size, whole) - at * size for at, size, whole in zip(position, sizes, shape, strict=True)
    )


def _position(group: Group) -> list[tuple[str, tuple[int, ...]]]:
    return [
        (
            unit.array.info.name,
            tuple(start // size for (start, _), size in zip(unit.box, unit.array.chunk, strict=True)),
        )
        for unit in group.units
    ]


def _drawn(chooser: random.Random) -> tuple[dict[str, ArrayPlan], DeclaredSource]:
    """Arrays cut from stacks: alike but for where they begin, some turned, some of two parts, heads cut across."""
    heads, rows, width = chooser.randint(1, 3), chooser.randint(1, 4), chooser.randint(1, 5)
    stacks, many = chooser.randint(1, 2), chooser.randint(2, 5)
    shape = (many, heads * rows, width)
    names = [f"s{number}" for number in range(stacks)]
    chunks = {}
    for name in names:
        if chooser.random() < 0.9:
            chunks[name] = tuple(chooser.randint(1, size + 1) for size in shape)
    source = DeclaredSource({name: TensorInfo(name, shape, "float32") for name in names}, chunks)
    parts = chooser.choice([1, 1, 2])
    # Where the rows go; a column more than is filled leaves units that take nothing.
    axis = chooser.randint(0, 1)
    sizes = [parts * heads * rows, width + chooser.randint(0, 1)]
    target = (sizes[axis], sizes[1 - axis])
    unit = tuple(chooser.randint(1, size) for size in target)
    arrays = {}
    for name in names:
        for index in range(many - parts + 1):
            dims = (
                Dim(heads, 1, rows, axis, rows),
                Dim(rows, 1, 1, axis, 1),
                Dim(width, 2, 1, 1 - axis, 1),
            )
            bases = [(part * heads * rows, 0) if axis == 0 else (0, part * heads * rows) for part in range(parts)]
            moves = tuple(
                Move("w", name, "t", shape, target, (index + part, 0, 0), base, dims, (), ())
                for part, base in enumerate(bases)
            )
            of = f"{name}.{index}"
            arrays[of] = ArrayPlan(TensorInfo(of, target, "float32"), unit, _PATH, moves)
    return arrays, source


@pytest.mark.parametrize("seed", range(30))
def test_units_are_grouped_by_the_chunks_that_loops_over_elements_find(seed: int) -> None:
    chooser = random.Random(seed)
    for _ in range(10):
        arrays, source = _drawn(chooser)
        shared, decoded = grouping.groups(arrays, source, _ENDLESS)
        together, expected = _expected(arrays, source)
        assert [_position(group) for group in shared] == [units for units in together if len(units) > 1]
        assert decoded == expected


def _experts(count: int, in_a_chunk: int) -> tuple[dict[str, ArrayPlan], DeclaredSource]:
    """Matrices of experts from one stack of them."""
    shape, sizes = (count, 64, 32), (in_a_chunk, 16, 32)
    source = DeclaredSource({"s": TensorInfo("s", shape, "float32")}, {"s": sizes})
    arrays = {}
    for number in range(count):
        dims = (Dim(64, 1, 1, 1, 1), Dim(32, 2, 1, 0, 1))
        move = Move("w", "s", f"t{number}", shape, (32, 64), (number, 0, 0), (0, 0), dims, (), ())
        arrays[f"t{number}"] = ArrayPlan(TensorInfo(f"t{number}", (32, 64), "float32"), (32, 16), _PATH, (move,))
    return arrays, source


def _cut(monkeypatch: pytest.MonkeyPatch, count: int, in_a_chunk: int) -> int:
    """How often grouping the experts' units cuts a move."""
    calls = []
    real = regions.restrict

    def restrict(move: Move, box: regions.Box) -> list[Move]:
        calls.append(1)
        return real(move, box)

    arrays, source = _experts(count, in_a_chunk)
    with monkeypatch.context() as patched:
        patched.setattr(regions, "restrict", restrict)
        shared, decoded = grouping.groups(arrays, source, _ENDLESS)
    assert decoded == count * 64 * 32 * _WIDTH
    assert sum(len(group.units) for group in shared) == (4 * count if in_a_chunk > 1 else 0)
    return len(calls)


def test_experts_of_one_chunk_are_cut_once_whatever_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cut(monkeypatch, 8, in_a_chunk=8) == _cut(monkeypatch, 256, in_a_chunk=256) == 4


def test_experts_in_chunks_of_their_own_are_cut_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _cut(monkeypatch, 100, in_a_chunk=1) == 4 * 100
