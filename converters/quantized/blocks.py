"""Which arrays are encoded as float8 codes and scales, in what blocks, and how that cuts them and what it takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from converters.formats.base import Region
from converters.quantized.stored import span
from validators.quantization import FLOAT8, Weights

# Elements encoded at a time, so that temporaries stay small whatever the size of a region.
PIECE = 1 << 14
ENCODING_BYTES = 40 * PIECE
"""What encoding a piece allocates, at most: some arrays in float32, some in float64."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """How arrays are encoded.

    Attributes:
        size: rows and columns that share a scale.
        powers_of_two: whether scales are of the format ue8m0.
        names: of the arrays.
    """

    size: tuple[int, int]
    powers_of_two: bool
    names: frozenset[str]

    @property
    def ending(self) -> str:
        """What the publisher of this recipe adds to the name of a weight."""
        return "_scale_inv"

    @property
    def weights(self) -> Weights:
        """The way in which the arrays are stored."""
        return Weights(FLOAT8, 8, self.size)

    @property
    def encoding_bytes(self) -> int:
        """What encoding a unit allocates beside its codes, at most."""
        return ENCODING_BYTES

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """How many blocks an array has on each axis."""
        *lead, rows, columns = shape
        return (*lead, -(-rows // self.size[0]), -(-columns // self.size[1]))

    def region(self, region: Region) -> Region:
        """The blocks that a region touches."""
        *lead, rows, columns = region
        return (*lead, span(rows, self.size[0]), span(columns, self.size[1]))

    def units(self, chunk: Sequence[int], shape: Sequence[int], room: int) -> tuple[int, ...]:
        """A box size like a given one, of whole blocks; not larger, but where a block is."""
        *lead, rows, columns = (min(size, whole) for size, whole in zip(chunk, shape, strict=True))
        high = _multiple(rows, self.size[0], shape[-2])
        wide = _multiple(columns, self.size[1], shape[-1])
        if high * wide > rows * columns:
            wide = _multiple(max(rows * columns // high, 1), self.size[1], shape[-1])
            high = _multiple(max(rows * columns // wide, 1), self.size[0], shape[-2])
        return (*lead, high, wide)


def _multiple(size: int, step: int, whole: int) -> int:
    """A size that is the whole axis, or steps of it; one step at least."""
    return whole if size >= whole else min(max(size // step, 1) * step, whole)
