"""What every on-disk format offers: a source lists and reads regions; a sink declares, takes regions, commits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from converters.formats.fingerprints import Fingerprint

Region = tuple[tuple[int, int], ...]
"""A box of an array: (start, stop) for each axis."""

AnyArray = np.ndarray[Any, np.dtype[Any]]


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A stored array, known from headers alone.

    Attributes:
        name: its name in the checkpoint.
        shape: sizes of its axes; () for a scalar.
        dtype: NumPy's name of its element type; ml_dtypes' names for the others (bfloat16, float8_e4m3fn).
        location: the file or directory that holds it, relative to the checkpoint.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    location: str = ""


@dataclasses.dataclass(frozen=True)
class Declared:
    """An array that a sink will hold.

    Attributes:
        info: its name, shape and dtype.
        chunk: the box sizes in which it is written; each write covers whole boxes of this grid.
    """

    info: TensorInfo
    chunk: tuple[int, ...]


class Source(Protocol):
    """An opened checkpoint; thread-safe."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All stored arrays by name."""

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """The box sizes in which the array is stored, None where any region costs the same per byte."""

    def read(self, name: str, region: Region) -> AnyArray:
        """The elements of a region, in the stored dtype; read-only, possibly a view of mapped memory."""

    def release(self, name: str, region: Region) -> None:
        """Says that nothing of a region will soon be read again, so that memory that holds it can be given back."""

    def fingerprints(self) -> Sequence[Fingerprint]:
        """Size, time and a digest of the heads of all files as they are now, to notice a source that changes."""

    def close(self) -> None:
        """Releases files and memory."""


class Sink(Protocol):
    """A checkpoint being written; `write` may be called from several threads."""

    def declare(self, arrays: Sequence[Declared]) -> None:
        """States every array before the first write."""

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Stores C-contiguous values of the declared dtype; returns once `values` may be reused."""

    def sync(self) -> None:
        """Makes all writes that have returned durable; writes of other threads may go on meanwhile."""

    def commit(self) -> None:
        """Makes all writes durable and completes metadata and index."""

    def abort(self) -> None:
        """Releases files and memory without completing anything."""
