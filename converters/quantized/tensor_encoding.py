"""From numbers to float8 codes with one scale: the largest magnitude, the scale, the codes, and what is lost by it.

Scale and codes are those that compressed-tensors computes of float32 values (`calculate_qparams` and `quantize` of
version 0.20.0, symmetric, strategy `tensor`).
"""

from __future__ import annotations

import dataclasses
import functools

import ml_dtypes
import numpy as np

from converters.quantized import arithmetic
from converters.quantized.arithmetic import FLOAT8_LARGEST
from converters.quantized.encoding import Loss, loss_of
from converters.quantized.stored import AnyArray

SCALE_OF_ZEROS = np.finfo(np.float32).eps
"""The scale where the largest magnitude / 448 is zero."""

# Elements at a time: temporaries of all steps fit the cache.
_PIECE = 1 << 14
_COUNTED = 1 << 18
_PATTERNS = 1 << 16
# All numbers of 16 bits are encoded once where there are more elements than that.
_MANY = 1 << 16
_SIXTEEN_BITS = ("bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Largest:
    """The largest magnitude of an array, or of a part of it.

    Attributes:
        size: the magnitude, as float32.
        at: where an element has it.
    """

    size: float
    at: tuple[int, ...]

    def joined(self, other: Largest) -> Largest:
        """Of both."""
        return self if self.size >= other.size else other


def largest(values: AnyArray) -> Largest | None:
    """Looks through values of a floating dtype; None where one is not finite as float32.

    Args:
        values: C-contiguous.
    """
    flat = values.reshape(-1)
    size, place = -1, 0
    for start in range(0, flat.size, _PIECE):
        magnitudes = _magnitudes(flat[start : start + _PIECE])
        here = int(magnitudes.max())
        if here > size:
            size, place = here, start + int(magnitudes.argmax())
    at = tuple(int(n) for n in np.unravel_index(place, values.shape)) if flat.size else (0,) * values.ndim
    value = float(np.abs(_float32(flat[place]))) if flat.size else 0.0
    return Largest(value, at) if np.isfinite(value) else None


def scale_of(size: float) -> np.float32:
    """The scale of an array whose largest magnitude is given."""
    scale = np.float32(size) / FLOAT8_LARGEST
    return np.float32(scale) if scale > 0 else np.float32(SCALE_OF_ZEROS)


def float8_tensor(values: AnyArray, scale: np.float32) -> tuple[AnyArray, Loss]:
    """Encodes values: quotients in float32, rounded to the nearest code, of two to the even one; no code is NaN.

    Args:
        values: C-contiguous, of a floating dtype, finite.
        scale: of all of them.

    Returns:
        float8_e4m3fn of the same shape, and what is lost.
    """
    flat = values.reshape(-1)
    codes = np.empty(flat.size, ml_dtypes.float8_e4m3fn)
    if values.dtype.name in _SIXTEEN_BITS and flat.size > _MANY:
        loss = _by_pattern(flat, scale, codes.view(np.uint8))
    else:
        loss = Loss()
        for start in range(0, flat.size, _PIECE):
            piece = _float32(flat[start : start + _PIECE])
            codes[start : start + _PIECE], decoded = _encoded(piece, scale)
            loss = loss.joined(loss_of(piece, decoded))
    return codes.reshape(values.shape), loss


def _by_pattern(flat: AnyArray, scale: np.float32, codes: AnyArray) -> Loss:
    """Encodes by looking up each pattern of 16 bits; the loss is that of each pattern, as often as it occurs."""
    numbers = _float32(np.arange(_PATTERNS, dtype=np.uint16).view(flat.dtype))
    numbers = np.where(np.isfinite(numbers), numbers, np.float32(0))
    table, decoded = _encoded(numbers, scale)
    patterns = flat.view(np.uint16)
    counts = np.zeros(_PATTERNS, np.int64)
    for start in range(0, flat.size, _COUNTED):
        counts += np.bincount(patterns[start : start + _COUNTED], minlength=_PATTERNS)
        for at in range(start, min(start + _COUNTED, flat.size), _PIECE):
            piece = slice(at, min(at + _PIECE, start + _COUNTED))
            np.take(table.view(np.uint8), patterns[piece], out=codes[piece], mode="clip")
    there = counts > 0
    return loss_of(numbers[there], decoded[there], counts[there])


def _encoded(piece: AnyArray, scale: np.float32) -> tuple[AnyArray, AnyArray]:
    """Codes of finite float32 values, and what they stand for."""
    with np.errstate(all="ignore"):
        patterns = (piece / scale).view(np.uint32)
        # The upper half, made odd where the lower half holds anything: a code needs five bits of mantissa at most to
        # be rounded to, and an odd number of seven is never half way between two codes.
        upper = (patterns >> np.uint32(16)).astype(np.uint16) | ((patterns & np.uint32(0xFFFF)) != 0)
        codes = np.take(_codes(), upper, mode="clip")
        decoded: AnyArray = arithmetic.float8(codes.view(np.uint8)) * scale
    return codes, decoded


@functools.cache
def _codes() -> AnyArray:
    """The code nearest to each bfloat16 number; of those beyond the largest code, that one."""
    with np.errstate(all="ignore"):
        numbers = np.arange(_PATTERNS, dtype=np.uint16).view(ml_dtypes.bfloat16).astype(np.float32)
        codes: AnyArray = np.clip(numbers, -FLOAT8_LARGEST, FLOAT8_LARGEST).astype(ml_dtypes.float8_e4m3fn)
    return codes


def _magnitudes(piece: AnyArray) -> AnyArray:
    """Patterns of bits that are ordered as magnitudes are; infinity and NaN come last."""
    if piece.dtype.itemsize == 2:
        short: AnyArray = piece.view(np.uint16) & np.uint16(0x7FFF)
        return short
    long: AnyArray = _float32(piece).view(np.uint32) & np.uint32(0x7FFF_FFFF)
    return long


def _float32(values: AnyArray) -> AnyArray:
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float32, copy=False)
