"""What every on-disk format offers: a source lists and reads regions; a sink declares, takes regions, commits."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

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


class Reader(Protocol):
    """Reads single elements of a checkpoint, by other code than wrote it."""

    def names(self) -> frozenset[str]:
        """The arrays that are there."""

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at integer coordinates [n, rank], in the stored dtype, [n]."""


@runtime_checkable
class Decoder(Protocol):
    """A source of which some arrays are decoded as they are read, which allocates memory and may round."""

    def piece(self, name: str) -> tuple[int, ...] | None:
        """The box sizes in which a large region of an array is to be read; None where reading allocates nothing."""

    def exactness(self, name: str) -> str:
        """EXACT where the values are those that the codes stand for, else ROUNDING."""


def piece_of(source: Source, name: str) -> tuple[int, ...] | None:
    """The box sizes in which a large region is to be read, None where that allocates nothing."""
    decoder = _decoder(source)
    return decoder.piece(name) if decoder is not None else None


def exactness_of(source: Source, name: str) -> str:
    """EXACT or ROUNDING: what happens to values while they are read."""
    decoder = _decoder(source)
    return decoder.exactness(name) if decoder is not None else "EXACT"


def _decoder(source: Source) -> Decoder | None:
    return cast(Decoder, source) if _decodes(type(source)) else None


@functools.cache
def _decodes(kind: type[Source]) -> bool:
    # Asked for each array of a model; `isinstance` looks at every attribute of the protocol each time.
    return issubclass(kind, Decoder)


class Writer(Protocol):
    """Takes values; `write` may be called from several threads."""

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Takes C-contiguous values of a region; returns once `values` may be reused."""


class Sink(Protocol):
    """A checkpoint being written; `write` may be called from several threads."""

    def declare(self, arrays: Sequence[Declared]) -> None:
        """States every array before the first write."""

    def check_written(self, regions: Iterable[tuple[str, Region]]) -> None:
        """Holds regions that an earlier sink made durable against the files; raises RecastError UNFINISHED_RUN."""

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Stores C-contiguous values of the declared dtype; returns once `values` may be reused."""

    def sync(self) -> None:
        """Makes all writes that have returned durable; writes of other threads may go on meanwhile."""

    def commit(self) -> None:
        """Makes all writes durable and completes metadata and index."""

    def abort(self) -> None:
        """Releases files and memory without completing anything."""
