import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from converters.formats import regions
from converters.formats.base import Region


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], Region]:
    shape = draw(st.lists(st.integers(1, 5), max_size=4))
    region = []
    for size in shape:
        start = draw(st.integers(0, size))
        region.append((start, draw(st.integers(start, size))))
    return tuple(shape), tuple(region)


@given(boxes())
def test_the_span_of_a_box_is_that_of_its_positions(box: tuple[tuple[int, ...], Region]) -> None:
    shape, region = box
    axes = (range(start, stop) for start, stop in region)
    points = list(itertools.product(*axes))
    positions = [int(np.ravel_multi_index(p, shape)) if p else 0 for p in points]
    if positions:
        assert regions.span(region, shape) == (min(positions), max(positions) + 1)
    else:
        assert regions.span(region, shape) == (0, 0)


def test_a_box_of_slices_picks_its_elements() -> None:
    array = np.arange(12).reshape(3, 4)
    assert array[regions.slices(((1, 3), (0, 2)))].tolist() == [[4, 5], [8, 9]]
    assert regions.shape_of(((1, 3), (0, 2))) == (2, 2)
    assert regions.whole((3, 4)) == ((0, 3), (0, 4))


@pytest.mark.parametrize("region", [((0, 5),), ((-1, 2),), ((2, 1),), (), ((0, 1), (0, 1))])
def test_a_box_outside_of_its_array_is_refused(region: Region) -> None:
    with pytest.raises(ValueError, match="is not a region"):
        regions.check_inside("x", region, (4,))


def test_parts_of_a_region_come_in_order_and_end_with_it() -> None:
    found = list(regions.parts(((3, 6), (10, 14)), (2, 3)))
    assert found == [((3, 5), (10, 13)), ((3, 5), (13, 14)), ((5, 6), (10, 13)), ((5, 6), (13, 14))]
