"""What all ways of encoding arrays have in common: which arrays, what their scales are called, and where these lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from converters.formats.base import Region
from validators.quantization import Weights

SCALES_DTYPE = "float32"


class Form(Protocol):
    """How some arrays of an output are encoded as codes and scales."""

    @property
    def names(self) -> frozenset[str]:
        """Of the arrays that are encoded."""

    @property
    def ending(self) -> str:
        """What the name of an array's scales adds to its own."""

    @property
    def weights(self) -> Weights:
        """The way in which the arrays are stored."""

    @property
    def encoding_bytes(self) -> int:
        """What encoding a unit allocates beside its codes, at most."""

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of an array's scales."""

    def region(self, region: Region) -> Region:
        """The scales of a region."""

    def units(self, chunk: Sequence[int], shape: Sequence[int], room: int) -> tuple[int, ...]:
        """A box size like a given one that can be encoded.

        Args:
            chunk: the size.
            shape: of the array.
            room: how many elements a unit may have where it need not be like the given one.
        """


def bytes_stored(shape: Sequence[int], form: Form) -> int:
    """What an encoded array takes, its scales included."""
    return math.prod(shape) + 4 * math.prod(form.grid(shape))
