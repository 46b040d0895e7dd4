"""The header of one safetensors file, every claim of it checked.

Format: 8 bytes little-endian length, a JSON object of that length, then the data
(https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from converters.formats.dtypes import element_size
from converters.formats.json_files import LIMIT, JsonFault, is_count, is_text, parse_object, printable
from converters.formats.regular_files import open_regular
from reporting.diagnostics import Diagnostic

DTYPES: Mapping[str, str] = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
"""NumPy's name for each element type of a header, in the library's order of types."""

_MAX_RANK = 64
_MAX_COUNT = 2**63 - 1
LFS_POINTER = b"version https://git-lfs"
"""How what stands for a file in Git begins, where the file itself was not fetched."""
LFS_CURE = "Run `git lfs pull`."


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file.

    Attributes:
        name: its name.
        dtype: NumPy's name of its element type.
        shape: sizes of its axes.
        offset: position of its first byte in the file.
        nbytes: its bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What a file says about itself.

    Attributes:
        entries: the well-formed tensors by name, in the order of the header.
        names: the names of all tensors, well-formed or not.
        metadata: the `__metadata__` map.
        data_start: position of the first byte after the header.
        size: bytes of the file.
    """

    entries: Mapping[str, Entry]
    names: frozenset[str]
    metadata: Mapping[str, str]
    data_start: int
    size: int


def scan_header(path: Path, label: str) -> tuple[Header | None, list[Diagnostic]]:
    """The header of a file and everything that is wrong with it.

    Args:
        path: the file.
        label: what the diagnostics call it.

    Returns:
        The header, None where it is not even a JSON object; and all violations.

    Raises:
        OSError: the file cannot be opened or read.
    """
    file = open_regular(path)
    if file is None:
        return None, [Diagnostic("HEADER_INVALID", f"{label} is not a regular file", subject=label)]
    with file:
        return _Scan(label).run(file, os.fstat(file.fileno()).st_size)


class _Scan:
    def __init__(self, label: str) -> None:
        self._label = label
        self._found: list[Diagnostic] = []

    def run(self, file: BinaryIO, size: int) -> tuple[Header | None, list[Diagnostic]]:
        raw = self._header_bytes(file, size)
        if raw is None:
            return None, self._found
        try:
            fields = parse_object(raw)
        except JsonFault as fault:
            self._add("HEADER_INVALID", f"header: {fault}")
            return None, self._found
        metadata = self._metadata(fields.pop("__metadata__", None))
        start = 8 + len(raw)
        entries, ranges = self._entries(fields, start)
        self._check_ranges(ranges, size - start, complete=len(ranges) == len(fields))
        return Header(entries, frozenset(fields), metadata, start, size), self._found

    def _add(self, id: str, reason: str, tensor: str = "", suggestion: str = "") -> None:
        place = f"{self._label}: {printable(tensor)}" if tensor else self._label
        separator = " " if not tensor else ": "
        self._found.append(Diagnostic(id, f"{place}{separator}{reason}", subject=place, suggestion=suggestion))

    def _header_bytes(self, file: BinaryIO, size: int) -> bytes | None:
        prefix = file.read(8)
        if len(prefix) < 8:
            self._add("FILE_TRUNCATED", f"has {len(prefix)} bytes, fewer than the 8 that state the header's length")
            return None
        if prefix == LFS_POINTER[:8] and file.read(len(LFS_POINTER) - 8) == LFS_POINTER[8:]:
            self._add("HEADER_INVALID", "is a Git LFS pointer, not the file itself", suggestion=LFS_CURE)
            return None
        length = int.from_bytes(prefix, "little")
        if length > LIMIT:
            self._add("HEADER_INVALID", f"claims a header of {length} bytes, more than the {LIMIT} that are allowed")
            return None
        if length > size - 8:
            self._add("FILE_TRUNCATED", f"claims a header of {length} bytes and has {size - 8} after its length")
            return None
        raw = file.read(length)
        if len(raw) < length:
            self._add("FILE_TRUNCATED", f"ends {length - len(raw)} bytes before its header does")
            return None
        return raw

    def _metadata(self, value: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(is_text(k) and is_text(v) for k, v in value.items()):
            self._add("HEADER_INVALID", "__metadata__ is not a map of strings")
            return {}
        return value

    def _entries(self, fields: dict[str, Any], start: int) -> tuple[dict[str, Entry], list[tuple[int, int, str]]]:
        entries = {}
        ranges = []
        for name, value in fields.items():
            if not is_text(name):
                self._add("HEADER_INVALID", "the name cannot be written as UTF-8", tensor=name)
                continue
            offsets = self._offsets(name, value)
            if offsets is None:
                continue
            ranges.append((*offsets, name))
            entry = self._entry(name, value, offsets, start)
            if entry is not None:
                entries[name] = entry
        return entries, ranges

    def _offsets(self, name: str, value: object) -> tuple[int, int] | None:
        if not isinstance(value, dict):
            self._add("HEADER_INVALID", "its entry is not an object", tensor=name)
            return None
        offsets = value.get("data_offsets")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(is_count(o) for o in offsets):
            self._add("OFFSETS_INVALID", "data_offsets is not a pair of byte positions", tensor=name)
            return None
        begin, end = offsets
        if begin > end:
            self._add("OFFSETS_INVALID", f"data_offsets end before they begin: {begin}, {end}", tensor=name)
            return None
        return begin, end

    def _entry(self, name: str, value: dict[str, Any], offsets: tuple[int, int], start: int) -> Entry | None:
        code = value.get("dtype")
        if not isinstance(code, str):
            self._add("HEADER_INVALID", "dtype is not a string", tensor=name)
            return None
        shape = value.get("shape")
        if not isinstance(shape, list) or len(shape) > _MAX_RANK or not all(is_count(n) for n in shape):
            self._add("HEADER_INVALID", f"shape is not a list of at most {_MAX_RANK} sizes", tensor=name)
            return None
        if code not in DTYPES:
            self._add("DTYPE_NOT_SUPPORTED", f"has elements of type {printable(code)}", tensor=name)
            return None
        dtype = DTYPES[code]
        # An array with a zero size holds nothing, yet NumPy refuses it where its other sizes are too large.
        if math.prod(n for n in shape if n) * element_size(dtype) > _MAX_COUNT:
            self._add("HEADER_INVALID", f"shape {shape} is larger than any file", tensor=name)
            return None
        needed = math.prod(shape) * element_size(dtype)
        begin, end = offsets
        if needed != end - begin:
            self._add("OFFSETS_INVALID", f"{code} {shape} takes {needed} bytes, data_offsets span {end - begin}", name)
            return None
        return Entry(name, dtype, tuple(shape), start + begin, needed)

    def _check_ranges(self, ranges: list[tuple[int, int, str]], available: int, *, complete: bool) -> None:
        # A tensor whose own range is malformed may be the one that fills a gap: do not report it twice.
        reached = 0
        for begin, end, name in sorted(ranges):
            if begin < reached:
                self._add("OFFSETS_INVALID", f"begins at byte {begin}, inside of the tensor before it", tensor=name)
            elif begin > reached and complete:
                self._add("OFFSETS_INVALID", f"leaves {begin - reached} bytes before it to no tensor", tensor=name)
            reached = max(reached, end)
        cut = [name for _, end, name in ranges if end > available]
        if cut:
            others = f" and {len(cut) - 1} more tensors lie" if len(cut) > 1 else " lies"
            self._add(
                "FILE_TRUNCATED", f"has {available} of {reached} bytes of data: {printable(cut[0])}{others} beyond"
            )
        if reached < available and complete:
            self._add("OFFSETS_INVALID", f"has {available - reached} bytes after its last tensor")
