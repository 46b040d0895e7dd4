"""What codes and scales mean, stated a second time: number formats from their bits, one block after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def e4m3(code: int) -> float:
    """The number that a float8_e4m3fn code stands for: sign, four bits of exponent (bias 7), three of mantissa."""
    sign = -1.0 if code >= 128 else 1.0
    exponent, mantissa = code % 128 // 8, code % 8
    if (exponent, mantissa) == (15, 7):
        return float("nan")
    if exponent == 0:
        return sign * mantissa / 8 * 2.0**-6
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def e2m1(code: int) -> float:
    """The number of an MXFP4 code."""
    return -E2M1[code - 8] if code >= 8 else E2M1[code]


def blocks(shape: tuple[int, int], block: tuple[int, int]) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
    """Index and place of every block of a matrix, the last ones ragged; a size of 0 takes the whole axis."""
    high, wide = (size or whole for size, whole in zip(block, shape, strict=True))
    for i, row in enumerate(range(0, shape[0], high)):
        for j, column in enumerate(range(0, shape[1], wide)):
            yield (i, j), (slice(row, row + high), slice(column, column + wide))


def scaled(values: Array, scales: Array, block: tuple[int, int], dtype: str, zeros: Array | None = None) -> Array:
    """Numbers times the scale of their block: a product in float32, rounded to the scales' dtype, then to `dtype`.

    Scales in float32 round nothing. The difference to a zero point is exact.
    """
    out = np.empty(values.shape, of(dtype))
    grid = tuple(-(-size // (step or size)) for size, step in zip(values.shape, block, strict=True))
    factors = scales.reshape(grid)
    with np.errstate(over="ignore", invalid="ignore"):
        for (i, j), place in blocks(values.shape, block):
            part = values[place].astype(np.float32)
            if zeros is not None:
                part = part - np.float32(zeros.reshape(grid)[i, j])
            product = part * np.float32(factors[i, j])
            out[place] = product.astype(scales.dtype).astype(of(dtype))
    return out


def float8_values(codes: Array) -> Array:
    """The numbers of float8_e4m3fn codes."""
    flat = [e4m3(int(code)) for code in codes.view(np.uint8).reshape(-1)]
    return np.array(flat, np.float32).reshape(codes.shape)


def packed_values(words: Array, columns: int, bits: int = 4) -> Array:
    """The numbers of codes in words of 32 bits, the first in the lowest bits, zero in the middle of their range."""
    out = np.empty((len(words), columns), np.float32)
    for row in range(len(words)):
        for column in range(columns):
            word = int(words[row, column * bits // 32]) & 0xFFFFFFFF
            out[row, column] = (word >> (column * bits % 32)) % 2**bits - 2 ** (bits - 1)
    return out


def packed(values: Array, bits: int = 4) -> Array:
    """The words of codes."""
    words = np.zeros((len(values), -(-values.shape[1] * bits // 32)), np.uint32)
    for row in range(len(values)):
        for column in range(values.shape[1]):
            code = int(values[row, column]) + 2 ** (bits - 1)
            words[row, column * bits // 32] |= np.uint32(code << (column * bits % 32))
    return words.view(np.int32)


def mxfp4_values(codes: Array, scales: Array, dtype: str) -> Array:
    """[experts, rows, groups, 16] octets and [experts, rows, groups] exponents as [experts, groups * 32, rows]."""
    experts, rows, groups, _ = codes.shape
    out = np.empty((experts, groups * 32, rows), of(dtype))
    with np.errstate(over="ignore"):
        for x, r, g in np.ndindex(experts, rows, groups):
            for place, octet in enumerate(codes[x, r, g]):
                for half, code in enumerate((int(octet) % 16, int(octet) // 16)):
                    value = np.float32(e2m1(code) * 2.0 ** (int(scales[x, r, g]) - 127))
                    out[x, g * 32 + 2 * place + half, r] = value
    return out


def of(dtype: str) -> np.dtype[Any]:
    """The NumPy dtype of a name."""
    return np.dtype(getattr(ml_dtypes, dtype, dtype))
