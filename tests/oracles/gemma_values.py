"""The arithmetic by which Gemma's weights differ between Hugging Face and MaxText, element by element."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.arrays import Array, Variant, dtype_of


def plus_one(weight: Array, dtype: str = "float32") -> Array:
    """A norm: Hugging Face multiplies by 1 + weight, MaxText by the scale that it holds."""
    out = np.empty(weight.shape, dtype_of(dtype))
    for index, value in enumerate(weight):
        out[index] = np.float32(value) + np.float32(1)
    return out


def times(values: Array, factor: float, variant: Variant) -> Array:
    """A folded factor, in float32: rounded at once as requested; else kept, unless it only changes exponents."""
    changes_exponents_only = math.frexp(factor)[0] == 0.5
    round_at_once = variant.exactness == "as_requested" or changes_exponents_only
    dtype = dtype_of(variant.save_dtype) if round_at_once else np.dtype(np.float32)
    with np.errstate(over="ignore"):
        return np.asarray(values.astype(np.float32) * np.float32(factor)).astype(dtype)


def with_zero_rows(matrix: Array, rows: int) -> Array:
    """A matrix with rows of zeros below."""
    out = np.zeros((rows, matrix.shape[1]), matrix.dtype)
    out[: matrix.shape[0]] = matrix
    return out
