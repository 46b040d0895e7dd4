"""A quantised checkpoint seen as plain arrays: the codes and scales of a region are decoded when it is read."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from converters.formats.base import Region, Source, TensorInfo
from converters.formats.dtypes import numpy_dtype
from converters.formats.fingerprints import Fingerprint
from converters.formats.regions import check_inside, parts, shape_of, whole
from converters.quantized import arithmetic, scales
from converters.quantized.stored import AnyArray, Stored, span
from validators.quantization import FLOAT8, MXFP4, PACKED

# Elements decoded at a time, so that temporaries stay in the cache whatever the size of the region.
_STRIP = 1 << 16
# Elements of the boxes in which large regions are asked for.
_PIECE = 1 << 19


class DecodingSource:
    """Plain arrays over a source of codes. Thread-safe where the source is.

    A read allocates its result, unlike one of mapped files: `piece` says in what boxes to ask for large regions.
    """

    def __init__(self, source: Source, stored: Mapping[str, Stored], plain: Mapping[str, TensorInfo], dtype: str):
        """Makes a source.

        Args:
            source: holds codes, scales and plain arrays; is closed with this one.
            stored: the arrays to decode, by plain name.
            plain: the arrays that are passed through.
            dtype: of decoded arrays.
        """
        self._source = source
        self._stored = stored
        self._dtype = dtype
        decoded = {
            name: TensorInfo(name, one.shape, dtype, source.tensors[one.codes].location) for name, one in stored.items()
        }
        self._tensors = {**plain, **decoded}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All plain arrays by name."""
        return self._tensors

    @property
    def stored(self) -> Mapping[str, Stored]:
        """How the decoded arrays are stored, by plain name."""
        return self._stored

    @property
    def dtype(self) -> str:
        """Of the decoded arrays."""
        return self._dtype

    @property
    def source(self) -> Source:
        """What holds the codes."""
        return self._source

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """None for what is decoded: every element can be decoded by itself."""
        return None if name in self._stored else self._source.chunk(name)

    def piece(self, name: str) -> tuple[int, ...] | None:
        """The box sizes in which a large region is to be read, since that allocates memory; None where it does not."""
        one = self._stored.get(name)
        if one is None:
            return None
        *lead, rows, columns = one.shape
        if one.weights.codes == MXFP4:
            # Rows here are columns of the codes, which are decoded as whole groups.
            rows = min(rows, _PIECE)
            return (*(1 for _ in lead), rows, max(1, min(columns, _PIECE // rows)))
        columns = min(columns, _PIECE)
        block = one.block[0]
        height = max(1, min(rows, _PIECE // columns))
        return (*(1 for _ in lead), height // block * block or height, columns)

    def exactness(self, name: str) -> str:
        """EXACT where decoding keeps every value as its codes mean it, unless it overflows; else ROUNDING."""
        one = self._stored.get(name)
        exact = one is None or (one.weights.codes == MXFP4 and self._dtype in ("bfloat16", "float32"))
        return "EXACT" if exact else "ROUNDING"

    def read(self, name: str, region: Region) -> AnyArray:
        """The elements of a region: decoded into new memory, or as the source gives them.

        Raises:
            RecastError: SCALE_INVALID, and what the source raises.
            ValueError: the region does not lie in the array.
        """
        one = self._stored.get(name)
        if one is None:
            return self._source.read(name, region)
        check_inside(name, region, one.shape)
        turned = one.weights.codes == MXFP4
        # MXFP4 is decoded as it lies, and shown turned: who reads it turns or keeps it in one copy.
        places = shape_of(region)
        shape = (*places[:-2], places[-1], places[-2]) if turned else places
        out: AnyArray = np.empty(shape, numpy_dtype(self._dtype))
        if not out.size:
            return out.reshape(places)
        *lead, rows, columns = region
        for index in itertools.product(*(range(start, stop) for start, stop in lead)):
            at = tuple(i - start for i, (start, _) in zip(index, lead, strict=True))
            if turned:
                self._decode_mxfp4(one, index, columns, rows, out[at])
            else:
                self._decode(one, index, rows, columns, out[at])
        return np.swapaxes(out, -1, -2) if turned else out

    def magnitude(self, name: str) -> float:
        """The largest magnitude that the codes of an array mean; infinity where float32 does not hold it.

        Raises:
            RecastError: SCALE_INVALID, and what the source raises.
        """
        one = dataclasses.replace(self._stored[name], rounded="")
        wide = DecodingSource(self._source, {name: one}, {}, "float32")
        largest = np.float32(0)
        for box in parts(whole(one.shape), wide.piece(name) or one.shape):
            decoded = wide.read(name, box)
            largest = np.fmax.reduce(np.abs(decoded, out=decoded), axis=None, initial=largest)
            wide.release(name, box)
        return float(largest)

    def nearest(self, name: str, region: Region, values: AnyArray) -> AnyArray:
        """Of values for a region, what float8 codes hold of them by the stored scales; others stay as they are.

        Raises:
            RecastError: SCALE_INVALID, and what the source raises.
        """
        one = self._stored.get(name)
        if one is None or one.weights.codes != FLOAT8 or not values.size:
            return values
        out = np.empty_like(values)
        *lead, rows, columns = region
        for index in itertools.product(*(range(start, stop) for start, stop in lead)):
            at = tuple(i - start for i, (start, _) in zip(index, lead, strict=True))
            for low, high in _strips(rows, columns, one.block[0]):
                part = slice(low - rows[0], high - rows[0])
                factors = np.ones((high - low, columns[1] - columns[0]), np.float32)
                place = (low % one.block[0], columns[0] % one.block[1])
                with np.errstate(all="ignore"):
                    arithmetic.combine(factors, self._scales(one, index, (low, high), columns), None, one.block, place)
                    decoded = arithmetic.through_float8(values[at][part].astype(np.float32), factors)
                    arithmetic.rounded(decoded, one.rounded, out[at][part])
        return out

    def release(self, name: str, region: Region) -> None:
        """Gives back the memory of the codes of a region."""
        one = self._stored.get(name)
        if one is None:
            self._source.release(name, region)
            return
        if any(start == stop for start, stop in region):
            return
        *lead, rows, columns = region
        if one.weights.codes == MXFP4:
            groups = span(rows, one.block[1])
            self._source.release(one.codes, (*lead, columns, groups, (0, self._source.tensors[one.codes].shape[-1])))
        elif one.weights.codes == PACKED:
            self._source.release(one.codes, (*lead, rows, span(columns, 32 // one.weights.bits)))
        else:
            self._source.release(one.codes, region)

    def fingerprints(self) -> Sequence[Fingerprint]:
        """Those of the source."""
        return self._source.fingerprints()

    def close(self) -> None:
        """Closes the source."""
        self._source.close()

    def _decode(
        self, one: Stored, lead: tuple[int, ...], rows: tuple[int, int], columns: tuple[int, int], out: AnyArray
    ) -> None:
        """Decodes a region of one matrix, some whole rows of blocks at a time where these are small."""
        size = one.block[0]
        for low, high in _strips(rows, columns, size):
            values = self._values(one, lead, (low, high), columns)
            factors = self._scales(one, lead, (low, high), columns)
            zeros = self._zeros(one, lead, (low, high), columns)
            with np.errstate(over="ignore", invalid="ignore"):
                arithmetic.combine(values, factors, zeros, one.block, (low % size, columns[0] % one.block[1]))
                arithmetic.rounded(values, one.rounded, out[low - rows[0] : high - rows[0]])

    def _values(self, one: Stored, lead: tuple[int, ...], rows: tuple[int, int], columns: tuple[int, int]) -> AnyArray:
        """Codes as float32, in memory of their own."""
        first = tuple((index, index + 1) for index in lead)
        if one.weights.codes == PACKED:
            per_word = 32 // one.weights.bits
            words = span(columns, per_word)
            read = self._source.read(one.codes, (*first, rows, words))
            matrix = np.ascontiguousarray(read).reshape(rows[1] - rows[0], words[1] - words[0])
            values = arithmetic.packed(matrix, one.weights.bits)
            start = columns[0] - words[0] * per_word
            return values[:, start : start + columns[1] - columns[0]]
        read = self._source.read(one.codes, (*first, rows, columns))
        matrix = np.ascontiguousarray(read).reshape(rows[1] - rows[0], columns[1] - columns[0])
        return arithmetic.float8(matrix.view(np.uint8)) if one.weights.codes == FLOAT8 else matrix.astype(np.float32)

    def _scales(self, one: Stored, lead: tuple[int, ...], rows: tuple[int, int], columns: tuple[int, int]) -> AnyArray:
        region = one.region_of_scales(lead, rows, columns)
        read = self._source.read(one.scales, region)
        scales.check(one.scales, region, read)
        return read.astype(np.float32).reshape(_grid(one, rows, columns))

    def _zeros(
        self, one: Stored, lead: tuple[int, ...], rows: tuple[int, int], columns: tuple[int, int]
    ) -> AnyArray | None:
        if not one.zero_points:
            return None
        read = self._source.read(one.zero_points, one.region_of_scales(lead, rows, columns))
        return read.astype(np.float32).reshape(_grid(one, rows, columns))

    def _decode_mxfp4(
        self, one: Stored, lead: tuple[int, ...], rows: tuple[int, int], columns: tuple[int, int], out: AnyArray
    ) -> None:
        """Decodes a region of one matrix of codes into its place, [rows, columns]."""
        first = tuple((index, index + 1) for index in lead)
        groups = span(columns, one.block[1])
        octets = self._source.tensors[one.codes].shape[-1]
        step = max(1, _STRIP // ((groups[1] - groups[0]) * one.block[1]))
        start = columns[0] - groups[0] * one.block[1]
        for low in range(rows[0], rows[1], step):
            high = min(low + step, rows[1])
            region = (*first, (low, high), groups)
            exponents = self._source.read(one.scales, region)
            scales.check(one.scales, region, exponents)
            codes = self._source.read(one.codes, (*region, (0, octets)))
            shape = (high - low, groups[1] - groups[0])
            values = arithmetic.mxfp4(codes.reshape(*shape, octets), exponents.reshape(shape), self._dtype)
            out[low - rows[0] : high - rows[0]] = values[:, start : start + columns[1] - columns[0]]


def _strips(rows: tuple[int, int], columns: tuple[int, int], size: int) -> Iterator[tuple[int, int]]:
    """Rows in strips that end where blocks of a size do, as far as these are small."""
    height = max(1, _STRIP // max(columns[1] - columns[0], 1))
    step = height // size * size or height
    low = rows[0]
    while low < rows[1]:
        high = min((low // step + 1) * step, rows[1])
        yield low, high
        low = high


def _grid(one: Stored, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[int, int]:
    """How many blocks a region touches along both axes."""
    high, wide = (span(ends, size) for ends, size in zip((rows, columns), one.block, strict=True))
    return high[1] - high[0], wide[1] - wide[0]
