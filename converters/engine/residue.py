"""Single elements that the target's arithmetic cannot give back: kept as index, stored bits and original bits.

While a conversion runs, each unit appends its entries to a journal; at commit they are joined into one safetensors
file. On the way back an entry applies only where the array still holds the recorded bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import json
import math
import os
import struct
import threading
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from converters.engine import residue_entries, values
from converters.engine.values import AnyArray
from converters.formats.base import TensorInfo
from converters.formats.dtypes import NAMES
from converters.formats.json_files import is_count, printable
from mappings import strict_json
from reporting.diagnostics import RecastError

Box = tuple[tuple[int, int], ...]
_ENTRY_LIMIT = 1 << 40
_MOST_AXES = 64
_PIECE = 8 << 20
_BLOCK = 1 << 16


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

    @functools.cached_property
    def in_order(self) -> bool:
        """Whether the entries are in ascending order; those that a conversion writes are."""
        return residue_entries.ascending(self.index)

    def inside(self, box: Box) -> Iterator[residue_entries.Found]:
        """Positions and coordinates of the entries in a box, some at a time."""
        return residue_entries.inside(self.index, self.in_order, self.shape, box)


def collect(array: str, shape: tuple[int, ...], box: Box, logical: AnyArray, stored: AnyArray, lost: AnyArray) -> Part:
    """The entries for the elements at flat positions `lost` of a unit's box."""
    extents = tuple(stop - start for start, stop in box)
    index = np.zeros(lost.size, np.int64)
    # In blocks: the coordinates of all elements at once would take more memory than the unit itself.
    for first in range(0, lost.size if shape else 0, _BLOCK):
        local = np.unravel_index(lost[first : first + _BLOCK], extents)
        where = tuple(axis + start for axis, (start, _) in zip(local, box, strict=True))
        index[first : first + _BLOCK] = np.ravel_multi_index(where, shape)
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
                "crc32": _checksum((part.index.data, part.stored.data, part.original.data)),
            }
        ).encode()
        with self._lock:
            with open(self._path, "ab") as file:
                start = file.tell()
                try:
                    file.write(struct.pack("<Q", len(head)) + head)
                    for column in (part.index, part.stored, part.original):
                        file.write(column.data)
                    file.flush()
                except OSError:
                    # Half a part would hide all that follows it.
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), start)
                    raise
            self.elements[part.array] = self.elements.get(part.array, 0) + int(part.index.size)

    def sync(self) -> None:
        """Makes all that was appended durable."""
        with self._lock:
            if not self._path.exists():
                return
            with open(self._path, "ab") as file:
                os.fsync(file.fileno())

    def keep_only(self, done: Collection[tuple[str, Box]]) -> Mapping[tuple[str, Box], int]:
        """Removes all parts but the last of each unit named; returns how many elements each of those has."""
        if not self._path.exists():
            return {}
        kept: dict[tuple[str, Box], tuple[int, int]] = {}
        counts: dict[tuple[str, Box], int] = {}
        for head, start, stop in _spans(self._path):
            if _checksum((_read_range(self._path, stop - _columns_bytes(head), stop),)) != head.get("crc32"):
                # A part that was torn: where the next one begins is not known.
                break
            unit = (str(head["array"]), tuple((int(a), int(b)) for a, b in head["box"]))
            if unit in done:
                kept[unit] = (start, stop)
                counts[unit] = int(head["count"])
        beside = self._path.with_name(f"{self._path.name}.new")
        with open(self._path, "rb") as old, open(beside, "wb") as file:
            for start, stop in kept.values():
                old.seek(start)
                file.write(old.read(stop - start))
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self._path)
        return counts

    def join(self, target: Path) -> int:
        """Writes the residue file; returns the number of elements, 0 if there is no file."""
        if not self._path.exists() or not self._path.stat().st_size:
            return 0
        # Threads finish in any order; the file shall not depend on it.
        parts = sorted(_spans(self._path), key=lambda part: (part[0]["array"], part[0]["box"]))
        with open(self._path, "rb") as journal, open(target, "wb") as file:
            columns = _columns(parts)
            file.write(_header([_without_checksum(head) for head, _, _ in parts], columns))
            for column in columns:
                journal.seek(column.position)
                _copy(journal, file, column.bytes)
            file.flush()
            os.fsync(file.fileno())
        return sum(int(head["count"]) for head, _, _ in parts)


@dataclasses.dataclass(frozen=True)
class _Column:
    """A column of a part: its name and type in the residue file, and where it lies in the journal."""

    name: str
    dtype: str
    count: int
    position: int

    @property
    def bytes(self) -> int:
        return self.count * np.dtype(self.dtype).itemsize


def _columns(parts: Sequence[tuple[Mapping[str, Any], int, int]]) -> list[_Column]:
    """All columns, the widest types first, so that each lies aligned in the file and can be mapped."""
    out = []
    for number, (head, _, stop) in enumerate(parts):
        position = stop - _columns_bytes(head)
        for name, dtype in zip(("index", "stored", "original"), _column_types(head), strict=True):
            column = _Column(f"{number}.{name}", dtype, int(head["count"]), position)
            out.append(column)
            position += column.bytes
    return sorted(out, key=lambda column: -np.dtype(column.dtype).itemsize)


def _header(heads: Sequence[Mapping[str, Any]], columns: Sequence[_Column]) -> bytes:
    """The length and the header of a safetensors file."""
    said: dict[str, Any] = {"__metadata__": {"parts": json.dumps(heads)}}
    end = 0
    for column in columns:
        kind = np.dtype(column.dtype)
        said[column.name] = {
            "dtype": f"{kind.kind.upper()}{8 * kind.itemsize}",
            "shape": [column.count],
            "data_offsets": [end, end + column.bytes],
        }
        end += column.bytes
    text = json.dumps(said, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _without_checksum(head: Mapping[str, Any]) -> dict[str, Any]:
    """A part's head as the file has it: its bytes are under the manifest's digest there."""
    return {key: value for key, value in head.items() if key != "crc32"}


def _checksum(pieces: Iterable[Any]) -> int:
    return functools.reduce(lambda sum, piece: zlib.crc32(piece, sum), pieces, 0)


def _read_range(path: Path, start: int, stop: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count > 0:
        piece = source.read(min(count, _PIECE))
        if not piece:
            raise OSError(errno.EIO, "the journal ends early")
        target.write(piece)
        count -= len(piece)


def _spans(path: Path) -> Iterator[tuple[dict[str, Any], int, int]]:
    """Head, first byte and end of every part of a journal; a last part that was not finished is left out."""
    size = path.stat().st_size
    position = 0
    with open(path, "rb") as file:
        while position + 8 <= size:
            file.seek(position)
            (length,) = struct.unpack("<Q", file.read(8))
            if position + 8 + length > size:
                return
            try:
                head = json.loads(file.read(length))
                stop = position + 8 + length + _columns_bytes(head)
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                return
            if stop > size or head["count"] < 0:
                return
            yield head, position, stop
            position = stop


def _column_types(head: Mapping[str, Any]) -> tuple[str, str, str]:
    return ("int64", _carrier(head["stored_dtype"]), _carrier(head["original_dtype"]))


def _columns_bytes(head: Mapping[str, Any]) -> int:
    return int(head["count"]) * sum(np.dtype(name).itemsize for name in _column_types(head))


class Residue:
    """The residue of a checkpoint, by array and region."""

    def __init__(self, parts: Mapping[str, tuple[Part, ...]]):
        self._parts = parts
        self._boxes: dict[str, AnyArray] = {}
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

    def parts(self, array: str) -> tuple[Part, ...]:
        """The entries for an array."""
        return self._parts.get(array, ())

    def meeting(self, array: str, box: Box) -> Iterator[Part]:
        """The parts for an array whose units meet a box."""
        parts = self.parts(array)
        if not box or not parts:
            yield from parts
            return
        if array not in self._boxes:
            self._boxes[array] = np.array([part.box for part in parts])
        boxes, asked = self._boxes[array], np.array(box)
        near = (boxes[:, :, 0] < asked[:, 1]) & (asked[:, 0] < boxes[:, :, 1])
        for number in np.flatnonzero(near.all(axis=1)):
            yield parts[number]

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
            logical: writable, C-contiguous, the same region after the inverse operations, in a dtype that holds the
                values of the recorded one; else nothing is done.
        """
        applied, stale = self.peek(array, box, stored, logical)
        with self._lock:
            self.applied += applied
            self.stale += stale

    def peek(self, array: str, box: Box, stored: AnyArray, logical: AnyArray) -> tuple[int, int]:
        """Does what `patch` does without counting; returns how many entries applied and how many were stale."""
        applied = stale = 0
        for part in self.meeting(array, box):
            if not values.widens(part.original_dtype, str(logical.dtype)):
                continue
            for positions, where in part.inside(box):
                local = tuple(axis - start for axis, (start, _) in zip(where, box, strict=True))
                count = _patch(part, positions, local, stored, logical)
                applied += count
                stale += positions.size - count
        return applied, stale


def _patch(part: Part, positions: AnyArray, local: tuple[AnyArray, ...], stored: AnyArray, logical: AnyArray) -> int:
    """Applies entries at coordinates of a region; returns how many were not stale."""
    same = _bits(np.asarray(stored[local])).reshape(-1) == part.stored[positions]
    original = part.original[positions][same]
    if original.size:
        original = _bits(original.view(values.dtype_of(part.original_dtype)).astype(logical.dtype))
        # A single number takes no array, not even of one.
        _bits(logical)[tuple(axis[same] for axis in local)] = original if local else original[-1]
    return int(original.size)


EMPTY: Mapping[str, tuple[Part, ...]] = {}


def read(path: Path) -> Residue:
    """Opens a residue file; an absent one is empty.

    Raises:
        RecastError: RESIDUE_INVALID if the file contradicts itself.
    """
    if not path.exists():
        return Residue(EMPTY)
    from converters.formats.safetensors_source import SafetensorsSource

    parts: dict[str, list[Part]] = {}
    try:
        # Mapped: a residue may be larger than the memory budget, and the kernel can take its pages back.
        source = SafetensorsSource(path)
        for number, head in enumerate(strict_json.loads(source.metadata[path.name]["parts"])):
            names = [f"{number}.{name}" for name in ("index", "stored", "original")]
            columns = [source.read(name, tuple((0, size) for size in source.tensors[name].shape)) for name in names]
            part = _checked(head, *columns)
            parts.setdefault(part.array, []).append(part)
    except (RecastError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        said = error.diagnostics[0].reason if isinstance(error, RecastError) else printable(str(error))
        raise RecastError.of(
            "RESIDUE_INVALID", f"The residue file cannot be read: {said}.", subject=f"recast/{path.name}"
        ) from error
    return Residue({name: tuple(found) for name, found in parts.items()})


def _checked(head: Mapping[str, Any], index: AnyArray, stored: AnyArray, original: AnyArray) -> Part:
    shape = tuple(head["shape"])
    if len(shape) > _MOST_AXES or not all(is_count(n) for n in shape) or math.prod(shape) > _ENTRY_LIMIT:
        raise ValueError("an array of an impossible shape")
    size = math.prod(shape)
    box = tuple((start, stop) for start, stop in head["box"])
    if len(box) != len(shape) or not all(_is_range(*pair, n) for pair, n in zip(box, shape, strict=True)):
        raise ValueError("a region outside of its array")
    if any(column.ndim != 1 for column in (index, stored, original)):
        raise ValueError("a column that cannot be")
    if not index.size == stored.size == original.size == head["count"]:
        raise ValueError("columns of different lengths")
    if index.dtype != np.int64 or (index.size and (index.min() < 0 or index.max() >= size)):
        raise ValueError("an index outside of its array")
    if head["stored_dtype"] not in NAMES or head["original_dtype"] not in NAMES:
        raise ValueError("elements of an unknown type")
    if str(stored.dtype) != _carrier(head["stored_dtype"]) or str(original.dtype) != _carrier(head["original_dtype"]):
        raise ValueError("bits of the wrong width")
    return Part(
        str(head["array"]), shape, box, str(head["stored_dtype"]), str(head["original_dtype"]), index, stored, original
    )


def _is_range(start: object, stop: object, size: int) -> bool:
    return isinstance(stop, int) and is_count(stop, size) and is_count(start, stop)


def _carrier(dtype: str) -> str:
    return f"uint{8 * values.itemsize(dtype)}"


def _bits(array: AnyArray) -> AnyArray:
    return array.view(f"u{array.dtype.itemsize}")
