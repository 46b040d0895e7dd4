"""Arithmetic on boxes of arrays."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from converters.formats.base import Region


def whole(shape: Sequence[int]) -> Region:
    """The box of all elements."""
    return tuple((0, size) for size in shape)


def shape_of(region: Region) -> tuple[int, ...]:
    """Sizes of a box."""
    return tuple(stop - start for start, stop in region)


def slices(region: Region) -> tuple[slice, ...]:
    """A box as an index."""
    return tuple(slice(start, stop) for start, stop in region)


def parts(region: Region, box: Sequence[int]) -> Iterator[Region]:
    """A region cut into boxes from its first corner on, in C order."""
    steps = [range(start, stop, size) for (start, stop), size in zip(region, box, strict=True)]
    for start in itertools.product(*steps):
        yield tuple((a, min(a + size, stop)) for a, size, (_, stop) in zip(start, box, region, strict=True))


def check_inside(name: str, region: Region, shape: Sequence[int]) -> None:
    """Raises ValueError unless the box has the array's rank and lies in it."""
    fits = len(region) == len(shape) and all(
        0 <= start <= stop <= size for (start, stop), size in zip(region, shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: {region} is not a region of an array of shape {tuple(shape)}")


def span(region: Region, shape: Sequence[int]) -> tuple[int, int]:
    """First element and one past the last element of a box, counted in C order.

    Every element of the box lies between the two; others do too unless the box is contiguous.
    """
    if any(start == stop for start, stop in region):
        return 0, 0
    first = last = 0
    for (start, stop), size in zip(region, shape, strict=True):
        first = first * size + start
        last = last * size + stop - 1
    return first, last + 1
