"""Writes an Orbax checkpoint through TensorStore: zarr version 3 arrays in one OCDBT database.

Neither Orbax nor JAX is needed. What Orbax requires of such a directory: docs of `orbax_metadata`, and chunks that hold
only zeros must be stored, or Orbax reports them as missing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from converters.formats import orbax_metadata
from converters.formats.base import AnyArray, Declared, Region, TensorInfo
from converters.formats.dtypes import NAMES, numpy_dtype
from converters.formats.durable import sync_directory, sync_file, sync_files, write_file
from converters.formats.regions import check_inside, shape_of, slices
from converters.formats.storage_errors import writing
from converters.formats.tensorstore_io import array_spec, new_context, unwritable
from reporting.diagnostics import RecastError

ITEM = "items"
_NODE_BYTES = 1 << 16
"""Size limit of a database node. Each write rewrites one node of each level: 64 KiB wastes 0.1 % at 64 MiB chunks,
Orbax's own 100 MB would rewrite the whole tree each time."""
_INLINE_BYTES = 1024
_DATA_FILE_BYTES = 1 << 20
"""A data file is closed once it holds this much. TensorStore fills one file at a time, and only closed ones are written
at once, so that with larger files the threads would wait for each other."""
_REFERENCE_FROM = 1 << 20
_UNFINISHED_SUFFIX = ".__lock"
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
        compression: str = "none",
        custom_metadata: Mapping[str, Any] | None = None,
        scalars: Mapping[str, int] | None = None,
        empty: Sequence[str] = ("opt_state",),
        resume: bool = False,
    ) -> None:
        """Touches no file yet.

        Args:
            directory: an existing directory, the root of the checkpoint.
            step: names the step's directory.
            compression: "none", or "zstd:N" with level N from 1 to 22.
            custom_metadata: JSON values for `_CHECKPOINT_METADATA`, such as {"scan_layers": True}.
            scalars: 64-bit integers stored besides the arrays; the step number as "step" where not given.
            empty: names of empty dictionaries in the tree.
            resume: keep what an earlier sink with the same declarations wrote; without it no step may exist yet.

        Raises:
            ValueError: the compression is not one of those.
        """
        self.step_directory = directory / str(step)
        self.items = self.step_directory / ITEM
        self._codecs = _codecs(compression)
        self._custom = dict(custom_metadata or {})
        self._scalars = {"step": step} if scalars is None else dict(scalars)
        self._empty = tuple(empty)
        self._resume = resume
        self._infos: dict[str, Declared] = {}
        self._stores: dict[str, Any] = {}
        self._synced: set[str] = set()
        self._lock = threading.Lock()
        self._started = 0
        self._open = False

    def declare(self, arrays: Sequence[Declared]) -> None:
        """Creates the directory and the metadata of all arrays, in one transaction.

        Raises:
            RecastError: DESTINATION_EXISTS, DISK_FULL, DESTINATION_NOT_WRITABLE, INPUT_OUTPUT.
            ValueError: a name twice, or a name, shape, type or chunk that Orbax cannot hold.
        """
        scalars = [Declared(TensorInfo(name, (), "int64"), ()) for name in self._scalars]
        self._infos = _checked([*arrays, *scalars], self._empty)
        self._started = time.time_ns()
        self._make_directories()
        self._remove_unfinished()
        context = new_context()
        transaction = ts.Transaction()
        try:
            pending = {
                name: ts.open(
                    self._spec(declared), context=context, open=self._resume, create=True, transaction=transaction
                )
                for name, declared in self._infos.items()
            }
            opened = {name: future.result() for name, future in pending.items()}
            transaction.commit_sync()
        except (ValueError, OSError) as error:
            raise unwritable(str(self.items), error) from error
        self._stores = {name: store.with_transaction(None) for name, store in opened.items()}
        self._open = True

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Stores whole chunks; returns once the database refers to them, which `sync` makes durable.

        Raises:
            RecastError: DISK_FULL, DESTINATION_NOT_WRITABLE, INPUT_OUTPUT.
            ValueError: the region cuts a chunk, or the values do not fit it; the sink is not open.
        """
        if not self._open:
            raise ValueError("the sink is not open")
        declared = self._infos[name]
        _check_write(declared, region, values)
        # Small values are kept inside of database nodes, which may outlive this call; large ones go to a file at once.
        reference = values.nbytes >= _REFERENCE_FROM
        target = self._stores[name][slices(region)]
        try:
            target.write(values, can_reference_source_data_indefinitely=reference).result()
        except (ValueError, OSError) as error:
            raise unwritable(name, error) from error

    def sync(self) -> None:
        """Makes all writes that have returned durable; raises RecastError as `write` does."""
        data = self.items / "d"
        with self._lock:
            with writing(data):
                present = set(os.listdir(data))
            new = present - self._synced - _unfinished(present)
            sync_files(data / file for file in new)
            self._synced |= new
            sync_directory(data)
            sync_file(self.items / "manifest.ocdbt")
            sync_directory(self.items)

    def commit(self) -> None:
        """Makes all arrays durable, then writes the files that tell Orbax that they are there.

        Raises:
            RecastError: as `write` does.
        """
        for name, value in self._scalars.items():
            self.write(name, (), np.asarray(value, np.int64))
        self._open = False
        self._stores = {}
        self.sync()
        leaves = [
            *(
                orbax_metadata.scalar_leaf(name) if name in self._scalars else orbax_metadata.array_leaf(name)
                for name in self._infos
            ),
            *(orbax_metadata.empty_dict_leaf(name) for name in self._empty),
        ]
        write_file(self.items / orbax_metadata.TREE_FILE, orbax_metadata.tree_bytes(leaves))
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

    def _remove_unfinished(self) -> None:
        """Removes the parts of files that a killed writer left; nothing refers to them."""
        for place in (self.items, self.items / "d"):
            if place.is_dir():
                with writing(place):
                    for name in _unfinished(set(os.listdir(place))):
                        (place / name).unlink()

    def _spec(self, declared: Declared) -> dict[str, Any]:
        spec = array_spec(self.items, declared.info.name, ocdbt=True, zarr3=True)
        spec["kvstore"]["config"] = {
            "max_decoded_node_bytes": _NODE_BYTES,
            "max_inline_value_bytes": _INLINE_BYTES,
        }
        spec["kvstore"]["target_data_file_size"] = _DATA_FILE_BYTES
        spec["store_data_equal_to_fill_value"] = True
        spec["metadata"] = {
            "shape": list(declared.info.shape),
            "data_type": declared.info.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(declared.chunk)}},
            "codecs": self._codecs,
            "fill_value": False if declared.info.dtype == "bool" else 0,
        }
        return spec


def _unfinished(names: set[str]) -> set[str]:
    """Files that TensorStore has not yet renamed to their final name."""
    return {name for name in names if name.endswith(_UNFINISHED_SUFFIX)}


def _codecs(compression: str) -> list[dict[str, Any]]:
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    if compression == "none":
        return codecs
    kind, _, level = compression.partition(":")
    if kind != "zstd" or not level.isdecimal() or not 1 <= int(level) <= 22:
        raise ValueError(f'{compression} is not "none" or "zstd:N" with N from 1 to 22')
    return [*codecs, {"name": "zstd", "configuration": {"level": int(level), "checksum": False}}]


def _checked(arrays: Sequence[Declared], empty: Sequence[str]) -> dict[str, Declared]:
    for array in arrays:
        info = array.info
        if not orbax_metadata.is_safe_name(info.name) or "" in info.name.split("."):
            raise ValueError(f"{info.name!r} is not a dotted path")
        if info.dtype not in NAMES:
            raise ValueError(f"{info.name}: {info.dtype} cannot be stored")
        if len(array.chunk) != len(info.shape) or not all(array.chunk) or not all(info.shape):
            raise ValueError(f"{info.name}: shape {info.shape} with chunk {array.chunk} cannot be stored")
    names = [array.info.name for array in arrays]
    if len({*names, *empty}) != len(names) + len(empty):
        raise ValueError("names must be distinct")
    return {array.info.name: array for array in arrays}


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
