"""A sink that stores some arrays as float8 codes and scales: it takes plain values, and writes both arrays of each."""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import blake3
import ml_dtypes
import numpy as np

from converters.formats.base import Declared, Region, Sink, TensorInfo
from converters.formats.regions import shape_of
from converters.quantized import notes
from converters.quantized.blocks import PIECE, SCALES, SCALES_DTYPE, Blocks
from converters.quantized.encoding import Loss, float8_blocks
from converters.quantized.stored import AnyArray, span
from reporting.diagnostics import RecastError
from validators.quantization import FLOAT8


class EncodingSink:
    """Plain values in, codes and scales out. `write` is thread-safe as the sink's is.

    What encoding loses cannot be found from the output, so it is noted in a file, line by line; a run that goes on
    reads it again.
    """

    def __init__(self, sink: Sink, blocks: Blocks, path: Path, *, resume: bool):
        """Makes it.

        Args:
            sink: where all arrays go.
            blocks: how arrays are encoded, and which.
            path: where to note what was lost.
            resume: whether to go on with what is noted there.
        """
        self._sink = sink
        self._blocks = blocks
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
        """Stores values; those of an array that is encoded must be whole blocks of float32.

        Raises:
            RecastError: SCALE_INVALID where values are not finite, and what the sink raises.
        """
        if name not in self._blocks.names:
            self._sink.write(name, region, values)
            return
        codes = np.empty(values.shape, ml_dtypes.float8_e4m3fn)
        scales = np.empty(shape_of(self._blocks.region(region)), np.float32)
        loss = Loss()
        for lead, rows, columns in self._pieces(values.shape):
            piece: tuple[Any, ...] = (*lead, slice(*rows), slice(*columns))
            encoded = float8_blocks(values[piece], self._blocks.size, self._blocks.powers_of_two)
            if encoded is None:
                reason = f"{name} holds NaN or infinite values, so that a block of it has no scale."
                raise RecastError.of("SCALE_INVALID", reason, subject=name, suggestion=_PLAIN)
            high, wide = (span(ends, size) for ends, size in zip((rows, columns), self._blocks.size, strict=True))
            codes[piece] = encoded[0]
            of_scales: tuple[Any, ...] = (*lead, slice(*high), slice(*wide))
            scales[of_scales] = encoded[1]
            loss = loss.joined(encoded[2])
        self._sink.write(name + SCALES, self._blocks.region(region), scales)
        self._sink.write(name, region, codes)
        self._note(name, region, notes.Written(_digest(codes), _digest(scales), loss))

    def sync(self) -> None:
        """Makes all writes that have returned durable, and what they lost."""
        with self._lock:
            os.fsync(self._notes.fileno())
        self._sink.sync()

    def commit(self) -> None:
        """Completes the sink."""
        self._notes.close()
        self._sink.commit()

    def abort(self) -> None:
        """Releases the sink."""
        self._notes.close()
        self._sink.abort()

    def _parts(self, name: str, region: Region) -> Iterator[tuple[str, Region]]:
        yield name, region
        if name in self._blocks.names:
            yield name + SCALES, self._blocks.region(region)

    def _stored(self, array: Declared) -> Iterator[Declared]:
        info = array.info
        if info.name not in self._blocks.names:
            yield array
            return
        grid = self._blocks.grid(info.shape)
        yield Declared(dataclasses.replace(info, dtype=FLOAT8), array.chunk)
        yield Declared(TensorInfo(info.name + SCALES, grid, SCALES_DTYPE), self._blocks.grid(array.chunk))

    def _pieces(self, shape: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], tuple[int, int], tuple[int, int]]]:
        """A region in pieces of whole blocks."""
        *lead, rows, columns = shape
        high, wide = self._blocks.size
        across = max(1, PIECE // max(high * wide, 1)) * wide
        for index in itertools.product(*(range(size) for size in lead)):
            for top, left in itertools.product(range(0, rows, high), range(0, columns, across)):
                yield index, (top, min(top + high, rows)), (left, min(left + across, columns))

    def _note(self, name: str, region: Region, written: notes.Written) -> None:
        with self._lock:
            self._notes.write(notes.line(name, region, written))


_PLAIN = "Write plain weights: leave --requantize out."


def _digest(stored: AnyArray) -> str:
    data: Any = np.ascontiguousarray(stored).reshape(-1).view(np.uint8)
    return str(blake3.blake3(data).hexdigest())
