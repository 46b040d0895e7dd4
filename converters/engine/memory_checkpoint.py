"""A checkpoint in memory: a source and a sink for tests and for trying a mapping without files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from converters.engine import values
from converters.engine.values import AnyArray
from converters.formats.base import Declared, Region, TensorInfo
from converters.formats.fingerprints import Fingerprint


class MemorySource:
    """Arrays as a source; `chunks` says in which boxes some of them pretend to be stored."""

    def __init__(self, arrays: Mapping[str, AnyArray], chunks: Mapping[str, tuple[int, ...]] | None = None):
        self._arrays = arrays
        self._chunks = chunks or {}
        self.reads: list[tuple[str, Region]] = []

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All arrays by name."""
        return {name: TensorInfo(name, array.shape, str(array.dtype)) for name, array in self._arrays.items()}

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """The box sizes given for the array."""
        return self._chunks.get(name)

    def read(self, name: str, region: Region) -> AnyArray:
        """A view of a region."""
        self.reads.append((name, region))
        return self._arrays[name][tuple(slice(start, stop) for start, stop in region)]

    def release(self, name: str, region: Region) -> None:
        """Nothing to give back."""

    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """None: there are no files."""
        return ()

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at coordinates [n, rank]."""
        return self._arrays[name][tuple(coordinates[:, axis] for axis in range(coordinates.shape[1]))]

    def close(self) -> None:
        """Forgets the arrays."""
        self._arrays = {}


class MemorySink:
    """Arrays as a sink.

    Attributes:
        arrays: what was written.
        writes: how often each element was written.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, AnyArray] = {}
        self.writes: dict[str, AnyArray] = {}
        self.committed = False

    def declare(self, arrays: Sequence[Declared]) -> None:
        """Makes room for every array."""
        for array in arrays:
            info = array.info
            self.arrays[info.name] = np.zeros(info.shape, values.dtype_of(info.dtype))
            self.writes[info.name] = np.zeros(info.shape, np.uint8)

    def check_written(self, regions: Iterable[tuple[str, Region]]) -> None:
        """Refuses all: nothing outlives the process."""
        if any(True for _ in regions):
            raise ValueError("nothing was written by an earlier sink")

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Stores a region."""
        where = tuple(slice(start, stop) for start, stop in region)
        self.arrays[name][where] = values
        self.writes[name][where] += 1

    def sync(self) -> None:
        """Nothing outlives the process."""

    def commit(self) -> None:
        """Marks the sink as complete."""
        self.committed = True

    def abort(self) -> None:
        """Forgets what was written."""
        self.arrays.clear()
