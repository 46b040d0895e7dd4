"""The largest magnitude of each region of arrays that share one scale, noted line by line, so that none is lost."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from converters.formats.base import Region
from converters.quantized.stored import AnyArray
from converters.quantized.tensor_encoding import Largest, largest
from reporting.diagnostics import RecastError

_SUGGESTION = "Repair the checkpoint, or write its weights in a form without scales."


class Magnitudes:
    """What is known of arrays. Thread-safe; as a sink's `write`, `write` looks at values and stores none of them."""

    def __init__(self, path: Path, *, resume: bool):
        """Args: the file of notes; whether to go on with what it holds."""
        self._lock = threading.Lock()
        self._known: dict[str, dict[Region, Largest]] = {}
        if resume and path.is_file():
            for line in path.read_bytes().split(b"\n"):
                self._read(line)
        self._file = io.FileIO(path, "ab" if resume else "wb")
        if resume and self._file.tell():
            self._file.write(b"\n")  # a line that was cut must not spoil the next

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Notes the largest magnitude of a region.

        Raises:
            RecastError: SCALE_INVALID where a value is not finite.
        """
        found = largest(values)
        if found is None:
            reason = f"{name} holds NaN or infinite values, so that it has no scale."
            raise RecastError.of("SCALE_INVALID", reason, subject=name, suggestion=_SUGGESTION)
        at = tuple(start + n for (start, _), n in zip(region, found.at, strict=True))
        line = json.dumps([name, region, found.size, at]).encode() + b"\n"
        with self._lock:
            self._known.setdefault(name, {})[region] = Largest(found.size, at)
            self._file.write(line)

    def knows(self, name: str, region: Region) -> bool:
        """Whether a region was looked at."""
        return region in self._known.get(name, {})

    def of(self, name: str) -> Largest:
        """The largest magnitude of all regions of an array that were looked at."""
        with self._lock:
            known = list(self._known[name].values())
        return _largest_of(known)

    def sync(self) -> None:
        """Makes all notes durable."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file; what is known stays."""
        self._file.close()

    def _read(self, line: bytes) -> None:
        try:
            name, box, size, at = json.loads(line)
            region = tuple((int(start), int(stop)) for start, stop in box)
            found = Largest(float(size), tuple(int(n) for n in at))
        except (ValueError, TypeError):
            return  # what a run that was killed left of its last line
        self._known.setdefault(name, {})[region] = found


def _largest_of(known: Iterable[Largest]) -> Largest:
    first, *others = known
    for other in others:
        first = first.joined(other)
    return first
