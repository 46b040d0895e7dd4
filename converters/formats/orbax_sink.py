"""Writes an Orbax checkpoint through TensorStore, in each form that Orbax knows.

Neither Orbax nor JAX is needed. What Orbax requires of such a directory: docs of `orbax_metadata`, and chunks that hold
only zeros must be stored, or Orbax reports them as missing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from converters.formats import orbax_extended, orbax_metadata
from converters.formats.base import AnyArray, Declared, Region, TensorInfo
from converters.formats.dtypes import NAMES, numpy_dtype
from converters.formats.durable import sync_directory, write_file
from converters.formats.orbax_extended import Extended
from converters.formats.orbax_metadata import Leaf
from converters.formats.orbax_storage import NO_COMPRESSION, files_of, form_of
from converters.formats.regions import check_inside, shape_of, slices
from converters.formats.storage_errors import writing
from converters.formats.tensorstore_io import new_context, unwritable
from reporting.diagnostics import RecastError

ITEM = "items"
_REFERENCE_FROM = 1 << 20
_FILES = frozenset({orbax_metadata.TREE_FILE, orbax_metadata.COMMIT_FILE})
_COMMITTED = b"Checkpoint commit was successful"


class OrbaxSink:
    """Writes `DIRECTORY/STEP/items` and the metadata around it. `write` is thread-safe.

    Memory: each call of `write` holds what TensorStore needs for its own chunks only (nothing for large chunks that are
    stored as they are; the encoded chunk where it is compressed).

    Attributes:
        step_directory: `DIRECTORY/STEP`.
        items: the directory with the arrays.
    """

    def __init__(
        self,
        directory: Path,
        *,
        step: int = 0,
        compression: str = NO_COMPRESSION,
        use_zarr3: bool = True,
        use_ocdbt: bool = True,
        custom_metadata: Mapping[str, Any] | None = None,
        leaves: Mapping[str, Leaf] | None = None,
        scalars: Mapping[str, int] | None = None,
        empty: Sequence[str] | None = None,
        extended: Extended | None = None,
        resume: bool = False,
    ) -> None:
        """Touches no file yet.

        Args:
            directory: an existing directory, the root of the checkpoint.
            step: names the step's directory.
            compression: "none", or "zstd:N" with level N from 1 to 22.
            use_zarr3: zarr version 3, else version 2.
            use_ocdbt: one OCDBT database for all arrays, else a directory for each.
            custom_metadata: JSON values for `_CHECKPOINT_METADATA`, such as {"scan_layers": True}.
            leaves: the saved tree in its order: for arrays, by the name under which they are declared, where they lie
                in it and under which name they are stored; for what has no array (empty containers, None), that it is
                there. Other arrays are leaves of dictionaries that the dots in their names separate.
            scalars: 64-bit integers stored besides the arrays; where not given, the step number as "step", or none
                with `leaves`.
            empty: names of empty dictionaries in the tree; where not given, "opt_state", or none with `leaves`.
            extended: what Orbax keeps of arrays beside their values, by the name under which they are declared.
            resume: keep what an earlier sink with the same declarations wrote; without it no step may exist yet.

        Raises:
            ValueError: the compression is not one of those; a leaf that cannot be written; a scalar beyond 64 bits.
        """
        self.step_directory = directory / str(step)
        self.items = self.step_directory / ITEM
        self._form = form_of(use_zarr3=use_zarr3, use_ocdbt=use_ocdbt, compression=compression)
        self._files = files_of(self._form, self.items)
        self._custom = dict(custom_metadata or {})
        self._leaves = dict(leaves or {})
        self._scalars = ({"step": step} if leaves is None else {}) if scalars is None else dict(scalars)
        if any(not -(2**63) <= value < 2**63 for value in self._scalars.values()):
            raise ValueError(f"{self._scalars} do not fit into 64 bits")
        self._empty = (("opt_state",) if leaves is None else ()) if empty is None else tuple(empty)
        self._extended = dict(extended or {})
        self._resume = resume
        self._tree: list[Leaf] = []
        self._arrays: dict[str, Declared] = {}
        self._stores: dict[str, Any] = {}
        self._started = 0
        self._open = False

    def declare(self, arrays: Sequence[Declared]) -> None:
        """Creates the directory and the metadata of all arrays, in one transaction.

        Raises:
            RecastError: DESTINATION_EXISTS, DISK_FULL, DESTINATION_NOT_WRITABLE, INPUT_OUTPUT; UNFINISHED_RUN where
                what is resumed is damaged.
            ValueError: a name twice, or a name, shape, type, chunk or tree that Orbax cannot hold.
        """
        scalars = [Declared(TensorInfo(name, (), "int64"), ()) for name in self._scalars]
        self._tree = self._make_tree(arrays)
        self._arrays = self._checked([*arrays, *scalars])
        self._started = time.time_ns()
        self._make_directories()
        if self._resume:
            self._files.resume()
        context = new_context()
        transaction = ts.Transaction()
        try:
            pending = {
                name: ts.open(
                    self._form.spec(self.items, stored),
                    context=context,
                    open=self._resume,
                    create=True,
                    transaction=transaction,
                )
                for name, stored in self._arrays.items()
            }
            opened = {name: future.result() for name, future in pending.items()}
            transaction.commit_sync()
        except (ValueError, OSError) as error:
            raise unwritable(str(self.items), error) from error
        self._stores = {name: store.with_transaction(None) for name, store in opened.items()}
        for stored in self._arrays.values():
            self._files.wrote(stored, None)
        self._open = True

    def check_written(self, regions: Iterable[tuple[str, Region]]) -> None:
        """Looks for the files of regions that an earlier sink made durable.

        Raises:
            RecastError: UNFINISHED_RUN where one is gone.
        """
        for name, region in regions:
            self._files.check_written(self._arrays[name], region)

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Stores whole chunks; returns once a reader would find them, which `sync` makes durable.

        Raises:
            RecastError: DISK_FULL, DESTINATION_NOT_WRITABLE, INPUT_OUTPUT.
            ValueError: the region cuts a chunk, or the values do not fit it; the sink is not open.
        """
        if not self._open:
            raise ValueError("the sink is not open")
        stored = self._arrays[name]
        _check_write(stored, region, values)
        # Small values are kept inside of database nodes, which may outlive this call; large ones go to a file at once.
        reference = values.nbytes >= _REFERENCE_FROM
        target = self._stores[name][slices(region)]
        try:
            target.write(values, can_reference_source_data_indefinitely=reference).result()
        except (ValueError, OSError) as error:
            raise unwritable(name, error) from error
        self._files.wrote(stored, region)

    def sync(self) -> None:
        """Makes all writes that have returned durable; raises RecastError as `write` does."""
        self._files.sync()

    def commit(self) -> None:
        """Makes all arrays durable, then writes the files that tell Orbax that they are there.

        Raises:
            RecastError: as `write` does.
        """
        for name, value in self._scalars.items():
            self.write(name, (), np.asarray(value, np.int64))
        self._open = False
        self._stores = {}
        self._files.finish()
        orbax_extended.write(self.items, ((self._arrays[name], kept) for name, kept in self._extended.items()))
        tree = orbax_metadata.tree_bytes(self._tree, use_zarr3=self._form.use_zarr3, use_ocdbt=self._form.use_ocdbt)
        write_file(self.items / orbax_metadata.TREE_FILE, tree)
        write_file(self.items / orbax_metadata.COMMIT_FILE, _COMMITTED)
        sync_directory(self.items)
        step = orbax_metadata.step_bytes(ITEM, self._started, time.time_ns(), self._custom)
        write_file(self.step_directory / orbax_metadata.STEP_FILE, step)
        # Object stores have no rename: there, Orbax takes a step without this file for an unfinished one.
        write_file(self.step_directory / orbax_metadata.COMMIT_FILE, _COMMITTED)
        sync_directory(self.step_directory)
        sync_directory(self.step_directory.parent)

    def abort(self) -> None:
        """Refuses further writes and closes the arrays; the files stay as they are."""
        self._open = False
        self._stores = {}

    def _make_directories(self) -> None:
        with writing(self.items):
            try:
                self.step_directory.mkdir(exist_ok=self._resume)
                self.items.mkdir(exist_ok=self._resume)
            except FileExistsError as error:
                place = str(self.step_directory)
                raise RecastError.of("DESTINATION_EXISTS", f"{place} exists", subject=place) from error

    def _make_tree(self, arrays: Sequence[Declared]) -> list[Leaf]:
        """All leaves in their order, as `_METADATA` shall name them."""
        declared = {array.info.name: array.info for array in arrays}
        tree = []
        for name, leaf in self._leaves.items():
            if leaf.is_array != (name in declared) or leaf.value_type == "string":
                raise ValueError(f"{name!r} cannot be a leaf of type {leaf.value_type}")
            # Only with this type does Orbax restore an array without being told a sharding.
            kept = not leaf.is_array or (leaf.value_type == "scalar" and not declared[name].shape)
            tree.append(leaf if kept else dataclasses.replace(leaf, value_type="np.ndarray"))
        tree.extend(orbax_metadata.array_leaf(name) for name in declared if name not in self._leaves)
        tree.extend(orbax_metadata.scalar_leaf(name) for name in self._scalars)
        tree.extend(orbax_metadata.empty_dict_leaf(name) for name in self._empty)
        _check_tree(tree)
        return tree

    def _checked(self, arrays: Sequence[Declared]) -> dict[str, Declared]:
        """Each array under the name by which it is stored, by the declared one."""
        checked = {}
        for array in arrays:
            name = array.info.name
            stored = self._leaves[name].name if name in self._leaves else name
            _check_array(array, stored)
            checked[name] = dataclasses.replace(array, info=dataclasses.replace(array.info, name=stored))
        if len(checked) != len(arrays):
            raise ValueError("names must be distinct")
        if not self._form.use_ocdbt and {stored.info.name for stored in checked.values()} & _FILES:
            raise ValueError("an array has the name of a file of the checkpoint, and cannot be stored in a directory")
        return checked


def _check_tree(tree: Sequence[Leaf]) -> None:
    if len({leaf.keys for leaf in tree}) != len(tree) or len({leaf.name for leaf in tree}) != len(tree):
        raise ValueError("names must be distinct")
    inner = {leaf.keys[:depth] for leaf in tree for depth in range(len(leaf.keys))}
    for leaf in tree:
        if leaf.keys in inner:
            raise ValueError(f"{leaf.name!r} cannot be stored: other leaves lie below it")


def _check_array(array: Declared, stored: str) -> None:
    info = array.info
    if not orbax_metadata.is_safe_name(stored) or "" in stored.split("."):
        raise ValueError(f"{stored!r} is not a dotted path")
    if info.dtype not in NAMES:
        raise ValueError(f"{info.name}: {info.dtype} cannot be stored")
    if len(array.chunk) != len(info.shape) or not all(array.chunk) or not all(info.shape):
        raise ValueError(f"{info.name}: shape {info.shape} with chunk {array.chunk} cannot be stored")


def _check_write(declared: Declared, region: Region, values: AnyArray) -> None:
    info = declared.info
    check_inside(info.name, region, info.shape)
    for (start, stop), chunk, size in zip(region, declared.chunk, info.shape, strict=True):
        if start % chunk or (stop % chunk and stop != size):
            raise ValueError(f"{info.name}: {region} is not made of whole chunks {declared.chunk}")
    if values.dtype != numpy_dtype(info.dtype) or values.shape != shape_of(region) or not values.flags.c_contiguous:
        raise ValueError(
            f"{info.name}: {values.dtype} {values.shape} is not a C-contiguous {info.dtype} {shape_of(region)}"
        )
