"""A sink that stores some arrays as float8 codes and scales: it takes plain values, and writes both arrays of each."""

from __future__ import annotations

import dataclasses
import io
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from converters.formats.base import Declared, Region, Sink, TensorInfo
from converters.quantized import notes
from converters.quantized.encoders import Encoder
from converters.quantized.forms import SCALES_DTYPE
from converters.quantized.magnitudes import Magnitudes
from converters.quantized.stored import AnyArray
from validators.quantization import FLOAT8


class EncodingSink:
    """Plain values in, codes and scales out. `write` is thread-safe as the sink's is.

    What encoding loses cannot be found from the output, so it is noted in a file, line by line; a run that goes on
    reads it again.
    """

    def __init__(self, sink: Sink, encoder: Encoder, path: Path, *, resume: bool, magnitudes: Magnitudes | None = None):
        """Makes it.

        Args:
            sink: where all arrays go.
            encoder: what encodes arrays; its form says which.
            path: where to note what was lost.
            resume: whether to go on with what is noted there.
            magnitudes: what the encoder knows of arrays; is made durable and closed with this sink.
        """
        self._sink = sink
        self._encoder = encoder
        self._form = encoder.form
        self._magnitudes = magnitudes
        self._lock = threading.Lock()
        self._notes = io.FileIO(path, "ab" if resume else "wb")
        if resume and self._notes.tell():
            self._notes.write(b"\n")  # a line that was cut must not spoil the next

    def declare(self, arrays: Sequence[Declared]) -> None:
        """States every array; two for each one that is encoded."""
        self._sink.declare([each for array in arrays for each in self._stored(array)])

    def check_written(self, regions: Iterable[tuple[str, Region]]) -> None:
        """Holds regions that an earlier sink made durable against the files."""
        self._sink.check_written(each for name, region in regions for each in self._parts(name, region))

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Stores values; those of an array that is encoded must be such as the encoder takes.

        Raises:
            RecastError: SCALE_INVALID where values are not finite, and what the sink raises.
        """
        if name not in self._form.names:
            self._sink.write(name, region, values)
            return
        encoded = self._encoder.encode(name, region, values)
        self._sink.write(name + self._form.ending, self._form.region(region), encoded.scales)
        self._sink.write(name, region, encoded.codes)
        self._note(name, region, notes.Written(_digest(encoded.codes), _digest(encoded.scales), encoded.loss))

    def sync(self) -> None:
        """Makes all writes that have returned durable, and what they lost."""
        if self._magnitudes is not None:
            self._magnitudes.sync()
        with self._lock:
            os.fsync(self._notes.fileno())
        self._sink.sync()

    def commit(self) -> None:
        """Completes the sink."""
        self._close()
        self._sink.commit()

    def abort(self) -> None:
        """Releases the sink."""
        self._close()
        self._sink.abort()

    def _close(self) -> None:
        self._notes.close()
        if self._magnitudes is not None:
            self._magnitudes.close()

    def _parts(self, name: str, region: Region) -> Iterator[tuple[str, Region]]:
        yield name, region
        if name in self._form.names:
            yield name + self._form.ending, self._form.region(region)

    def _stored(self, array: Declared) -> Iterator[Declared]:
        info = array.info
        if info.name not in self._form.names:
            yield array
            return
        grid = self._form.grid(info.shape)
        yield Declared(dataclasses.replace(info, dtype=FLOAT8), array.chunk)
        yield Declared(TensorInfo(info.name + self._form.ending, grid, SCALES_DTYPE), self._form.grid(array.chunk))

    def _note(self, name: str, region: Region, written: notes.Written) -> None:
        with self._lock:
            self._notes.write(notes.line(name, region, written))


def _digest(stored: AnyArray) -> str:
    data: Any = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    return str(blake3.blake3(data).hexdigest())
