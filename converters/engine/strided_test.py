import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.engine import strided


def _naive(source: np.ndarray, target: np.ndarray, axes: list[tuple[int, int, int]]) -> None:
    width = source.dtype.itemsize
    for index in itertools.product(*(range(n) for n, _, _ in axes)):
        s = sum(i * a[1] for i, a in zip(index, axes, strict=True)) // width
        t = sum(i * a[2] for i, a in zip(index, axes, strict=True)) // width
        target[t] = source[s]


@st.composite
def permuted_arrays(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 20]), min_size=1, max_size=4))
    while math.prod(shape) > 20000:
        shape.pop()
    order = draw(st.permutations(range(len(shape))))
    return shape, list(order), draw(st.sampled_from([1, 2, 4, 8]))


def _axes(shape: list[int], order: list[int], width: int) -> list[tuple[int, int, int]]:
    source = [width * math.prod(shape[i + 1 :]) for i in range(len(shape))]
    target: dict[int, int] = {}
    step = width
    for i in reversed(order):
        target[i] = step
        step *= shape[i]
    return [(n, source[i], target[i]) for i, n in enumerate(shape)]


@settings(max_examples=200, deadline=None)
@given(permuted_arrays())
def test_a_permutation_moves_every_element_to_its_place(case: tuple[list[int], list[int], int]) -> None:
    shape, order, width = case
    dtype = np.dtype(f"u{width}")
    source = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, math.prod(shape), dtype=dtype, endpoint=True)
    target, expected = np.zeros_like(source), np.zeros_like(source)
    axes = _axes(shape, order, width)
    strided.copy(source, target, axes)
    _naive(source, expected, axes)
    assert np.array_equal(target, expected)


@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize(
    ("shape", "order"),
    [
        ([4, 2, 300, 1500], [3, 0, 2, 1]),
        ([1100, 3, 40, 2], [1, 3, 2, 0]),
        ([1300, 1200], [1, 0]),
        ([2, 600, 700], [0, 2, 1]),
        ([8, 2, 9, 1030], [3, 0, 2, 1]),
    ],
)
def test_rotary_and_plain_transposes_equal_numpy(
    shape: list[int], order: list[int], opencv: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not opencv:
        monkeypatch.setattr(strided, "_cv2_transpose", lambda: None)
    source = np.random.default_rng(1).integers(0, 65536, math.prod(shape), dtype=np.uint16)
    target = np.zeros_like(source)
    strided.copy(source, target, _axes(shape, order, 2))
    assert np.array_equal(target, source.reshape(shape).transpose(order).reshape(-1))


def test_nan_payloads_of_eight_byte_elements_survive() -> None:
    source = np.arange(0x7FF0_0000_0000_0001, 0x7FF0_0000_0000_0001 + 40 * 50, dtype=np.uint64)
    target = np.zeros_like(source)
    strided.copy(source, target, _axes([40, 50], [1, 0], 8))
    assert np.array_equal(target, source.reshape(40, 50).T.reshape(-1))


def test_neighbouring_axes_that_run_on_are_joined() -> None:
    assert strided.fuse([(3, 40, 48), (4, 10, 12), (5, 2, 2), (1, 7, 9)]) == ((12, 10, 12), (5, 2, 2))


def test_different_element_widths_are_refused() -> None:
    with pytest.raises(ValueError, match="elements of 2 and 4 bytes"):
        strided.copy(np.zeros(1, np.uint16), np.zeros(1, np.uint32), [(1, 2, 4)])


def test_an_empty_axis_copies_nothing() -> None:
    target = np.ones(3, np.uint16)
    strided.copy(np.zeros(3, np.uint16), target, [(0, 2, 2), (3, 2, 2)])
    assert target.tolist() == [1, 1, 1]
