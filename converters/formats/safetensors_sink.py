"""Writes a safetensors checkpoint whose every byte offset is known before the first write."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from converters.formats.base import AnyArray, Declared, Region
from converters.formats.dtypes import numpy_dtype
from converters.formats.durable import sync_directory, sync_files, write_file
from converters.formats.region_writing import Runs, are_short, runs, write, write_at, write_mapped
from converters.formats.regions import check_inside, shape_of
from converters.formats.safetensors_header import Entry
from converters.formats.safetensors_shards import DEFAULT_MAX_SHARD_SIZE, Shard, index_file, plan_shards
from converters.formats.storage_errors import damaged, missing, writing
from reporting.diagnostics import RecastError

_METADATA = {"format": "pt"}


class SafetensorsSink:
    """Writes regions straight to their place in files that are allocated up front. `write` is thread-safe.

    A region that is not contiguous in its tensor is written run by run, or through mapped memory where runs are short.
    Files are opened for each write, so their number is not bounded by the process's limit of open files.

    Attributes:
        directory: where the files are written.
        shards: the files, once declared.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_shard_size: int = DEFAULT_MAX_SHARD_SIZE,
        metadata: Mapping[str, str] = _METADATA,
        resume: bool = False,
        numbered: bool = False,
    ) -> None:
        """Touches no file yet.

        Args:
            directory: an existing directory.
            max_shard_size: bytes of tensors per file, as in `save_pretrained`.
            metadata: the `__metadata__` of each file.
            numbered: whether a single file has a number and an index too.
            resume: keep what an earlier sink with the same declarations wrote; without it no file may exist yet.
        """
        self.directory = directory
        self.shards: tuple[Shard, ...] = ()
        self._max_shard_size = max_shard_size
        self._metadata = dict(metadata)
        self._resume = resume
        self._numbered = numbered
        self._places: dict[str, tuple[Shard, Entry]] = {}
        self._made: set[str] = set()
        self._reserved: set[str] = set()
        self._unsynced: set[str] = set()
        self._writing: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._open = False

    def declare(self, arrays: Sequence[Declared]) -> None:
        """Assigns tensors to files in the order given, allocates the files and writes their headers.

        Raises:
            RecastError: DISK_FULL, DESTINATION_EXISTS, DESTINATION_NOT_WRITABLE, INPUT_OUTPUT.
            ValueError: no arrays, or a name twice.
        """
        infos = [array.info for array in arrays]
        self.shards = plan_shards(infos, self._max_shard_size, self._metadata, numbered=self._numbered)
        self._places = {name: (shard, entry) for shard in self.shards for name, entry in shard.entries.items()}
        for shard in self.shards:
            self._allocate(shard)
        self._unsynced = {shard.file for shard in self.shards}
        sync_directory(self.directory)
        self._writing = {shard.file: threading.Lock() for shard in self.shards}
        self._open = True

    def check_written(self, regions: Iterable[tuple[str, Region]]) -> None:
        """Looks for the files of regions that an earlier sink made durable.

        Raises:
            RecastError: UNFINISHED_RUN where one was gone, or had lost its end, before `declare` made it anew.
        """
        lost = {self._places[name][0].file for name, _ in regions} & self._made
        if lost:
            raise damaged(self.directory, missing(sorted(lost)))

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Stores a region; returns once the system has the bytes, which `sync` makes durable.

        Raises:
            RecastError: DISK_FULL, DESTINATION_NOT_WRITABLE, INPUT_OUTPUT.
            ValueError: the values do not fit the region; the sink is not open.
        """
        if not self._open:
            raise ValueError("the sink is not open")
        shard, entry = self._places[name]
        check_inside(name, region, entry.shape)
        dtype = numpy_dtype(entry.dtype)
        if values.dtype != dtype or values.shape != shape_of(region) or not values.flags.c_contiguous:
            raise ValueError(f"{name}: {values.dtype} {values.shape} is not a C-contiguous {dtype} {shape_of(region)}")
        self._store(shard.file, entry.offset, runs(region, entry.shape, dtype.itemsize), values)
        # Not before: a `sync` that runs meanwhile would take the file off the list, and nobody would sync these bytes.
        with self._lock:
            self._unsynced.add(shard.file)

    def sync(self) -> None:
        """Makes all writes that have returned durable; raises RecastError as `write` does."""
        with self._lock:
            files, self._unsynced = self._unsynced, set()
        try:
            sync_files(self.directory / file for file in files)
        except RecastError:
            with self._lock:
                self._unsynced |= files
            raise

    def commit(self) -> None:
        """Makes all files durable, then writes the index; raises RecastError as `write` does."""
        self._open = False
        with self._lock:
            self._unsynced.update(shard.file for shard in self.shards)
        self.sync()
        sync_directory(self.directory)
        index = index_file(self.shards)
        if index is not None:
            name, content = index
            write_file(self.directory / name, content)
            sync_directory(self.directory)

    def abort(self) -> None:
        """Refuses further writes; the files stay as they are."""
        self._open = False

    def _store(self, file: str, offset: int, found: Runs, values: AnyArray) -> None:
        data = values.reshape(-1).view(np.uint8)
        path = self.directory / file
        with writing(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if file in self._reserved and are_short(found) and write_mapped(descriptor, offset, found, data):
                    return
                # The kernel lets one thread write to a file at a time; others would spin meanwhile, here they sleep.
                with self._writing[file]:
                    write(descriptor, offset, found, data)
            finally:
                os.close(descriptor)

    def _allocate(self, shard: Shard) -> None:
        path = self.directory / shard.file
        with writing(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if self._resume else os.O_EXCL)
            try:
                descriptor = os.open(path, flags, 0o666)
            except FileExistsError as error:
                raise RecastError.of("DESTINATION_EXISTS", f"{path} exists", subject=str(path)) from error
            try:
                if os.fstat(descriptor).st_size < shard.size:
                    self._made.add(shard.file)
                old = os.pread(descriptor, len(shard.header), 0)
                # A killed run may have written only the first part of the header.
                if not shard.header.startswith(old.rstrip(b"\0")):
                    reason = f"{path} holds other tensors than those to be written"
                    raise RecastError.of("DESTINATION_EXISTS", reason, subject=str(path))
                if _reserve(descriptor, shard.size):
                    self._reserved.add(shard.file)
                os.ftruncate(descriptor, shard.size)
                write_at(descriptor, memoryview(shard.header), 0)
            finally:
                os.close(descriptor)


def _reserve(descriptor: int, size: int) -> bool:
    """Reserves a file's blocks; False where the file system cannot, and writing finds out whether there are enough."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return False
    return True
