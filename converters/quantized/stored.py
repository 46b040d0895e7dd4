"""How one plain array is stored: which arrays hold its codes and scales, and which elements share a scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from validators.quantization import MXFP4, Weights

AnyArray = np.ndarray[Any, np.dtype[Any]]
Box = tuple[tuple[int, int], ...]
Sizes = tuple[int, ...]

_WORD_BITS = 32


@dataclasses.dataclass(frozen=True)
class Stored:
    """A plain array that a checkpoint holds as codes.

    The codes form a matrix, or a stack of matrices along leading axes; blocks lie in its last two axes. An MXFP4 matrix
    is the plain one turned: its rows are the last axis of the plain array.

    Attributes:
        name: of the plain array.
        shape: of the plain array; two axes at least.
        weights: the way in which it is stored.
        codes: name of the array of codes.
        scales: name of the array of scales; `scales_shape` and `scales_dtype` are what its header says.
        zero_points: name of the array of zero points; empty where there are none.
        rounded: dtype to which each product is rounded before anything else, as the format's library does it; empty
            where float32 is kept until the end.
    """

    name: str
    shape: Sizes
    weights: Weights
    codes: str
    scales: str
    scales_shape: Sizes
    scales_dtype: str
    zero_points: str = ""
    rounded: str = ""

    @property
    def matrix(self) -> tuple[int, int]:
        """Rows and columns of the matrix of codes."""
        *_, rows, columns = self.shape
        return (columns, rows) if self.weights.codes == MXFP4 else (rows, columns)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns that share a scale."""
        rows, columns = (size or whole for size, whole in zip(self.weights.block, self.matrix, strict=True))
        return max(rows, 1), max(columns, 1)

    @property
    def parts(self) -> tuple[str, ...]:
        """The arrays that are read to decode it."""
        return tuple(name for name in (self.codes, self.scales, self.zero_points) if name)

    def region_of_scales(self, lead: Sequence[int], rows: tuple[int, int], columns: tuple[int, int]) -> Box:
        """Where the scales of a region of a matrix lie in their array; that region holds them as a matrix, reshaped.

        Args:
            lead: indices on the leading axes.
            rows: first and last row + 1 of the matrix, of elements.
            columns: likewise.
        """
        sides = [span(ends, size) for ends, size in zip((rows, columns), self.block, strict=True)]
        rank = len(self.scales_shape)
        if rank == len(self.shape):
            return (*((index, index + 1) for index in lead), *sides)
        # One scale for all, as a scalar or a list of one; or one for each row, as a list.
        return (sides[0],) if rank else ()


def span(ends: tuple[int, int], size: int) -> tuple[int, int]:
    """The blocks of a size that a range of elements touches."""
    return ends[0] // size, -(-ends[1] // size)


def shapes_of_scales(shape: Sizes, weights: Weights) -> tuple[Sizes, ...]:
    """The shapes that the scales of codes may have: a full grid, or shorter forms that say the same.

    Args:
        shape: of the unpacked codes, as matrices.
        weights: how they are stored.
    """
    *lead, rows, columns = shape
    grid = tuple(
        1 if not size else -(-whole // size) for whole, size in zip((rows, columns), weights.block, strict=True)
    )
    full = (*lead, *grid)
    if weights.block == (0, 0):
        # Of a stack, a full grid has a scale for each matrix, the shorter forms one for all of them.
        return (full, (1,), ())
    if weights.block == (1, 0) and not lead:
        return (full, (rows,))
    return (full,)


def packed_columns(columns: int, bits: int) -> int:
    """Words of 32 bits that a row of codes takes."""
    return math.ceil(columns / (_WORD_BITS // bits))
