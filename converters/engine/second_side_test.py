"""What is read of the second side, and when."""

import numpy as np
import pytest

from converters.engine.memory_checkpoint import MemorySource
from converters.engine.plan import ArrayPlan, Group, Plan, Unit
from converters.engine.second_side import SecondSide
from converters.engine.values import AnyArray, ValuePath
from converters.formats.base import Region

VALUES = np.arange(48, dtype=np.float32).reshape(6, 8)


def _plan(box: tuple[int, ...], *groups: Group) -> Plan:
    return Plan({"a": _array(box)}, 0, 0, 1, 0, 0, groups)


def _array(box: tuple[int, ...]) -> ArrayPlan:
    info = MemorySource({"a": VALUES}).tensors["a"]
    return ArrayPlan(info, box, ValuePath("float32", "float32", "float32"), ())


def _read(side: SecondSide, region: Region) -> list[Region]:
    """The parts that a region is given in, each of which must be what is stored there."""
    parts: list[Region] = []

    def take(part: Region, stored: AnyArray) -> None:
        assert stored.tolist() == VALUES[tuple(slice(start, stop) for start, stop in part)].tolist()
        parts.append(part)

    side.each("a", region, take)
    return parts


def test_a_region_of_many_chunks_is_read_chunk_by_chunk() -> None:
    source = MemorySource({"a": VALUES}, {"a": (2, 8)})
    parts = _read(SecondSide(source, _plan((6, 8))), ((1, 6), (0, 4)))
    assert parts == [((1, 2), (0, 4)), ((2, 4), (0, 4)), ((4, 6), (0, 4))]
    assert [region for _, region in source.reads] == parts


def test_where_any_region_costs_the_same_it_is_read_at_once() -> None:
    source = MemorySource({"a": VALUES})
    assert _read(SecondSide(source, _plan((6, 8))), ((1, 6), (0, 4))) == [((1, 6), (0, 4))]


@pytest.mark.parametrize("rounds", [1, 2])
def test_units_in_turn_share_one_reading_of_their_chunk_which_is_then_let_go(rounds: int) -> None:
    source = MemorySource({"a": VALUES}, {"a": (3, 8)})
    array = _array((1, 8))
    boxes = list(array.boxes())
    groups = [Group(tuple(Unit(array, box) for box in boxes[first : first + 3]), in_turn=True) for first in (0, 3)]
    side = SecondSide(source, _plan((1, 8), *groups))
    for box in [*boxes[:3] * rounds, *boxes[3:] * rounds]:
        assert _read(side, box) == [box]
    assert [region for _, region in source.reads] == [((0, 3), (0, 8))] * rounds + [((3, 6), (0, 8))] * rounds
