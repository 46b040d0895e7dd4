"""From numbers to float8 codes and scales of blocks, as DeepSeek's own recipe makes them, and what is lost by it."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np

from converters.quantized import arithmetic
from converters.quantized.arithmetic import FLOAT8_LARGEST
from converters.quantized.stored import AnyArray


@dataclasses.dataclass(frozen=True)
class Loss:
    """How far decoded values are from those that were encoded.

    Attributes:
        absolute: largest difference.
        relative: largest difference in relation to the value, zeros apart.
        error: sum of the squared differences, `total` of the squared values.
    """

    absolute: float = 0.0
    relative: float = 0.0
    error: float = 0.0
    total: float = 0.0

    def joined(self, other: Loss) -> Loss:
        """Of both."""
        return Loss(
            max(self.absolute, other.absolute),
            max(self.relative, other.relative),
            self.error + other.error,
            self.total + other.total,
        )


def float8_blocks(
    values: AnyArray, block: tuple[int, int], powers_of_two: bool
) -> tuple[AnyArray, AnyArray, Loss] | None:
    """Encodes whole blocks; the last ones may be ragged.

    The scale of a block is its largest magnitude / 448, in float32; where only powers of two will do, the next one up.
    Where all of a block is zero, or too small for float32 to hold the scale, it is 1.

    Args:
        values: float32 [rows, columns].
        block: rows and columns that share a scale.
        powers_of_two: whether scales are of the format ue8m0.

    Returns:
        float8_e4m3fn [rows, columns], float32 [blocks, blocks] and what is lost; None where a value is not finite.
    """
    largest = _largest(values, block)
    if not np.isfinite(largest).all():
        return None
    scales = largest / FLOAT8_LARGEST
    if powers_of_two:
        mantissa, exponent = np.frexp(scales)
        scales = np.ldexp(np.float32(1), np.where(mantissa == 0.5, exponent - 1, exponent)).astype(np.float32)
    scales[(largest == 0) | (scales == 0)] = 1
    spread = _spread(scales, block, values.shape)
    with np.errstate(all="ignore"):
        scaled = np.clip(values / spread, -FLOAT8_LARGEST, FLOAT8_LARGEST)
        codes = scaled.astype(ml_dtypes.float8_e4m3fn)
        decoded = arithmetic.float8(np.ascontiguousarray(codes).view(np.uint8)) * spread
    return codes, scales, loss_of(values, decoded)


def _largest(values: AnyArray, block: tuple[int, int]) -> AnyArray:
    """The largest magnitude of each block, NaN where there is one."""
    rows = np.maximum.reduceat(np.abs(values), np.arange(0, values.shape[0], block[0]), axis=0)
    found: AnyArray = np.maximum.reduceat(rows, np.arange(0, values.shape[1], block[1]), axis=1)
    return found


def _spread(scales: AnyArray, block: tuple[int, int], shape: tuple[int, ...]) -> AnyArray:
    return np.repeat(np.repeat(scales, block[0], axis=0)[: shape[0]], block[1], axis=1)[:, : shape[1]]


def loss_of(values: AnyArray, decoded: AnyArray, counts: AnyArray | None = None) -> Loss:
    """What is lost where float32 values are decoded to others; `counts` says how often each pair occurs."""
    difference = np.abs(values - decoded)
    size = np.abs(values)
    with np.errstate(all="ignore"):
        relative = np.divide(difference, size, out=np.zeros_like(size), where=size > 0)
    sums = (_squares(difference, counts), _squares(size, counts))
    return Loss(float(difference.max(initial=0)), float(relative.max(initial=0)), *sums)


def _squares(values: AnyArray, counts: AnyArray | None) -> float:
    # Not as a dot product: that starts threads of its own.
    squares = np.square(values, dtype=np.float64)
    return float((squares if counts is None else squares * counts).sum())
