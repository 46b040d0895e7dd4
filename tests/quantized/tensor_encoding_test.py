"""Codes with one scale, held against compressed-tensors' own and against PyTorch's cast, for any values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.formats.safetensors_source import SafetensorsSource
from converters.quantized import nearest, tensor_encoding
from converters.quantized.tensor_encoding import float8_tensor, largest, scale_of
from tests.quantized import loops, making
from tests.quantized.loops import Array

_LIBRARY: Mapping[str, Array] = making.read(
    SafetensorsSource(Path(__file__).parent / "compressed_tensors_encoded.safetensors")
)
_CASES = sorted({name.partition(".")[0] for name in _LIBRARY})
_FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
_DTYPES = ("float16", "float32", "float64", "bfloat16")


def dtype_of(name: str) -> np.dtype[np.generic]:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def encoded(values: Array) -> tuple[np.float32, Array]:
    found = largest(values)
    assert found is not None
    scale = scale_of(found.size)
    return scale, float8_tensor(values, scale)[0].view(np.uint8)


@pytest.mark.parametrize("by_pattern", [False, True])
@pytest.mark.parametrize("case", _CASES)
def test_codes_and_scale_are_those_of_the_library(case: str, by_pattern: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_encoding, "_MANY", 0 if by_pattern else 1 << 30)
    scale, codes = encoded(np.ascontiguousarray(_LIBRARY[f"{case}.values"]))
    assert scale.tobytes() == _LIBRARY[f"{case}.scale"].tobytes()
    assert codes.tobytes() == _LIBRARY[f"{case}.codes"].tobytes()


@pytest.mark.parametrize("many", [0, 1 << 30])
@settings(max_examples=60, deadline=None)
@given(values=hnp.arrays(np.float32, (5, 7), elements=_FINITE), name=st.sampled_from(_DTYPES))
def test_codes_are_those_of_pytorch_for_any_values(many: int, values: Array, name: str) -> None:
    import torch

    with np.errstate(over="ignore"):
        values = np.nan_to_num(values.astype(dtype_of(name)).astype(np.float32), posinf=1.0, neginf=-1.0)
    values = values.astype(dtype_of(name))
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(tensor_encoding, "_MANY", many)
        scale, codes = encoded(values)
    wide = torch.from_numpy(values.astype(np.float32))
    expected = (wide / torch.tensor(scale)).clamp(-448, 448).to(torch.float8_e4m3fn)
    assert np.array_equal(codes, expected.view(torch.uint8).numpy())


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, (4, 3), elements=_FINITE))
def test_every_code_is_the_nearest_that_the_scale_allows(values: Array) -> None:
    scale, codes = encoded(values)
    decoded = loops.float8_values(codes.view(ml_dtypes.float8_e4m3fn)) * scale
    for value, found in zip(values.reshape(-1), decoded.reshape(-1), strict=True):
        assert found == nearest.float8(float(value), float(scale))


def test_values_half_way_between_codes_and_next_to_that_are_rounded_as_pytorch_rounds_them() -> None:
    import torch

    numbers = np.array([loops.e4m3(code) for code in range(127)], np.float32)
    middles = (numbers[1:] + numbers[:-1]) / np.float32(2)
    near = [np.nextafter(middles, np.float32(end), dtype=np.float32) for end in (0, 448)]
    values = np.concatenate([middles, *near, numbers, -middles, -near[0], -near[1]])
    codes, _ = float8_tensor(values, np.float32(1))
    expected = torch.from_numpy(values).to(torch.float8_e4m3fn)
    assert np.array_equal(codes.view(np.uint8), expected.view(torch.uint8).numpy())


@pytest.mark.parametrize("name", _DTYPES)
def test_the_largest_magnitude_is_found_wherever_it_is(name: str) -> None:
    generator = np.random.default_rng(3)
    values = generator.uniform(-1, 1, (37, 1001)).astype(dtype_of(name))
    for at in [(0, 0), (16, 369), (36, 1000)]:
        there = values.copy()
        there[at] = -3.0
        found = largest(there)
        assert found is not None
        assert (found.size, found.at) == (3.0, at)


@pytest.mark.parametrize("name", _DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_have_no_scale(name: str, bad: float) -> None:
    values = np.ones((5, 4), dtype_of(name))
    values[4, 1] = bad
    assert largest(values) is None


def test_a_value_that_float32_cannot_hold_has_no_scale() -> None:
    assert largest(np.array([[1.0, 1e200]])) is None


def test_zeros_keep_their_signs_and_divide_by_no_zero() -> None:
    values = np.array([[0.0, -0.0]], np.float32)
    scale, codes = encoded(values)
    assert scale == np.float32(2.0**-23)
    assert codes.tolist() == [[0, 128]]


def test_no_elements_have_a_scale_too() -> None:
    scale, codes = encoded(np.empty((0, 4), np.float32))
    assert scale == np.float32(2.0**-23)
    assert codes.shape == (0, 4)


@pytest.mark.parametrize("name", ["float16", "float32", "bfloat16"])
def test_what_is_lost_is_measured_alike_in_both_ways(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = (np.random.default_rng(1).standard_normal((300, 100)) * 0.02).astype(dtype_of(name))
    found = largest(values)
    assert found is not None
    scale = scale_of(found.size)
    exact = values.astype(np.float64)
    for many in (0, 1 << 30):
        monkeypatch.setattr(tensor_encoding, "_MANY", many)
        codes, loss = float8_tensor(values, scale)
        difference = np.abs(exact - loops.float8_values(codes).astype(np.float64) * float(scale))
        assert loss.absolute == pytest.approx(float(difference.max()), rel=1e-5)
        assert loss.relative == pytest.approx(
            float((difference[exact != 0] / np.abs(exact[exact != 0])).max()), rel=1e-5
        )
        assert loss.error == pytest.approx(float((difference**2).sum()), rel=1e-5)
        assert loss.total == pytest.approx(float((exact**2).sum()), rel=1e-5)
