"""Entries in boxes, against plain loops."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.engine import residue_entries
from converters.formats.base import Region


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 6), max_size=4), st.booleans(), st.integers(1, 9), st.data())
def test_the_entries_of_a_box_are_those_whose_coordinates_lie_in_it(
    shape: list[int], in_order: bool, block: int, data: st.DataObject
) -> None:
    size = math.prod(shape)
    index = data.draw(st.lists(st.integers(0, size - 1), max_size=40))
    box = tuple(tuple(sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in shape)
    column = np.array(sorted(index) if in_order else index, np.int64)
    expected = []
    for position, flat in enumerate(column.tolist()):
        where = []
        for n in reversed(shape):
            flat, digit = divmod(flat, n)
            where.append(digit)
        if all(start <= n < stop for n, (start, stop) in zip(reversed(where), box, strict=True)):
            expected.append((position, tuple(reversed(where))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residue_entries, "_BLOCK", block)
        blocks = list(residue_entries.inside(column, in_order, shape, box))
        assert residue_entries.ascending(column) == all(a <= b for a, b in itertools.pairwise(column.tolist()))
    assert all(len(positions) <= block for positions, _ in blocks) or not shape
    found = [
        (int(position), tuple(int(axis[i]) for axis in where))
        for positions, where in blocks
        for i, position in enumerate(positions)
    ]
    assert sorted(found) == expected


class _Watched(np.ndarray[Any, np.dtype[np.int64]]):
    """An index that says how many of its entries were taken out."""

    taken = 0

    def __getitem__(self, key: Any) -> Any:
        out = np.asarray(self)[key]
        if not isinstance(key, slice):
            _Watched.taken += out.size
        return out


@pytest.mark.parametrize("box", [((8, 16), (3, 4), (0, 32)), ((5, 6), (7, 8), (9, 10)), ((0, 64), (63, 64), (0, 32))])
def test_only_the_entries_of_the_box_are_looked_at(box: Region) -> None:
    shape = (64, 64, 32)
    index = np.arange(math.prod(shape), dtype=np.int64).view(_Watched)
    _Watched.taken = 0
    found = sum(positions.size for positions, _ in residue_entries.inside(index, True, shape, box))
    assert found == math.prod(stop - start for start, stop in box)
    assert _Watched.taken == found
