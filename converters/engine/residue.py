"""Single elements that the target's arithmetic cannot give back: kept as index, stored bits and original bits.

While a conversion runs, each unit appends its entries to a journal; at commit they are joined into one safetensors
file. On the way back an entry applies only where the array still holds the recorded bits.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.engine import values
from converters.engine.values import AnyArray
from converters.formats.base import TensorInfo
from reporting.diagnostics import RecastError

Box = tuple[tuple[int, int], ...]
_ENTRY_LIMIT = 1 << 40


@dataclasses.dataclass(frozen=True)
class Part:
    """The entries of one unit.

    Attributes:
        array: name of the array in the output.
        shape: its shape.
        box: the region that the unit covered.
        stored_dtype: dtype of the array, `original_dtype` of the values before the target's operations.
        index: int64 [n], flat C-order indices into the array.
        stored: unsigned [n], the bits in the array.
        original: unsigned [n], the bits that the inverse does not give back.
    """

    array: str
    shape: tuple[int, ...]
    box: Box
    stored_dtype: str
    original_dtype: str
    index: AnyArray
    stored: AnyArray
    original: AnyArray


def collect(array: str, shape: tuple[int, ...], box: Box, logical: AnyArray, stored: AnyArray, lost: AnyArray) -> Part:
    """The entries for the elements at flat positions `lost` of a unit's box."""
    extents = tuple(stop - start for start, stop in box)
    local = np.unravel_index(lost, extents) if extents else ()
    where = tuple(axis + start for axis, (start, _) in zip(local, box, strict=True))
    index = np.ravel_multi_index(where, shape).astype(np.int64) if shape else np.zeros(lost.size, np.int64)
    return Part(
        array,
        shape,
        box,
        str(stored.dtype),
        str(logical.dtype),
        index,
        _bits(stored.reshape(-1)[lost]),
        _bits(logical.reshape(-1)[lost]),
    )


class Journal:
    """Appends parts to a file as units finish; thread-safe."""

    def __init__(self, path: Path):
        self._path = path
        self._lock = threading.Lock()
        self.elements: dict[str, int] = {}

    def append(self, part: Part) -> None:
        """Adds the entries of one unit."""
        head = json.dumps(
            {
                "array": part.array,
                "shape": part.shape,
                "box": part.box,
                "stored_dtype": part.stored_dtype,
                "original_dtype": part.original_dtype,
                "count": int(part.index.size),
            }
        ).encode()
        record = struct.pack("<Q", len(head)) + head
        record += part.index.tobytes() + part.stored.tobytes() + part.original.tobytes()
        with self._lock:
            with open(self._path, "ab") as file:
                file.write(record)
            self.elements[part.array] = self.elements.get(part.array, 0) + int(part.index.size)

    def join(self, target: Path) -> int:
        """Writes the residue file and removes the journal; returns the number of elements, 0 if there is no file."""
        if not self._path.exists():
            return 0
        from safetensors.numpy import save_file

        arrays: dict[str, AnyArray] = {}
        heads: list[dict[str, Any]] = []
        for number, (head, index, stored, original) in enumerate(_records(self._path)):
            heads.append(head)
            arrays[f"{number}.index"] = index
            arrays[f"{number}.stored"] = stored
            arrays[f"{number}.original"] = original
        save_file(arrays, str(target), metadata={"parts": json.dumps(heads)})
        # The library makes files that only their owner may read.
        target.chmod(self._path.stat().st_mode & 0o777)
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._path.unlink()
        return sum(int(head["count"]) for head in heads)


def _records(path: Path) -> list[tuple[dict[str, Any], AnyArray, AnyArray, AnyArray]]:
    out = []
    data = np.memmap(path, np.uint8, "r")
    position = 0
    while position < data.size:
        (length,) = struct.unpack("<Q", data[position : position + 8].tobytes())
        position += 8
        head = json.loads(data[position : position + length].tobytes())
        position += length
        columns = []
        widths = ("int64", _carrier(head["stored_dtype"]), _carrier(head["original_dtype"]))
        for name in widths:
            size = head["count"] * np.dtype(name).itemsize
            columns.append(np.frombuffer(data[position : position + size].tobytes(), name))
            position += size
        out.append((head, columns[0], columns[1], columns[2]))
    return out


class Residue:
    """The residue of a checkpoint, by array and region."""

    def __init__(self, parts: Mapping[str, tuple[Part, ...]]):
        self._parts = parts
        self.applied = 0
        self.stale = 0
        self._lock = threading.Lock()

    @property
    def elements(self) -> int:
        """How many elements it holds."""
        return sum(int(part.index.size) for parts in self._parts.values() for part in parts)

    def arrays(self) -> frozenset[str]:
        """The arrays that it has entries for."""
        return frozenset(self._parts)

    def check(self, tensors: Mapping[str, TensorInfo]) -> None:
        """Refuses entries for arrays that the checkpoint does not have in that shape.

        Raises:
            RecastError: RESIDUE_INVALID.
        """
        for name, parts in self._parts.items():
            shape = tensors[name].shape if name in tensors else None
            if any(part.shape != shape for part in parts):
                reason = f"recast/residue.safetensors is about {name} in a shape that the checkpoint lacks."
                raise RecastError.of("RESIDUE_INVALID", reason, subject=name)

    def patch(self, array: str, box: Box, stored: AnyArray, logical: AnyArray) -> None:
        """Puts original bits into `logical` wherever `stored` still has the recorded bits.

        Args:
            array: the array's name.
            box: the region that both arrays hold.
            stored: the region as read.
            logical: writable, C-contiguous, the same region after the inverse operations.
        """
        applied, stale = self.peek(array, box, stored, logical)
        with self._lock:
            self.applied += applied
            self.stale += stale

    def peek(self, array: str, box: Box, stored: AnyArray, logical: AnyArray) -> tuple[int, int]:
        """Does what `patch` does without counting; returns how many entries applied and how many were stale."""
        applied = stale = 0
        for part in self._parts.get(array, ()):
            if logical.dtype != values.dtype_of(part.original_dtype) or not _meet(part.box, box):
                continue
            counts = _patch_part(part, box, stored, logical)
            applied += counts[0]
            stale += counts[1]
        return applied, stale


def _patch_part(part: Part, box: Box, stored: AnyArray, logical: AnyArray) -> tuple[int, int]:
    where = np.unravel_index(part.index, part.shape) if part.shape else ()
    inside = np.ones(part.index.size, bool)
    for axis, (start, stop) in zip(where, box, strict=True):
        inside &= (axis >= start) & (axis < stop)
    local = tuple(axis[inside] - start for axis, (start, _) in zip(where, box, strict=True))
    same = _bits(np.asarray(stored[local])).reshape(-1) == part.stored[inside]
    keep = tuple(axis[same] for axis in local)
    _bits(logical)[keep] = part.original[inside][same]
    return int(same.sum()), int(same.size - same.sum())


EMPTY: Mapping[str, tuple[Part, ...]] = {}


def read(path: Path) -> Residue:
    """Opens a residue file; an absent one is empty.

    Raises:
        RecastError: RESIDUE_INVALID if the file contradicts itself.
    """
    if not path.exists():
        return Residue(EMPTY)
    from safetensors import SafetensorError, safe_open

    parts: dict[str, list[Part]] = {}
    try:
        with safe_open(str(path), framework="numpy") as file:
            heads = json.loads((file.metadata() or {})["parts"])
            for number, head in enumerate(heads):
                columns = [file.get_tensor(f"{number}.{name}") for name in ("index", "stored", "original")]
                part = _checked(head, *columns)
                parts.setdefault(part.array, []).append(part)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise RecastError.of(
            "RESIDUE_INVALID", f"The residue file cannot be read: {error}.", subject=f"recast/{path.name}"
        ) from error
    return Residue({name: tuple(found) for name, found in parts.items()})


def _checked(head: Mapping[str, Any], index: AnyArray, stored: AnyArray, original: AnyArray) -> Part:
    shape = tuple(int(n) for n in head["shape"])
    box = tuple((int(start), int(stop)) for start, stop in head["box"])
    size = int(np.prod(shape, dtype=np.float64)) if shape else 1
    if any(n < 0 for n in shape) or any(column.ndim != 1 for column in (index, stored, original)):
        raise ValueError("a shape or a column that cannot be")
    if size > _ENTRY_LIMIT or len(box) != len(shape):
        raise ValueError("an array of an impossible shape")
    if not index.size == stored.size == original.size == int(head["count"]):
        raise ValueError("columns of different lengths")
    if index.dtype != np.int64 or (index.size and (index.min() < 0 or index.max() >= size)):
        raise ValueError("an index outside of its array")
    if str(stored.dtype) != _carrier(head["stored_dtype"]) or str(original.dtype) != _carrier(head["original_dtype"]):
        raise ValueError("bits of the wrong width")
    return Part(
        str(head["array"]), shape, box, str(head["stored_dtype"]), str(head["original_dtype"]), index, stored, original
    )


def _carrier(dtype: str) -> str:
    return f"uint{8 * values.itemsize(dtype)}"


def _bits(array: AnyArray) -> AnyArray:
    return array.view(f"u{array.dtype.itemsize}")


def _meet(first: Box, second: Box) -> bool:
    return all(a < d and c < b for (a, b), (c, d) in zip(first, second, strict=True))
