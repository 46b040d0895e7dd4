"""Files mapped once each for reading: views of their bytes, and memory given back page by page."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from converters.formats.regular_files import open_regular
from converters.formats.storage_errors import reading
from reporting.diagnostics import RecastError


class MappedFiles:
    """The files of a checkpoint, each mapped when it is first read. Thread-safe.

    A file that is made shorter while it is mapped kills the process with SIGBUS when its missing pages are touched;
    the fingerprints of a source let its reader notice a changed file between units of work.
    """

    def __init__(self, directory: Path, sizes: Mapping[str, int]) -> None:
        """Maps nothing yet.

        Args:
            directory: where the files are.
            sizes: bytes of each file by name, as they were when its tensors were found.
        """
        self._directory = directory
        self._sizes = sizes
        self._maps: dict[str, mmap.mmap] = {}
        self._lock = threading.Lock()
        self._closed = False

    def map(self, file: str) -> mmap.mmap:
        """The bytes of a file, read-only.

        Raises:
            ValueError: the files are closed.
            RecastError: INPUT_OUTPUT or SOURCE_NOT_FOUND, when it cannot be mapped; SOURCE_CHANGED, when it has another
                size than before, or is no file any more.
        """
        with self._lock:
            if self._closed:
                raise ValueError("the source is closed")
            if file not in self._maps:
                self._maps[file] = self._open(file)
            return self._maps[file]

    def give_back(self, file: str, start: int, stop: int) -> None:
        """Gives back the memory of the whole pages within a range of bytes.

        The pages stay in the system's page cache, and a later read maps them again, so this is safe at any time.
        """
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        end = stop // mmap.PAGESIZE * mmap.PAGESIZE
        with self._lock:
            mapped = self._maps.get(file)
        if mapped is not None and end > first:
            mapped.madvise(mmap.MADV_DONTNEED, first, end - first)

    def close(self) -> None:
        """Unmaps the files; views that are still held keep their own file mapped."""
        with self._lock:
            maps, self._maps, self._closed = self._maps, {}, True
        for mapped in maps.values():
            with contextlib.suppress(BufferError):
                mapped.close()

    def _open(self, file: str) -> mmap.mmap:
        path = self._directory / file
        with reading(path):
            opened = open_regular(path)
            if opened is None:
                raise RecastError.of("SOURCE_CHANGED", f"{file} is no regular file any more", subject=file)
            with opened:
                size = os.fstat(opened.fileno()).st_size
                if size != self._sizes[file]:
                    reason = f"{file} had {self._sizes[file]} bytes and now has {size}"
                    raise RecastError.of("SOURCE_CHANGED", reason, subject=file)
                return mmap.mmap(opened.fileno(), size, prot=mmap.PROT_READ)
