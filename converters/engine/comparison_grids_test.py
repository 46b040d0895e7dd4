"""Boxes against their promises, and what they decode against plain loops."""

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from converters.engine import comparison_grids

SIZES = st.lists(st.integers(1, 40), min_size=0, max_size=4)


@given(SIZES, st.data())
def test_a_grown_box_has_whole_chunks_and_is_within_the_limit_unless_one_chunk_is_larger(
    shape: list[int], data: st.DataObject
) -> None:
    chunk = data.draw(st.none() | st.tuples(*(st.integers(1, n) for n in shape)))
    limit = data.draw(st.integers(1, 5000))
    box = comparison_grids.grown(shape, chunk, 2, limit)
    assert all(1 <= n <= size for n, size in zip(box, shape, strict=True))
    assert math.prod(box) * 2 <= max(limit, 2 * math.prod(chunk or ()))
    if chunk is not None:
        assert all(n % c == 0 or n == size for n, c, size in zip(box, chunk, shape, strict=True))


@given(SIZES, st.data())
def test_pieces_cross_no_border_of_chunks_and_keep_to_the_step(shape: list[int], data: st.DataObject) -> None:
    step = tuple(data.draw(st.integers(1, n)) for n in shape)
    chunk = tuple(
        data.draw(st.sampled_from([n, *range(least, n + 1, least)])) for n, least in zip(shape, step, strict=True)
    )
    piece = comparison_grids.pieces(shape, chunk, step, 2, data.draw(st.integers(1, 5000)))
    for size, whole, least, n in zip(piece, chunk, step, shape, strict=True):
        assert 1 <= size <= whole
        assert whole % size == 0 or whole == n
        assert size % least == 0 or size == whole


def test_a_large_chunk_is_cut_into_pieces_near_the_limit() -> None:
    assert comparison_grids.pieces((4096, 2048), (1024, 2048), (1, 1), 2, 1 << 20) == (256, 2048)
    assert comparison_grids.pieces((4096, 2048), (1024, 2048), (1, 1), 2, 2048) == (1, 1024)
    assert comparison_grids.pieces((4096, 2048), (1024, 2048), (512, 2048), 2, 1 << 20) == (512, 2048)


def test_a_chunk_of_a_prime_size_is_cut_along_another_axis() -> None:
    assert comparison_grids.pieces((3 * 1009, 64), (1009, 64), (1, 1), 4, 32 << 10) == (1009, 8)


@given(st.lists(st.integers(0, 12), max_size=3), st.data())
def test_what_boxes_decode_is_the_sum_of_the_chunks_that_each_touches(shape: list[int], data: st.DataObject) -> None:
    chunk, box = (tuple(data.draw(st.integers(1, n + 1)) for n in shape) for _ in range(2))
    total = 0
    for start in itertools.product(*(range(0, n, step) for n, step in zip(shape, box, strict=True))):
        touched = {
            tuple(index // size for index, size in zip(at, chunk, strict=True))
            for at in itertools.product(
                *(range(a, min(a + step, n)) for a, step, n in zip(start, box, shape, strict=True))
            )
        }
        for position in touched:
            total += 4 * math.prod(
                min((i + 1) * size, n) - i * size for i, size, n in zip(position, chunk, shape, strict=True)
            )
    assert comparison_grids.decoded(shape, chunk, box, 4) == total
