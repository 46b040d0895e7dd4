"""What makes codes and scales of a region's values, in blocks or with one scale for an array."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from converters.formats.base import Region
from converters.formats.regions import shape_of
from converters.quantized.blocks import PIECE, Blocks
from converters.quantized.encoding import Loss, float8_blocks
from converters.quantized.forms import Form
from converters.quantized.magnitudes import Magnitudes
from converters.quantized.stored import AnyArray, span
from converters.quantized.tensor_encoding import float8_tensor, scale_of
from converters.quantized.whole_tensors import WholeTensors
from reporting.diagnostics import RecastError

_PLAIN = "Write plain weights: leave --requantize out."


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A region's codes, the scales that belong to it, and what encoding lost."""

    codes: AnyArray
    scales: AnyArray
    loss: Loss


class Encoder(Protocol):
    """Encodes regions of arrays. Thread-safe."""

    @property
    def form(self) -> Form:
        """What is encoded, and how."""

    def encode(self, name: str, region: Region, values: AnyArray) -> Encoded:
        """Codes and scales of a region's values.

        Raises:
            RecastError: SCALE_INVALID where values are not finite.
        """


class BlockEncoder:
    """Encodes blocks; regions are whole blocks of float32."""

    def __init__(self, blocks: Blocks):
        """Args: how arrays are encoded, and which."""
        self._blocks = blocks

    @property
    def form(self) -> Form:
        """The blocks."""
        return self._blocks

    def encode(self, name: str, region: Region, values: AnyArray) -> Encoded:
        """Codes and scales of a region's values, piece by piece.

        Raises:
            RecastError: SCALE_INVALID where values are not finite.
        """
        codes = np.empty(values.shape, ml_dtypes.float8_e4m3fn)
        scales = np.empty(shape_of(self._blocks.region(region)), np.float32)
        loss = Loss()
        for lead, rows, columns in self._pieces(values.shape):
            piece: tuple[Any, ...] = (*lead, slice(*rows), slice(*columns))
            encoded = float8_blocks(values[piece], self._blocks.size, self._blocks.powers_of_two)
            if encoded is None:
                reason = f"{name} holds NaN or infinite values, so that a block of it has no scale."
                raise RecastError.of("SCALE_INVALID", reason, subject=name, suggestion=_PLAIN)
            high, wide = (span(ends, size) for ends, size in zip((rows, columns), self._blocks.size, strict=True))
            codes[piece] = encoded[0]
            of_scales: tuple[Any, ...] = (*lead, slice(*high), slice(*wide))
            scales[of_scales] = encoded[1]
            loss = loss.joined(encoded[2])
        return Encoded(codes, scales, loss)

    def _pieces(self, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, int], tuple[int, int]]]:
        """A region in pieces of whole blocks."""
        *lead, rows, columns = shape
        high, wide = self._blocks.size
        across = max(1, PIECE // max(high * wide, 1)) * wide
        for index in itertools.product(*(range(size) for size in lead)):
            for top, left in itertools.product(range(0, rows, high), range(0, columns, across)):
                yield index, (top, min(top + high, rows)), (left, min(left + across, columns))


class TensorEncoder:
    """Encodes arrays with one scale each: of an array that comes in parts, all parts were looked at before."""

    def __init__(self, form: WholeTensors, magnitudes: Magnitudes):
        """Args: which arrays; what is known of their largest magnitudes."""
        self._form = form
        self._magnitudes = magnitudes

    @property
    def form(self) -> Form:
        """Which arrays are encoded."""
        return self._form

    def encode(self, name: str, region: Region, values: AnyArray) -> Encoded:
        """Codes of a region's values, and the scale of the array.

        Raises:
            RecastError: SCALE_INVALID where values are not finite.
        """
        if not self._magnitudes.knows(name, region):
            self._magnitudes.write(name, region, values)
        scale = scale_of(self._magnitudes.of(name).size)
        codes, loss = float8_tensor(values, scale)
        return Encoded(codes, np.array([scale], np.float32), loss)
