"""An Orbax checkpoint as a source, read through TensorStore; neither Orbax nor JAX is needed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import tensorstore as ts

from converters.formats import fingerprints
from converters.formats.base import AnyArray, Region, TensorInfo
from converters.formats.dtypes import NAMES, numpy_dtype, unsupported
from converters.formats.orbax_arrays import check_files, open_arrays
from converters.formats.orbax_directory import Location, resolve
from converters.formats.orbax_mapped import MappedChunks
from converters.formats.orbax_metadata import TREE_FILE, Leaf, array_names, read_tree
from converters.formats.regions import check_inside, shape_of, slices
from converters.formats.storage_errors import reading
from converters.formats.tensorstore_io import new_context, unreadable
from reporting.diagnostics import Diagnostic, RecastError, raise_all

_DIGESTED_BYTES = 1 << 16


class OrbaxSource:
    """Reads regions of the arrays that `_METADATA` names. Thread-safe.

    Arrays have the names of `orbax_metadata.array_names`; `TensorInfo.location` and `leaves` keep the stored ones.

    Attributes:
        location: which step and item were taken, and which were not.
        custom_metadata: the step's, or the item's where the step has none; MaxText puts scan_layers there.
        leaves: each leaf of the saved tree in its order: arrays by the names of `tensors`, others by their own.
        without_data: names of leaves for which no array is stored (empty containers, None, strings), with their type.
    """

    def __init__(self, path: Path) -> None:
        """Reads the metadata of all arrays and no data.

        Args:
            path: `DIR`, `DIR/STEP` or `DIR/STEP/items`.

        Raises:
            RecastError: all violations that opening found: as `orbax_directory.resolve` and
                `orbax_metadata.read_tree`, ORBAX_ARRAY_UNREADABLE, and DTYPE_NOT_SUPPORTED for elements that are no
                numbers. Arrays of numbers that are not in `dtypes.NAMES` are listed, and refused when they are read.
        """
        self.location: Location = resolve(path)
        tree = read_tree(self.location.items / TREE_FILE)
        self.custom_metadata = self.location.custom_metadata or tree.custom_metadata
        self.without_data = {leaf.name: leaf.value_type for leaf in tree.leaves.values() if not leaf.is_array}
        check_files(self.location.items)
        self._stores = open_arrays(self.location.items, tree, new_context())
        self._mapped = MappedChunks(self.location.items, self._stores)
        self._tensors: dict[str, TensorInfo] = {}
        self._stored: dict[str, str] = {}
        found = []
        for name, leaf in array_names(tree.leaves):
            if name in self._tensors:
                reason = f"{TREE_FILE}: two leaves share the name {name}"
                found.append(Diagnostic("ORBAX_METADATA_INVALID", reason, subject=name))
            store = self._stores[leaf.name]
            dtype = store.dtype.name
            if dtype not in NAMES and not _is_number(dtype):
                found.append(unsupported(name, dtype))
            self._tensors[name] = TensorInfo(name, tuple(store.shape), dtype, f"{self.location.items.name}/{leaf.name}")
            self._stored[name] = leaf.name
        raise_all(found)
        known = {stored: name for name, stored in self._stored.items()}
        self.leaves: Mapping[str, Leaf] = {known.get(name, name): leaf for name, leaf in tree.leaves.items()}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All stored arrays by name, in the order of `_METADATA`."""
        return self._tensors

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """The box that must be decoded as a whole: the inner chunk where chunks are sharded."""
        # TensorStore gives a scalar's chunk no shape.
        return tuple(self._stores[self._stored[name]].chunk_layout.read_chunk.shape or ())

    def read(self, name: str, region: Region) -> AnyArray:
        """A region as a new array, or as a read-only view of a mapped file where it is stored as it is.

        A file that is made shorter while it is mapped kills the process with SIGBUS when its missing pages are touched.

        Raises:
            RecastError: ORBAX_ARRAY_UNREADABLE, DTYPE_NOT_SUPPORTED.
            ValueError: the region does not lie in the array.
        """
        info = self._tensors[name]
        if info.dtype not in NAMES:
            raise RecastError([unsupported(name, info.dtype)])
        check_inside(name, region, info.shape)
        mapped = self._mapped.read(self._stored[name], region)
        if mapped is not None:
            return mapped
        out: AnyArray = np.empty(shape_of(region), numpy_dtype(info.dtype))
        self.read_into(name, region, out)
        return out

    def read_into(self, name: str, region: Region, out: AnyArray) -> None:
        """The same into an array of the region's shape and the stored type, strided or not; saves fresh memory."""
        info = self._tensors[name]
        check_inside(name, region, info.shape)
        if out.dtype != numpy_dtype(info.dtype) or out.shape != shape_of(region):
            raise ValueError(f"{name}: {out.dtype} {out.shape} cannot take {info.dtype} {shape_of(region)}")
        store = self._stores[self._stored[name]]
        try:
            ts.array(out).write(store[slices(region)]).result()
        except (ValueError, OSError) as error:
            raise RecastError([unreadable(name, error)]) from error

    def release(self, name: str, region: Region) -> None:
        """Nothing to give back: what `read` returns belongs to the caller, and nothing is cached."""

    def fingerprints(self) -> tuple[fingerprints.Fingerprint, ...]:
        """Size and modification time of every file of the item as they are now, and a digest of files up to 64 KiB."""
        items = self.location.items
        taken = []
        with reading(items):
            for path in sorted(_files(items)):
                small = os.path.getsize(items / path) <= _DIGESTED_BYTES
                taken.append(fingerprints.take(items, path, _DIGESTED_BYTES if small else 0))
        return tuple(taken)

    def close(self) -> None:
        """Closes the arrays."""
        self._stores = {}


def _is_number(dtype: str) -> bool:
    """Whether NumPy, or ml_dtypes for it, has a type of numbers by this name."""
    kind = getattr(np, dtype, None)
    return hasattr(ml_dtypes, dtype) or (isinstance(kind, type) and issubclass(kind, np.number))


def _files(root: Path) -> Iterator[str]:
    for directory, _, names in os.walk(root):
        for name in names:
            yield os.path.relpath(os.path.join(directory, name), root)
