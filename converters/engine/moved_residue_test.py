"""Where the entries of a residue go when the elements that they are about move."""

import itertools
import tracemalloc

import numpy as np
import pytest

from converters.engine import moved_residue
from converters.engine.plan import ArrayPlan
from converters.engine.residue import Part, Residue
from converters.engine.values import ValuePath
from converters.formats.base import TensorInfo
from mappings.language.regions import Dim, Move

STACKED = (5, 3, 2)


def _unstacking(layer: int) -> Move:
    return Move(
        tensor="w",
        source="stacked",
        target=f"layer_{layer}",
        source_shape=STACKED,
        target_shape=(5, 2),
        source_base=(0, layer, 0),
        target_base=(0, 0),
        dims=(Dim(5, 0, 1, 0, 1), Dim(2, 2, 1, 1, 1)),
        source_ops=(),
        target_ops=(),
    )


def _parts(residue: Residue, moves: list[Move], chunk: tuple[int, ...] | None = None) -> list[Part]:
    """What moves into an array that is written in boxes of a size, by default in one."""
    info = TensorInfo(moves[0].target, moves[0].target_shape, "float32")
    path = ValuePath("float32", "float32", "float32")
    return list(moved_residue.parts(residue, ArrayPlan(info, chunk or info.shape, path, tuple(moves))))


def _residue(array: str, shape: tuple[int, ...], index: list[int]) -> Residue:
    box = tuple((0, size) for size in shape)
    number = np.arange(len(index), dtype=np.uint32)
    part = Part(array, shape, box, "float32", "float32", np.array(index, np.int64), number, number + 100)
    return Residue({array: (part,)})


def test_entries_of_a_stacked_array_go_to_their_layers() -> None:
    everything = list(range(30))
    residue = _residue("stacked", STACKED, everything)
    for layer in range(3):
        (part,) = _parts(residue, [_unstacking(layer)])
        assert (part.array, part.shape) == (f"layer_{layer}", (5, 2))
        values = np.arange(30).reshape(STACKED)[:, layer, :].reshape(-1)
        assert part.index.tolist() == list(range(10))
        assert part.stored.tolist() == values.tolist()
        assert part.original.tolist() == (values + 100).tolist()


def test_entries_of_layers_come_together_in_one_part() -> None:
    moves = [
        Move(
            "w",
            f"layer_{i}",
            "stacked",
            (5, 2),
            STACKED,
            (0, 0),
            (0, i, 0),
            (Dim(5, 0, 1, 0, 1), Dim(2, 1, 1, 2, 1)),
            (),
            (),
        )
        for i in range(3)
    ]
    second = _residue("layer_1", (5, 2), [0, 9])
    third = _residue("layer_2", (5, 2), [3])
    residue = Residue({"layer_1": second.parts("layer_1"), "layer_2": third.parts("layer_2")})
    (part,) = _parts(residue, moves)
    expected = [np.ravel_multi_index(at, STACKED) for at in ((0, 1, 0), (1, 2, 1), (4, 1, 1))]
    assert part.index.tolist() == expected
    assert part.stored.tolist() == [0, 0, 1]


def test_a_split_axis_is_followed_digit_by_digit() -> None:
    swap = Move("w", "a", "b", (6,), (6,), (0,), (0,), (Dim(2, 0, 3, 0, 1), Dim(3, 0, 1, 0, 2)), (), ())
    (part,) = _parts(_residue("a", (6,), [0, 1, 2, 3, 4, 5]), [swap])
    assert part.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert part.stored.tolist() == [0, 3, 1, 4, 2, 5]


def test_what_does_not_move_gives_no_part() -> None:
    assert _parts(_residue("other", (5,), [1]), [_unstacking(0)]) == []
    only_first = _residue("stacked", STACKED, [0, 1])
    assert _parts(only_first, [_unstacking(1)]) == []


def _stacking(layers: int, rows: int, columns: int) -> list[Move]:
    shape = (rows, layers, columns)
    dims = (Dim(rows, 0, 1, 0, 1), Dim(columns, 1, 1, 2, 1))
    return [
        Move("w", f"layer_{i}", "stacked", (rows, columns), shape, (0, 0), (0, i, 0), dims, (), ())
        for i in range(layers)
    ]


@pytest.mark.parametrize("chunk", [(5, 3, 2), (2, 1, 2), (3, 2, 1)])
def test_each_unit_has_its_own_entries_in_ascending_order(chunk: tuple[int, ...]) -> None:
    moves = _stacking(3, 5, 2)
    random = np.random.default_rng(1)
    sources = {
        f"layer_{i}": _residue(f"layer_{i}", (5, 2), np.flatnonzero(random.random(10) < 0.6).tolist()) for i in range(3)
    }
    found = _parts(Residue({name: residue.parts(name) for name, residue in sources.items()}), moves, chunk)
    expected = {}
    for start in itertools.product(*(range(0, n, step) for n, step in zip(STACKED, chunk, strict=True))):
        box = tuple((a, min(a + step, n)) for a, step, n in zip(start, chunk, STACKED, strict=True))
        entries = []
        for row, layer, column in itertools.product(*(range(a, b) for a, b in box)):
            (part,) = sources[f"layer_{layer}"].parts(f"layer_{layer}")
            for position in np.flatnonzero(part.index == 2 * row + column):
                bits = int(part.stored[position]), int(part.original[position])
                entries.append((6 * row + 2 * layer + column, *bits))
        if entries:
            expected[box] = entries
    got = {
        part.box: list(zip(*(c.tolist() for c in (part.index, part.stored, part.original)), strict=True))
        for part in found
    }
    assert got == expected
    assert len(found) == len(got)


def test_memory_is_that_of_one_unit_however_many_layers_move() -> None:
    peaks = []
    for layers in (2, 16):
        every = list(range(64 * 64))
        sources = {f"layer_{i}": _residue(f"layer_{i}", (64, 64), every).parts(f"layer_{i}") for i in range(layers)}
        info = TensorInfo("stacked", (64, layers, 64), "float32")
        moves = tuple(_stacking(layers, 64, 64))
        array = ArrayPlan(info, (64, 1, 64), ValuePath("float32", "float32", "float32"), moves)
        residue = Residue(sources)
        tracemalloc.start()
        total = sum(part.index.size for part in moved_residue.parts(residue, array))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert total == layers * 64 * 64
    assert peaks[1] < 1.3 * peaks[0]
