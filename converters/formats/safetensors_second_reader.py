"""Reads single elements of a safetensors file back, sharing nothing with the code that wrote it or reads it in bulk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np

from converters.formats.base import AnyArray

# Stated again on purpose: a table shared with the writer would hide the writer's mistakes.
_TYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


class SafetensorsElements:
    """Elements of one file by coordinate; the header is parsed once, and the file is opened for each call."""

    def __init__(self, path: Path) -> None:
        """Parses the header; raises OSError where the file cannot be read, ValueError where it is none."""
        self._path = path
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            self._header = json.loads(file.read(length))
        self._data = 8 + length

    def read(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The elements of a tensor at coordinates.

        Args:
            name: the tensor.
            coordinates: integers, shape (points, rank).

        Returns:
            Shape (points,), in the stored type.

        Raises:
            OSError: the file cannot be read.
            ValueError: a coordinate lies outside of the tensor, or the file ends before it.
            KeyError: the file has no such tensor.
        """
        entry = self._header[name]
        dtype = np.dtype(_TYPES[entry["dtype"]])
        shape = tuple(entry["shape"])
        points = np.asarray(coordinates, np.int64)
        if points.ndim != 2 or points.shape[1] != len(shape):
            raise ValueError(f"{points.shape} is no shape of coordinates in {shape}")
        start = self._data + entry["data_offsets"][0]
        raw = bytearray()
        with open(self._path, "rb") as file:
            for point in points.tolist():
                raw += os.pread(file.fileno(), dtype.itemsize, start + _position(point, shape) * dtype.itemsize)
        if len(raw) != len(points) * dtype.itemsize:
            raise ValueError(f"{self._path} ends inside of {name}")
        return np.frombuffer(bytes(raw), dtype)


def _position(point: list[int], shape: tuple[int, ...]) -> int:
    position = 0
    for index, size in zip(point, shape, strict=True):
        if not 0 <= index < size:
            raise ValueError(f"{point} lies outside of {shape}")
        position = position * size + index
    return position
