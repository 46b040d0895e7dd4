"""Where two regions of values differ: how many elements, which is the first, by how much at most."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Mapping, Sequence

import numpy as np

from converters.engine import values
from converters.engine.values import AnyArray
from converters.formats.base import Region

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

    def compare(self, name: str, region: Region, expected: AnyArray, found: AnyArray) -> None:
        """Compares the two sides of one region of an array."""
        difference = first_difference(region, expected, found)
        with self._lock:
            self.bytes += found.nbytes
            if difference is not None:
                before = self._found.get(name)
                self._found[name] = difference if before is None else before.joined(difference)


def first_difference(region: Region, expected: AnyArray, found: AnyArray) -> Difference | None:
    """Compares two arrays of a region's shape bit by bit; where dtypes differ, in one that holds both.

    Returns:
        The difference with coordinates of the whole array, or None.
    """
    wide = expected.dtype if expected.dtype == found.dtype else _wide(expected, found)
    ours, theirs = expected.reshape(-1), _flat(found)
    count, first, largest = 0, -1, 0.0
    with np.errstate(all="ignore"):
        for start in range(0, ours.size, _BLOCK):
            a = ours[start : start + _BLOCK].astype(wide, copy=False)
            b = theirs[start : start + _BLOCK].astype(wide, copy=False)
            mask = _bits(a) != _bits(b)
            if not mask.any():
                continue
            count += int(np.count_nonzero(mask))
            first = start + int(np.argmax(mask)) if first < 0 else first
            largest = max(largest, _largest(a[mask], b[mask]))
    if first < 0:
        return None
    shape = tuple(stop - start for start, stop in region)
    local = np.unravel_index(first, shape) if shape else ()
    where = tuple(int(n) + start for n, (start, _) in zip(local, region, strict=True))
    return Difference(count, where, str(ours[first]), str(theirs[first]), largest)


def fitted_box(shape: Sequence[int], chunk: Sequence[int] | None, itemsize: int, limit: int) -> tuple[int, ...]:
    """A box size of whole chunks and at most `limit` bytes, unless a chunk is larger: then it is cut.

    Args:
        shape: of the array.
        chunk: its chunks, None where any region costs the same; then boxes are contiguous ranges.
        itemsize: bytes of an element.
        limit: bytes of a box.
    """
    box = [max(1, min(n, size)) for n, size in zip(chunk or [1] * len(shape), shape, strict=True)]
    for axis in reversed(range(len(box))):
        times = limit // (math.prod(box) * itemsize)
        box[axis] = min(max(shape[axis], 1), box[axis] * max(times, 1))
        if box[axis] < shape[axis]:
            break
    for axis in range(len(box)):
        rest = math.prod(box) // box[axis] * itemsize
        if rest * box[axis] <= limit:
            break
        box[axis] = max(1, limit // rest)
    return tuple(box)


def _flat(array: AnyArray) -> AnyArray:
    return np.ascontiguousarray(array).reshape(-1)


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
