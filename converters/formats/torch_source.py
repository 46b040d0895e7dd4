"""A Hugging Face checkpoint in files of `torch.save`: pytorch_model.bin, or several with their index."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats import fingerprints, placement, torch_file
from converters.formats.base import AnyArray, Region, TensorInfo
from converters.formats.dtypes import element_size, numpy_dtype
from converters.formats.mapped_files import MappedFiles
from converters.formats.regions import check_inside, slices
from converters.formats.safetensors_files import ADAPTER_FILE, FileSet, locate
from converters.formats.storage_errors import reading
from converters.formats.torch_file import Placed
from reporting.diagnostics import Diagnostic, RecastError, raise_all

SINGLE_FILE = "pytorch_model.bin"
INDEX_FILE = "pytorch_model.bin.index.json"
_PATTERN = "pytorch_model*.bin"
_HEAD = 1 << 20


def is_here(directory: Path) -> bool:
    """Whether a directory holds such a checkpoint, and no safetensors files of a model, which go before it."""
    if (
        not directory.is_dir()
        or any(path.name != ADAPTER_FILE for path in directory.glob("*.safetensors"))
        or any(directory.glob("*.safetensors.index.json"))
    ):
        return False
    return (directory / INDEX_FILE).exists() or any(directory.glob(_PATTERN))


class TorchSource:
    """Reads tensors as views of mapped files. Thread-safe.

    Attributes:
        directory: where the files are.
        files: names of the files read, sorted.
        unused: names of safetensors files in the directory that are no part of the checkpoint.
    """

    def __init__(self, directory: Path) -> None:
        """Finds all tensors.

        Raises:
            RecastError: all violations of the index and of all files at once.
        """
        located, found = _located(directory)
        held: dict[str, Mapping[str, Placed]] = {}
        sizes: dict[str, int] = {}
        for name in located.files:
            try:
                with reading(directory / name):
                    sizes[name] = (directory / name).stat().st_size
                    held[name] = torch_file.scan(directory / name)
            except RecastError as error:
                found.extend(error.diagnostics)
        found += placement.problems(located.index, held)
        raise_all(found)
        self.directory = directory
        self.files = located.files
        self.unused = (ADAPTER_FILE,) if os.path.lexists(directory / ADAPTER_FILE) else ()
        self._placed = {tensor: (name, place) for name, places in held.items() for tensor, place in places.items()}
        self._tensors = {
            tensor: TensorInfo(tensor, place.shape, place.dtype, name) for tensor, (name, place) in self._placed.items()
        }
        self._mapped = MappedFiles(directory, sizes)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
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
        file, place = self._placed[name]
        check_inside(name, region, place.shape)
        dtype = numpy_dtype(place.dtype)
        if not place.reach:
            return np.empty(tuple(stop - start for start, stop in region), dtype)
        strides = tuple(stride * dtype.itemsize for stride in place.strides)
        # An array over the map itself would let close() unmap it; one over another array keeps it.
        buffer = np.frombuffer(self._mapped.map(file), np.uint8)
        view: AnyArray = np.ndarray(place.shape, dtype, buffer, place.offset, strides)
        index: tuple[Any, ...] = (*slices(region), ...)
        part = view[index]
        values = part if part.flags.aligned else part.copy()
        values.flags.writeable = False
        return values

    def release(self, name: str, region: Region) -> None:
        """Gives back the memory of the whole pages between a region's first and last byte."""
        file, place = self._placed[name]
        check_inside(name, region, place.shape)
        if any(start == stop for start, stop in region):
            return
        size = element_size(place.dtype)
        first = sum(start * stride for (start, _), stride in zip(region, place.strides, strict=True))
        last = sum((stop - 1) * stride for (_, stop), stride in zip(region, place.strides, strict=True))
        self._mapped.give_back(file, place.offset + first * size, place.offset + (last + 1) * size)

    def fingerprints(self) -> tuple[fingerprints.Fingerprint, ...]:
        """Size, modification time and digest of the head of each file, as they are now."""
        taken = []
        for file in self.files:
            with reading(self.directory / file):
                taken.append(fingerprints.take(self.directory, file, _HEAD))
        return tuple(taken)

    def close(self) -> None:
        """Unmaps the files; views that are still held keep their own file mapped."""
        self._mapped.close()


class TorchElements:
    """Elements of such files by coordinate; the files are scanned anew, and not mapped."""

    def __init__(self, files: Mapping[str, Path]):
        """Args: the file of each tensor."""
        held = {path: torch_file.scan(path) for path in dict.fromkeys(files.values())}
        self._placed = {name: (path, held[path][name]) for name, path in files.items()}

    def names(self) -> frozenset[str]:
        """The tensors that are there."""
        return frozenset(self._placed)

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at integer coordinates [n, rank], in the stored dtype, [n]."""
        path, place = self._placed[name]
        dtype = numpy_dtype(place.dtype)
        points = np.asarray(coordinates, np.int64).reshape(len(coordinates), len(place.shape))
        positions = place.offset + points @ np.array(place.strides, np.int64) * dtype.itemsize
        with reading(path), open(path, "rb") as file:
            values = [os.pread(file.fileno(), dtype.itemsize, int(position)) for position in positions]
        return np.frombuffer(b"".join(values), dtype)


def _located(directory: Path) -> tuple[FileSet, list[Diagnostic]]:
    if (directory / INDEX_FILE).exists():
        return locate(directory / INDEX_FILE)
    names = tuple(sorted(path.name for path in directory.glob(_PATTERN)))
    if names == (SINGLE_FILE,):
        return FileSet(directory, names, None), []
    reason = f"{len(names)} files {_PATTERN} lie in the folder, and no {INDEX_FILE} says which of them belong together"
    cure = f"Take {INDEX_FILE} from the original source again."
    return FileSet(directory, (), None), [
        Diagnostic("INDEX_INVALID", f"{reason}.", suggestion=cure, subject=INDEX_FILE)
    ]
