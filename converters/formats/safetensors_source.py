"""A safetensors checkpoint as a source: one file, a sharded set with its index, or a set without one."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats import fingerprints, placement
from converters.formats.base import AnyArray, Region, TensorInfo
from converters.formats.dtypes import element_size, numpy_dtype
from converters.formats.json_files import printable
from converters.formats.mapped_files import MappedFiles
from converters.formats.regions import check_inside, slices, span
from converters.formats.safetensors_files import FileSet, locate
from converters.formats.safetensors_header import Header, scan_header
from converters.formats.storage_errors import read_error, reading
from reporting.diagnostics import Diagnostic, raise_all

_HEADER_READERS = 8


class SafetensorsSource:
    """Reads tensors as views of mapped files. Thread-safe.

    Attributes:
        directory: where the files are.
        files: names of the files read, sorted.
        unused: names of safetensors files in the directory that are no part of the checkpoint.
        metadata: the `__metadata__` of each file by file name.
    """

    def __init__(self, path: Path) -> None:
        """Reads all headers.

        Args:
            path: a directory, a `*.safetensors` file or a `*.index.json` file.

        Raises:
            RecastError: all violations of the index and of all files at once.
        """
        located, found = locate(path)
        headers, faults = _scan_all(located)
        found += faults
        found += placement.problems(located.index, {name: header.names for name, header in headers.items()})
        raise_all(found)
        self.directory = located.directory
        self.files = located.files
        self.unused = located.unused
        self.metadata = {name: headers[name].metadata for name in located.files}
        self._entries = {
            tensor: (name, entry) for name in located.files for tensor, entry in headers[name].entries.items()
        }
        self._tensors = {
            tensor: TensorInfo(tensor, entry.shape, entry.dtype, name)
            for tensor, (name, entry) in self._entries.items()
        }
        self._headers = headers
        self._mapped = MappedFiles(self.directory, {name: header.size for name, header in headers.items()})

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name: files in sorted order, within a file as its header lists them."""
        return self._tensors

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """None: files are not chunked."""
        return None

    def read(self, name: str, region: Region) -> AnyArray:
        """A region as a read-only view of the mapped file; a copy where the file does not align its elements.

        Raises:
            ValueError: the region does not lie in the tensor, or the source is closed.
            RecastError: INPUT_OUTPUT, SOURCE_NOT_FOUND or SOURCE_CHANGED, when the file cannot be mapped.
        """
        file, entry = self._entries[name]
        check_inside(name, region, entry.shape)
        dtype = numpy_dtype(entry.dtype)
        if not entry.nbytes:
            view: AnyArray = np.empty(entry.shape, dtype)
        else:
            flat = np.frombuffer(self._mapped.map(file), dtype, entry.nbytes // dtype.itemsize, entry.offset)
            view = flat.reshape(entry.shape)
        index: tuple[Any, ...] = (*slices(region), ...)
        part = view[index]
        values = part if part.flags.aligned else part.copy()
        values.flags.writeable = False
        return values

    def release(self, name: str, region: Region) -> None:
        """Gives back the memory of the whole pages between a region's first and last byte.

        For a region that is not contiguous it also unmaps what lies between its parts.
        """
        file, entry = self._entries[name]
        check_inside(name, region, entry.shape)
        first, end = span(region, entry.shape)
        size = element_size(entry.dtype)
        self._mapped.give_back(file, entry.offset + first * size, entry.offset + end * size)

    def fingerprints(self) -> tuple[fingerprints.Fingerprint, ...]:
        """Size, modification time and digest of the header of each file, as they are now."""
        taken = []
        for file in self.files:
            with reading(self.directory / file):
                taken.append(fingerprints.take(self.directory, file, self._headers[file].data_start))
        return tuple(taken)

    def close(self) -> None:
        """Unmaps the files; views that are still held keep their own file mapped."""
        self._mapped.close()


def _scan_all(located: FileSet) -> tuple[dict[str, Header], list[Diagnostic]]:
    def scan(name: str) -> tuple[Header | None, list[Diagnostic]]:
        path = located.directory / name
        try:
            return scan_header(path, printable(name))
        except OSError as error:
            return None, list(read_error(error, path).diagnostics)

    with ThreadPoolExecutor(_HEADER_READERS) as pool:
        results = list(pool.map(scan, located.files))
    headers = {name: header for name, (header, _) in zip(located.files, results, strict=True) if header is not None}
    return headers, [diagnostic for _, found in results for diagnostic in found]
