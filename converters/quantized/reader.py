"""Single elements of a quantised checkpoint, decoded one by one by other arithmetic than that of the source."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from converters.formats.base import Reader
from converters.formats.dtypes import numpy_dtype
from converters.quantized.stored import AnyArray, Stored

# Stated again on purpose: names shared with the bulk decoder would hide its mistakes.
_FLOAT8, _INT8, _PACKED, _MXFP4 = "float8_e4m3fn", "int8", "packed", "mxfp4"


class DecodingReader:
    """Elements of plain arrays."""

    def __init__(self, stored: Reader, arrays: Mapping[str, Stored], dtype: str):
        """Args: what reads codes and scales; how arrays are stored, by plain name; dtype of decoded elements."""
        self._stored = stored
        self._arrays = arrays
        self._dtype = dtype

    def names(self) -> frozenset[str]:
        """The plain arrays that are there."""
        taken = {name for one in self._arrays.values() for name in one.parts}
        there = self._stored.names()
        return (there - taken) | {name for name, one in self._arrays.items() if there.issuperset(one.parts)}

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The plain values at coordinates."""
        one = self._arrays.get(name)
        if one is None:
            return self._stored.elements(name, coordinates)
        places = [_matrix(one, [int(n) for n in point]) for point in coordinates]
        codes = self._codes(one, places)
        scales = self._scales(one, places)
        zeros = self._numbers(one.zero_points, [_block(one, place) for place in places]) if one.zero_points else None
        found = [
            _value(one, code - (zeros[i] if zeros else 0.0), scale, self._dtype)
            for i, (code, scale) in enumerate(zip(codes, scales, strict=True))
        ]
        return np.array(found, numpy_dtype(self._dtype))

    def scales(self, name: str, coordinates: AnyArray) -> list[float]:
        """The scales of the elements at coordinates."""
        one = self._arrays[name]
        return self._scales(one, [_matrix(one, [int(n) for n in point]) for point in coordinates])

    def _codes(self, one: Stored, places: list[list[int]]) -> list[float]:
        kind, bits = one.weights.codes, one.weights.bits
        if kind == _MXFP4:
            octets = self._numbers(one.codes, [[*lead, row, at // 32, at % 32 // 2] for *lead, row, at in places])
            halves = [place[-1] % 2 for place in places]
            return [
                _of_e2m1(int(octet) >> 4 if half else int(octet) & 15)
                for octet, half in zip(octets, halves, strict=True)
            ]
        if kind == _PACKED:
            each = 32 // bits
            words = self._numbers(one.codes, [[*place[:-1], place[-1] // each] for place in places])
            shifts = [place[-1] % each * bits for place in places]
            return [
                float(((int(word) % (1 << 32)) >> shift) % (1 << bits) - (1 << (bits - 1)))
                for word, shift in zip(words, shifts, strict=True)
            ]
        if kind == _INT8:
            return self._numbers(one.codes, places)
        read = self._stored.elements(one.codes, np.array(places, np.int64))
        return [_of_e4m3(int(code)) for code in read.view(np.uint8)]

    def _scales(self, one: Stored, places: list[list[int]]) -> list[float]:
        numbers = self._numbers(one.scales, [_block(one, place) for place in places])
        if one.weights.codes != _MXFP4:
            return numbers
        return [math.ldexp(1.0, int(number) - 127) for number in numbers]

    def _numbers(self, name: str, places: list[list[int]]) -> list[float]:
        coordinates = np.array(places, np.int64).reshape(len(places), -1 if places and places[0] else 0)
        return [float(number) for number in self._stored.elements(name, coordinates)]


def _value(one: Stored, code: float, scale: float, dtype: str) -> np.generic:
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.float32(np.float32(code) * np.float32(scale))
        if one.rounded:
            value = np.float32(numpy_dtype(one.rounded).type(value))
        rounded: np.generic = numpy_dtype(dtype).type(value)
    return rounded


def _matrix(one: Stored, point: list[int]) -> list[int]:
    """The coordinate in the codes' own order of axes."""
    *lead, row, column = point
    return [*lead, column, row] if one.weights.codes == _MXFP4 else [*lead, row, column]


def _block(one: Stored, place: list[int]) -> list[int]:
    """The coordinate of an element's scale."""
    *lead, row, column = place
    high, wide = one.block
    rank = len(one.scales_shape)
    if rank < 2:
        # A single scale, or a list: of one scale for each row, or of a single one.
        return [row // high][:rank]
    return [*lead, row // high, column // wide]


def _of_e4m3(code: int) -> float:
    sign = -1.0 if code & 0x80 else 1.0
    exponent, mantissa = (code >> 3) & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return math.nan
    if exponent == 0:
        return sign * mantissa * 2.0**-9
    return sign * (8 + mantissa) * 2.0 ** (exponent - 10)


def _of_e2m1(code: int) -> float:
    sign = -1.0 if code & 8 else 1.0
    exponent, mantissa = (code >> 1) & 3, code & 1
    return sign * (mantissa * 0.5 if exponent == 0 else (2 + mantissa) * 2.0 ** (exponent - 2))
