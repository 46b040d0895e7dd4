"""From codes and scales to numbers, many at a time: look-ups and products in float32, rounded as references do it.

Nothing here reads files or knows names; all arrays are small pieces that fit the cache.
"""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np

from converters.formats.dtypes import numpy_dtype
from converters.quantized.stored import AnyArray

E8M0_NAN = 255
FLOAT8_LARGEST = np.float32(448)
_E8M0_BIAS = 127

# The values of MXFP4's codes: a sign, two bits of exponent, one of mantissa.
_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)


def float8(codes: AnyArray) -> AnyArray:
    """The values of float8_e4m3fn codes.

    Args:
        codes: uint8 [rows, columns], C-contiguous.

    Returns:
        float32 [rows, columns].
    """
    flat = codes.reshape(-1)
    if flat.size % 2:
        return _float8_values()[codes]
    out = np.empty(flat.size // 2, np.uint64)
    np.take(_float8_pairs(), flat.view(np.uint16), out=out, mode="clip")
    return out.view(np.float32).reshape(codes.shape)


def through_float8(values: AnyArray, factors: AnyArray) -> AnyArray:
    """What remains of float32 values that are divided by factors, stored as float8_e4m3fn and multiplied again."""
    scaled = np.clip(values / factors, -FLOAT8_LARGEST, FLOAT8_LARGEST)
    codes = np.ascontiguousarray(scaled.astype(ml_dtypes.float8_e4m3fn))
    decoded: AnyArray = float8(codes.view(np.uint8)) * factors
    return decoded


def packed(words: AnyArray, bits: int) -> AnyArray:
    """The values of codes that are packed in 32-bit words, the first in the lowest bits, zero at half their range.

    Args:
        words: int32 [rows, words], C-contiguous.
        bits: of a code: 4 or 8.

    Returns:
        float32 [rows, codes]: of a row's last word those too that are nothing but filling.
    """
    octets = words.view(np.uint8)
    if bits == 8:
        return octets.astype(np.float32) - np.float32(128)
    out = np.empty(octets.size, np.uint64)
    np.take(_nibble_pairs(), octets.reshape(-1), out=out, mode="clip")
    return out.view(np.float32).reshape(len(words), -1)


def mxfp4(octets: AnyArray, scales: AnyArray, dtype: str) -> AnyArray:
    """The values of MXFP4 codes: two in an octet, the first in its low bits, times a power of two for each group.

    Args:
        octets: uint8 [rows, groups, octets of a group].
        scales: uint8 [rows, groups], exponents + 127.
        dtype: of the result.

    Returns:
        [rows, groups * 2 * octets of a group].
    """
    index = scales[:, :, None].astype(np.uint16) << np.uint16(8)
    index = index | octets
    words: AnyArray = _mxfp4_pairs(dtype)[index]
    return words.view(numpy_dtype(dtype)).reshape(len(octets), -1)


def combine(
    values: AnyArray, factors: AnyArray, zeros: AnyArray | None, block: tuple[int, int], at: tuple[int, int]
) -> None:
    """Subtracts zero points and multiplies by scales, in place.

    Args:
        values: float32 [rows, columns] of a matrix of codes.
        factors: float32, a matrix of the scales of the blocks that the values touch.
        zeros: likewise of zero points, or None.
        block: rows and columns that share a scale.
        at: row and column of the first value within its block.
    """
    for rows, of_block in _block_rows(values, len(factors), block[0], at[0]):
        if zeros is not None:
            rows -= _spread(zeros[of_block], block[1], at[1], rows.shape[1])
        rows *= _spread(factors[of_block], block[1], at[1], rows.shape[1])


def rounded(values: AnyArray, first: str, out: AnyArray) -> None:
    """Rounds float32 values into `out`; to the dtype `first` before that, where one is named."""
    if first and numpy_dtype(first) != out.dtype:
        values = values.astype(numpy_dtype(first)).astype(np.float32)
    out[...] = values


def _block_rows(values: AnyArray, blocks: int, size: int, offset: int) -> list[tuple[AnyArray, slice]]:
    """The values by rows of blocks, each with where its scales are; all at once where every row has its own."""
    if size == 1:
        return [(values, slice(0, blocks))]
    found = []
    for index in range(blocks):
        start, stop = max(index * size - offset, 0), (index + 1) * size - offset
        found.append((values[start:stop], slice(index, index + 1)))
    return found


def _spread(scales: AnyArray, size: int, offset: int, columns: int) -> AnyArray:
    """A scale for each column, from one for each block of columns."""
    if scales.shape[1] == 1:
        return scales
    return np.repeat(scales, size, axis=1)[:, offset : offset + columns]


@functools.cache
def _float8_values() -> AnyArray:
    codes: AnyArray = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn)
    return codes.astype(np.float32)


@functools.cache
def _float8_pairs() -> AnyArray:
    """For two codes that lie side by side, both values: uint64 [65536]."""
    codes = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return np.ascontiguousarray(_float8_values()[codes]).reshape(-1).view(np.uint64)


@functools.cache
def _nibble_pairs() -> AnyArray:
    """For an octet, the values of both its codes: uint64 [256]."""
    octets = np.arange(256, dtype=np.uint8)
    pairs = np.stack([octets & 15, octets >> 4], axis=1).astype(np.float32) - np.float32(8)
    return pairs.reshape(-1).view(np.uint64)


@functools.cache
def _mxfp4_pairs(dtype: str) -> AnyArray:
    """For a scale (high octet) and two codes (low octet), both values of a dtype, as one word: [65536]."""
    octets = np.arange(256, dtype=np.uint8)
    codes = np.array(_E2M1, np.float32)[np.stack([octets & 15, octets >> 4], axis=1)]
    with np.errstate(over="ignore", invalid="ignore"):
        powers = np.ldexp(np.float32(1), np.arange(256, dtype=np.int32) - _E8M0_BIAS).astype(np.float32)
        pairs = (powers[:, None, None] * codes).astype(numpy_dtype(dtype))
    return np.ascontiguousarray(pairs).reshape(-1).view(f"u{2 * pairs.dtype.itemsize}")
