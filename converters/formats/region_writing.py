"""Writes regions of arrays that lie in C order in a file, wherever their bytes fall."""

from __future__ import annotations

import dataclasses
import itertools
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from converters.formats.base import AnyArray, Region

# A call for each run costs as much as copying this many bytes through mapped memory, whose pages are fetched anew for
# each region.
_MAPPED_BELOW = 32 << 10
_PIECE = 8 << 20


@dataclasses.dataclass(frozen=True)
class Runs:
    """The contiguous runs of a region's bytes.

    Attributes:
        first: position of the first byte in the array.
        length: bytes of a run; 0 for a region without elements.
        steps: number of runs and bytes from one to the next, for each axis that takes several, outermost first.
    """

    first: int
    length: int
    steps: tuple[tuple[int, int], ...]

    @property
    def span(self) -> int:
        """Bytes from the first one to the last."""
        return sum((count - 1) * stride for count, stride in self.steps) + self.length

    def starts(self) -> Iterator[int]:
        """Position of each run, in C order."""
        for index in itertools.product(*(range(count) for count, _ in self.steps)):
            yield self.first + sum(i * stride for i, (_, stride) in zip(index, self.steps, strict=True))


def runs(region: Region, shape: Sequence[int], itemsize: int) -> Runs:
    """Where a region's bytes lie in an array of a shape and bytes for each element."""
    counts = [stop - start for start, stop in region]
    if 0 in counts:
        return Runs(0, 0, ())
    strides = [itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    first = sum(start * stride for (start, _), stride in zip(region, strides, strict=True))
    # The inner axes that are taken whole, and the next one out, lie together.
    axis = len(shape)
    while axis and counts[axis - 1] == shape[axis - 1]:
        axis -= 1
    outer = max(axis - 1, 0)
    steps = tuple((n, stride) for n, stride in zip(counts[:outer], strides[:outer], strict=True) if n > 1)
    return Runs(first, itemsize * math.prod(counts[outer:]), steps)


def are_short(found: Runs) -> bool:
    """Whether runs had better be written through mapped memory."""
    return 0 < found.length < _MAPPED_BELOW and bool(found.steps)


def write_mapped(descriptor: int, offset: int, found: Runs, data: AnyArray) -> bool:
    """Writes runs through a mapping of the file, which takes no call for each of them.

    The file's blocks must have been reserved: a page that finds no space, as one that cannot be read, kills the process
    with SIGBUS.

    Args:
        descriptor: of the file, open for reading and writing.
        offset: of the array in the file.
        found: the runs.
        data: their bytes, one after the other.

    Returns:
        False if the file cannot be mapped, and nothing was written.
    """
    start = offset + found.first
    base = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    try:
        mapped = mmap.mmap(descriptor, start - base + found.span, offset=base)
    except (OSError, ValueError):
        return False
    with mapped:
        shape = (*(count for count, _ in found.steps), found.length)
        strides = (*(stride for _, stride in found.steps), 1)
        target: Any = np.ndarray(shape, np.uint8, buffer=mapped, offset=start - base, strides=strides)
        target[...] = data.reshape(shape)
        # The mapping cannot be closed while an array shows it.
        del target
    return True


def write(descriptor: int, offset: int, found: Runs, data: AnyArray) -> None:
    """The same by a call for each run; raises OSError."""
    for number, start in enumerate(found.starts()):
        write_at(descriptor, data[number * found.length : (number + 1) * found.length].data, offset + start)


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Writes bytes to their place in a file; raises OSError."""
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done : done + _PIECE], offset + done)
