"""What encoding float8 blocks must fulfil for any values, and how units are cut into whole blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.quantized import nearest
from converters.quantized.blocks import Blocks
from converters.quantized.encoding import float8_blocks
from tests.quantized import loops
from tests.quantized.loops import Array

_FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
_BLOCK = (3, 4)


@settings(max_examples=150, deadline=None)
@given(hnp.arrays(np.float32, (5, 6), elements=_FINITE), st.booleans())
def test_every_value_is_the_nearest_that_its_scale_allows(values: Array, powers_of_two: bool) -> None:
    encoded = float8_blocks(values, _BLOCK, powers_of_two)
    assert encoded is not None
    codes, scales, loss = encoded
    decoded = loops.scaled(loops.float8_values(codes), scales, _BLOCK, "float32")
    for (i, j), place in loops.blocks((5, 6), _BLOCK):
        scale = scales[i, j]
        assert scale > 0
        largest = float(np.abs(values[place]).max())
        if powers_of_two and largest > 1e-30:
            assert math.frexp(float(scale))[0] == 0.5
            assert 224 * float(scale) < largest <= 448 * float(scale)
        for value, found in zip(values[place].reshape(-1), decoded[place].reshape(-1), strict=True):
            assert found == nearest.float8(float(value), float(scale))
    exact = values.astype(np.float64)
    difference = np.abs(exact - decoded)
    assert loss.absolute == pytest.approx(float(difference.max()), rel=1e-6)
    assert loss.total == pytest.approx(float((exact**2).sum()))


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, (4, 4), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_the_largest_value_of_a_block_loses_next_to_nothing(values: Array) -> None:
    encoded = float8_blocks(values, (4, 4), False)
    assert encoded is not None
    codes, scales, _ = encoded
    decoded = loops.scaled(loops.float8_values(codes), scales, (4, 4), "float32")
    place = np.unravel_index(np.argmax(np.abs(values)), values.shape)
    if abs(values[place]) > 1e-30:
        assert decoded[place] == pytest.approx(float(values[place]), rel=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_has_no_code(bad: float) -> None:
    values = np.ones((4, 4), np.float32)
    values[3, 1] = bad
    assert float8_blocks(values, (2, 2), False) is None


def test_a_block_of_zeros_has_the_scale_one() -> None:
    values = np.array([[0.0, -0.0, 5.0, 7.0]], np.float32)
    encoded = float8_blocks(values, (1, 2), False)
    assert encoded is not None
    codes, scales, _ = encoded
    assert scales.tolist() == [[1.0, float(np.float32(7) / np.float32(448))]]
    assert codes.view(np.uint8)[0, :2].tolist() == [0, 128]


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 700), st.integers(1, 700)),
    st.tuples(st.integers(1, 5), st.integers(1, 700), st.integers(1, 700)),
)
def test_units_are_whole_blocks_and_no_larger_than_asked_for(shape: tuple[int, ...], chunk: tuple[int, ...]) -> None:
    blocks = Blocks((128, 64), False, frozenset())
    lead, high, wide = blocks.units(chunk, shape, 0)
    assert lead == min(chunk[0], shape[0])
    assert high == shape[1] or (high % 128 == 0 and high < shape[1])
    assert wide == shape[2] or (wide % 64 == 0 and wide < shape[2])
    asked = min(chunk[1], shape[1]) * min(chunk[2], shape[2])
    assert high * wide <= max(asked, min(128, shape[1]) * min(64, shape[2]))
