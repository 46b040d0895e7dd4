"""The forms in which Orbax stores arrays: zarr version 3 or 2, in one OCDBT database or a directory for each array."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from converters.formats import ocdbt_files
from converters.formats.base import Declared, Region
from converters.formats.durable import sync_directory, sync_file, sync_files
from converters.formats.storage_errors import damaged, missing, writing
from converters.formats.tensorstore_io import array_spec, database_config
from reporting.diagnostics import RecastError

NO_COMPRESSION = "none"
_DATA_FILE_BYTES = 1 << 20
"""A data file is closed once it holds this much. TensorStore fills one file at a time, and only closed ones are written
at once, so that with larger files the threads would wait for each other."""
_UNFINISHED_SUFFIX = ".__lock"


@dataclasses.dataclass(frozen=True)
class Form:
    """How arrays are stored.

    Attributes:
        use_zarr3: zarr version 3, else version 2.
        use_ocdbt: one database for all arrays, else a directory for each.
        zstd_level: of compressed chunks, None where they are stored as they are.
    """

    use_zarr3: bool
    use_ocdbt: bool
    zstd_level: int | None

    def spec(self, items: Path, declared: Declared) -> dict[str, Any]:
        """TensorStore's spec to create an array."""
        spec = array_spec(items, declared.info.name, ocdbt=self.use_ocdbt, zarr3=self.use_zarr3)
        if self.use_ocdbt:
            spec["kvstore"]["config"] = database_config()
            spec["kvstore"]["target_data_file_size"] = _DATA_FILE_BYTES
        spec["store_data_equal_to_fill_value"] = True
        spec["dtype"] = declared.info.dtype
        spec["metadata"] = self._zarr3(declared) if self.use_zarr3 else self._zarr2(declared)
        return spec

    def files(self, declared: Declared, region: Region | None) -> Iterator[str]:
        """Where a directory for each array keeps the chunks of a region, or for None what describes the array."""
        if region is None:
            yield f"{declared.info.name}/{'zarr.json' if self.use_zarr3 else '.zarray'}"
            return
        axes = [
            range(start // size, -(-stop // size)) for (start, stop), size in zip(region, declared.chunk, strict=True)
        ]
        for index in itertools.product(*axes):
            if self.use_zarr3:
                yield "/".join((declared.info.name, "c", *map(str, index)))
            else:
                yield f"{declared.info.name}/{'.'.join(map(str, index)) or '0'}"

    def _zarr3(self, declared: Declared) -> dict[str, Any]:
        codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
        if self.zstd_level is not None:
            codecs.append({"name": "zstd", "configuration": {"level": self.zstd_level, "checksum": False}})
        return {
            "shape": list(declared.info.shape),
            "data_type": declared.info.dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(declared.chunk)}},
            "codecs": codecs,
            "fill_value": False if declared.info.dtype == "bool" else 0,
        }

    def _zarr2(self, declared: Declared) -> dict[str, Any]:
        return {
            "shape": list(declared.info.shape),
            "chunks": list(declared.chunk),
            "order": "C",
            "filters": None,
            "dimension_separator": ".",
            "compressor": None if self.zstd_level is None else {"id": "zstd", "level": self.zstd_level},
        }


def form_of(*, use_zarr3: bool, use_ocdbt: bool, compression: str) -> Form:
    """The form that "none" or "zstd:N" ask for, N from 1 to 22.

    Raises:
        ValueError: the compression is not one of those.
    """
    if compression == NO_COMPRESSION:
        return Form(use_zarr3, use_ocdbt, None)
    kind, _, level = compression.partition(":")
    if kind != "zstd" or not (level.isascii() and level.isdecimal()) or not 1 <= int(level) <= 22:
        raise ValueError(f'{compression} is not "none" or "zstd:N" with N from 1 to 22')
    return Form(use_zarr3, use_ocdbt, int(level))


class Files(Protocol):
    """The files behind the arrays of an item that is being written. Thread-safe."""

    def wrote(self, declared: Declared, region: Region | None) -> None:
        """Says that a region, or for None the description of an array, was written."""

    def sync(self) -> None:
        """Makes all that was written before durable."""

    def finish(self) -> None:
        """Makes everything durable and removes what nothing refers to; nothing may be written any more."""

    def resume(self) -> None:
        """Removes the parts of files that a killed writer left; raises RecastError UNFINISHED_RUN if it lost some."""

    def check_written(self, declared: Declared, region: Region) -> None:
        """Raises RecastError UNFINISHED_RUN if a region that was durable is gone."""


def files_of(form: Form, items: Path) -> Files:
    """The files of an item in a form."""
    return _Database(items) if form.use_ocdbt else _Directories(form, items)


class _Database:
    """One OCDBT database."""

    def __init__(self, items: Path) -> None:
        self._items = items
        self._data = items / ocdbt_files.DATA
        self._synced: set[str] = set()
        self._begun = False
        self._lock = threading.Lock()

    def wrote(self, declared: Declared, region: Region | None) -> None:
        """Nothing to note: data files are never changed, so that new ones show themselves."""

    def sync(self) -> None:
        with self._lock:
            with writing(self._data):
                present = set(os.listdir(self._data))
            new = present - self._synced - _unfinished(present)
            sync_files(self._data / file for file in new)
            self._synced |= new
            sync_directory(self._data)
            sync_file(self._items / ocdbt_files.MANIFEST)
            sync_directory(self._items)

    def finish(self) -> None:
        self.sync()
        ocdbt_files.compact(self._items)

    def resume(self) -> None:
        _remove_unfinished(self._items)
        if self._data.is_dir():
            _remove_unfinished(self._data)
        self._begun = (self._items / ocdbt_files.MANIFEST).exists()
        if not self._begun:
            return
        try:
            lost = ocdbt_files.lost_files(self._items)
        except RecastError as error:
            # The manifest became durable, and what it refers to did not: a machine that stopped, or somebody's removal.
            raise damaged(self._items, error.diagnostics[0].reason) from error
        if lost:
            raise damaged(self._items, missing(lost))

    def check_written(self, declared: Declared, region: Region) -> None:
        # What the database holds `resume` has looked at; without its manifest another one has begun.
        if not self._begun:
            raise damaged(self._items, missing([ocdbt_files.MANIFEST]))


class _Directories:
    """A directory for each array, a file for each chunk."""

    def __init__(self, form: Form, items: Path) -> None:
        self._form = form
        self._items = items
        self._written: set[str] = set()
        self._noting = threading.Lock()
        self._syncing = threading.Lock()

    def wrote(self, declared: Declared, region: Region | None) -> None:
        with self._noting:
            self._written.update(self._form.files(declared, region))

    def sync(self) -> None:
        # One at a time: a caller must not return while another one still syncs what the caller wrote.
        with self._syncing:
            with self._noting:
                taken, self._written = self._written, set()
            try:
                sync_files(self._items / path for path in taken)
                for directory in sorted({parent for path in taken for parent in _parents(path)}):
                    sync_directory(self._items / directory)
            except BaseException:
                with self._noting:
                    self._written |= taken
                raise

    def finish(self) -> None:
        self.sync()

    def resume(self) -> None:
        for directory, _, _ in os.walk(self._items):
            _remove_unfinished(Path(directory))

    def check_written(self, declared: Declared, region: Region) -> None:
        lost = [path for path in self._form.files(declared, region) if not (self._items / path).is_file()]
        if lost:
            raise damaged(self._items, missing(lost))


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


def _remove_unfinished(directory: Path) -> None:
    with writing(directory):
        for name in _unfinished(set(os.listdir(directory))):
            (directory / name).unlink()


def _unfinished(names: set[str]) -> set[str]:
    """Files that TensorStore has not yet renamed to their final name."""
    return {name for name in names if name.endswith(_UNFINISHED_SUFFIX)}
