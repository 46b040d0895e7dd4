"""Sources and their second readers under other names than those in their files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from converters.engine.values import AnyArray
from converters.formats.base import Reader, Region, Source, TensorInfo
from converters.formats.fingerprints import Fingerprint


class RenamedSource:
    """A source under other names. Thread-safe as the source is."""

    def __init__(self, source: Source, names: Mapping[str, str]):
        """Args: the new names of those arrays that get one."""
        self._source = source
        self._tensors = {
            names.get(name, name): dataclasses.replace(info, name=names.get(name, name))
            for name, info in source.tensors.items()
        }
        self._inner = {new: old for old, new in names.items()}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All stored arrays by name."""
        return self._tensors

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """The box sizes in which the array is stored."""
        return self._source.chunk(self._inner.get(name, name))

    def read(self, name: str, region: Region) -> AnyArray:
        """The elements of a region."""
        return self._source.read(self._inner.get(name, name), region)

    def release(self, name: str, region: Region) -> None:
        """Gives memory back."""
        self._source.release(self._inner.get(name, name), region)

    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """Of the source's files."""
        return tuple(self._source.fingerprints())

    def close(self) -> None:
        """Closes the source."""
        self._source.close()


class RenamedReader:
    """A second reader under other names."""

    def __init__(self, reader: Reader, names: Mapping[str, str]):
        """Args: the new names of those arrays that get one."""
        self._reader = reader
        self._names = names
        self._inner = {new: old for old, new in names.items()}

    def names(self) -> frozenset[str]:
        """The arrays that are there."""
        return frozenset(self._names.get(name, name) for name in self._reader.names())

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at coordinates."""
        return self._reader.elements(self._inner.get(name, name), coordinates)
