"""Random moves from random grids of chunks, against plain loops over elements."""

import dataclasses
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from converters.engine import grids, grouping
from converters.engine import residue as residue_lib
from converters.engine.gather import Gatherer
from converters.engine.plan import ArrayPlan, Plan
from converters.engine.values import AnyArray, ValuePath
from converters.formats.base import Region, TensorInfo
from converters.formats.fingerprints import Fingerprint
from mappings.language.regions import Dim, Move

_PATH = ValuePath("float32", "float32", "float32")


class ChunkedSource:
    """One array in memory, which counts what reading it would decode."""

    def __init__(self, values: AnyArray, chunk: tuple[int, ...] | None):
        self.values = values
        self.decoded = 0
        self.tensors = {"s": TensorInfo("s", values.shape, str(values.dtype))}
        self._chunk = chunk

    def chunk(self, name: str) -> tuple[int, ...] | None:
        assert name == "s"
        return self._chunk

    def read(self, name: str, region: Region) -> AnyArray:
        assert name == "s"
        for position in grouping.grid_boxes(region, self._chunk) if self._chunk else ():
            box = grouping.chunk_box(position, self._chunk or (), self.values.shape)
            self.decoded += math.prod(stop - start for start, stop in box) * self.values.itemsize
        return np.ascontiguousarray(self.values[tuple(slice(*axis) for axis in region)])

    def release(self, name: str, region: Region) -> None:
        """Nothing to give back."""

    def fingerprints(self) -> tuple[Fingerprint, ...]:
        return ()

    def close(self) -> None:
        """Nothing to close."""


def _side(counts: list[int], chooser: random.Random, *, partly: bool) -> tuple[tuple[int, ...], ...]:
    """Shape and base of an array that holds digits in some order on some axes; axis and weight of each digit."""
    order = list(range(len(counts)))
    chooser.shuffle(order)
    axes: list[list[int]] = [[] for _ in range(chooser.randint(1, 3))]
    for digit in order:
        chooser.choice(axes).append(digit)
    shape, base, axis_of, weight_of = [], [], [0] * len(counts), [1] * len(counts)
    for number, digits in enumerate(axes):
        size = 1
        for digit in reversed(digits):
            axis_of[digit], weight_of[digit] = number, size
            size *= counts[digit]
        more = chooser.choice((0, 0, 1, 3)) if partly else 0
        shape.append(size + more)
        base.append(chooser.randint(0, more))
    return tuple(shape), tuple(base), tuple(axis_of), tuple(weight_of)


def _random_move(chooser: random.Random, *, partly: bool) -> Move:
    counts = [chooser.randint(1, 5) for _ in range(chooser.randint(1, 4))]
    source, source_base, source_axis, source_weight = _side(counts, chooser, partly=partly)
    target, target_base, target_axis, target_weight = _side(counts, chooser, partly=partly)
    dims = list(map(Dim, counts, source_axis, source_weight, target_axis, target_weight))
    chooser.shuffle(dims)
    return Move("x", "s", "t", source, target, source_base, target_base, tuple(dims), (), ())


def _elements(move: Move) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for digits in itertools.product(*(range(dim.count) for dim in move.dims)):
        source, target = list(move.source_base), list(move.target_base)
        for digit, dim in zip(digits, move.dims, strict=True):
            source[dim.source_axis] += digit * dim.source_weight
            target[dim.target_axis] += digit * dim.target_weight
        yield tuple(source), tuple(target)


def _gathered(array: ArrayPlan, source: ChunkedSource, budget: int) -> tuple[dict[Region, AnyArray], int]:
    shared, decoded = grouping.groups({"t": array}, source, budget)
    plan = Plan({"t": array}, 0, 0, 1, 0, decoded, shared)
    found: dict[Region, AnyArray] = {}
    for group in plan.groups():
        assert group.bytes <= budget
        gatherer = Gatherer(source, residue_lib.Residue(residue_lib.EMPTY), lambda *_: None)
        for unit, values in gatherer.gather(group.units):
            assert unit.box not in found
            found[unit.box] = values.copy()
    return found, decoded


@pytest.mark.parametrize("seed", range(20))
def test_units_hold_what_moves_and_decode_no_more_than_planned(seed: int) -> None:
    chooser = random.Random(seed)
    for _ in range(15):
        move = _random_move(chooser, partly=True)
        values = np.arange(math.prod(move.source_shape), dtype=np.float32).reshape(move.source_shape)
        chunk = tuple(chooser.randint(1, size + 1) for size in move.source_shape)
        source = ChunkedSource(values, chunk if chooser.random() < 0.8 else None)
        unit = tuple(chooser.randint(1, size) for size in move.target_shape)
        array = ArrayPlan(TensorInfo("t", move.target_shape, "float32"), unit, _PATH, (move,), 4 * math.prod(chunk))
        found, decoded = _gathered(array, source, array.unit_bytes * chooser.randint(1, 4))
        expected = np.zeros(move.target_shape, np.float32)
        for origin, goal in _elements(move):
            expected[goal] = values[origin]
        times = np.zeros(move.target_shape, np.int64)
        for box, part in found.items():
            at = tuple(slice(*axis) for axis in box)
            assert np.array_equal(part, expected[at])
            times[at] += 1
        assert (times == 1).all()
        assert source.decoded <= decoded


@pytest.mark.parametrize("seed", range(20))
def test_boxes_cut_as_advised_share_no_chunk_that_ends_with_a_digit(seed: int) -> None:
    chooser = random.Random(seed)
    for _ in range(15):
        move = _random_move(chooser, partly=False)
        chunk = tuple(_whole_digits(move, axis, chooser) for axis in range(len(move.source_shape)))
        advised = grids.cuts(move.target_shape, [move], dict.fromkeys([move.source], chunk).get)
        boxes: dict[tuple[int, ...], set[tuple[int, ...]]] = defaultdict(set)
        for origin, goal in _elements(move):
            where = tuple(place // size for place, size in zip(origin, chunk, strict=True))
            boxes[where].add(tuple(place // size for place, size in zip(goal, advised, strict=True)))
        assert all(len(found) == 1 for found in boxes.values()), (move, chunk, advised)


def _whole_digits(move: Move, axis: int, chooser: random.Random) -> int:
    """A chunk's size along an axis: some of its minor digits, and a divisor of the next."""
    counts = [dim.count for dim in sorted(move.dims, key=lambda dim: dim.source_weight) if dim.source_axis == axis]
    counts = [count for count in counts if count > 1]
    whole = chooser.randint(0, len(counts))
    size = math.prod(counts[:whole])
    if whole < len(counts):
        size *= chooser.choice([n for n in range(1, counts[whole] + 1) if counts[whole] % n == 0])
    return size


def test_slabs_cut_from_one_chunk_decode_it_once() -> None:
    rows, width = 64, 8
    dims = (Dim(rows, 0, 1, 0, 1), Dim(width, 1, 1, 1, 1))
    move = Move("e", "s", "t", (rows, width), (rows, width), (0, 0), (0, 0), dims, (), ())
    source = ChunkedSource(np.arange(rows * width, dtype=np.float32).reshape(rows, width), (16, width))
    array = ArrayPlan(TensorInfo("t", (rows, width), "float32"), (4, width), _PATH, (move,), 16 * width * 4)
    _, decoded = _gathered(array, source, 1 << 20)
    assert source.decoded == decoded == rows * width * 4


@dataclasses.dataclass(frozen=True)
class _Scale:
    kind: str = "scale"
    value: float = 0.25
    factor_dtype: str = ""


def test_values_wider_than_they_are_stored_come_in_parts_to_their_places() -> None:
    rows, columns = 700, 500
    stored = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns).astype(ml_dtypes.bfloat16)
    dims = (Dim(rows, 0, 1, 1, 1), Dim(columns, 1, 1, 0, 1))
    move = Move("x", "s", "t", (rows, columns), (columns, rows), (0, 0), (0, 0), dims, (), ())
    path = ValuePath("bfloat16", "float32", "float32", (_Scale(),), (), recorded_dtype="bfloat16")
    source = ChunkedSource(stored, (rows, columns))
    array = ArrayPlan(TensorInfo("t", (columns, rows), "float32"), (columns, rows), path, (move,), stored.nbytes)
    ((_, values),) = _gathered(array, source, 1 << 23)[0].items()
    assert values.dtype == np.float32
    for row, column in np.ndindex(rows, columns):
        assert values[column, row] == np.float32(stored[row, column]) * 4
