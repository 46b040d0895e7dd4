"""Where two regions of values differ: how many elements, which is the first, by how much at most."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from converters.engine import comparison_grids, values
from converters.engine.values import AnyArray
from converters.formats.base import Region
from converters.formats.regions import parts

# Elements compared at a time, so that temporaries stay in the cache whatever the size of the region.
_BLOCK = 1 << 18


@dataclasses.dataclass(frozen=True)
class Difference:
    """How one array differs from what it was compared with.

    Attributes:
        count: elements whose bits differ.
        first: coordinate of the first of them in C order.
        expected: its value on the one side, `found` on the other.
        largest: greatest absolute difference where both sides are finite; 0 where only NaN, infinity or -0 differ.
    """

    count: int
    first: tuple[int, ...]
    expected: str
    found: str
    largest: float

    def joined(self, other: Difference) -> Difference:
        """Both, where they are of two regions of one array."""
        near = min(self, other, key=lambda difference: difference.first)
        return dataclasses.replace(near, count=self.count + other.count, largest=max(self.largest, other.largest))


class Differences:
    """Collects the differences of all arrays; thread-safe.

    Attributes:
        bytes: compared so far, as stored on the second side.
        arrays: the differences by array.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._found: dict[str, Difference] = {}
        self._lock = threading.Lock()

    @property
    def arrays(self) -> Mapping[str, Difference]:
        """What differs, by array."""
        return self._found

    def compare(
        self, name: str, region: Region, expected: AnyArray, found: AnyArray, stored_bytes: int | None = None
    ) -> None:
        """Compares the two sides of one region of an array; the last argument where `found` was computed."""
        difference = first_difference(region, expected, found)
        with self._lock:
            self.bytes += found.nbytes if stored_bytes is None else stored_bytes
            if difference is not None:
                before = self._found.get(name)
                self._found[name] = difference if before is None else before.joined(difference)


def first_difference(region: Region, expected: AnyArray, found: AnyArray) -> Difference | None:
    """Compares two arrays of a region's shape bit by bit; where dtypes differ, in one that holds both.

    Returns:
        The difference with coordinates of the whole array, or None.
    """
    wide = expected.dtype if expected.dtype == found.dtype else _wide(expected, found)
    count, largest = 0, 0.0
    first: tuple[int, ...] | None = None
    with np.errstate(all="ignore"):
        for box in blocks(tuple((0, size) for size in expected.shape)):
            at: tuple[Any, ...] = (*(slice(start, stop) for start, stop in box), ...)
            a, b = expected[at].astype(wide, copy=False), found[at].astype(wide, copy=False)
            mask = np.asarray(_bits(a) != _bits(b))
            if not mask.any():
                continue
            count += int(np.count_nonzero(mask))
            if first is None:
                first = _first(mask, box)
            largest = max(largest, _largest(a[mask], b[mask]))
    if first is None:
        return None
    where = tuple(n + start for n, (start, _) in zip(first, region, strict=True))
    return Difference(count, where, str(expected[first]), str(found[first]), largest)


def blocks(region: Region) -> Iterator[Region]:
    """A region cut, in C order, into ranges whose temporaries stay in the cache."""
    shape = [stop - start for start, stop in region]
    return parts(region, comparison_grids.grown(shape, None, 1, _BLOCK))


def _first(mask: AnyArray, box: Region) -> tuple[int, ...]:
    """The first place that is set, counted from where the box was counted from."""
    local = np.unravel_index(int(np.argmax(mask)), mask.shape) if mask.shape else ()
    return tuple(int(n) + start for n, (start, _) in zip(local, box, strict=True))


def _wide(first: AnyArray, second: AnyArray) -> np.dtype[np.generic]:
    names = [str(first.dtype), str(second.dtype)]
    if all(name in values.FLOAT_DTYPES for name in names):
        return values.dtype_of(values.common(names))
    return np.dtype(np.float64)


def _bits(array: AnyArray) -> AnyArray:
    return array.view(f"u{array.dtype.itemsize}")


def _largest(first: AnyArray, second: AnyArray) -> float:
    a, b = first.astype(np.float64), second.astype(np.float64)
    finite = np.isfinite(a) & np.isfinite(b)
    return float(np.abs(a[finite] - b[finite]).max()) if finite.any() else 0.0
