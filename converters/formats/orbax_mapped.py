"""Chunks that an OCDBT database stores as they are, read as views of mapped files: no copy, no memory of ours.

Only zarr version 3 chunks in the little-endian `bytes` codec and nothing else; all others are TensorStore's to decode.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import tensorstore as ts

from converters.formats.base import AnyArray, Region
from converters.formats.regions import slices
from converters.formats.tensorstore_io import new_context

_PLAIN = ({"name": "bytes", "configuration": {"endian": "little"}}, {"name": "bytes"})
# What TensorStore names data files; a database may come from strangers, and may name any path.
_DATA_FILE = re.compile(r"(ocdbt\.process_\d+/)?d/[0-9a-f]{32}")
_AT_ONCE = 64

Place = tuple[str, int, int]
"""A file relative to the item, an offset and a length in it."""


class MappedChunks:
    """Finds chunks in data files. Thread-safe."""

    def __init__(self, items: Path, stores: Mapping[str, Any]) -> None:
        """Reads the database's tree and no value; an item that is no such database has no chunks here.

        Args:
            items: the item's directory.
            stores: the opened array of each stored name.
        """
        self._items = items
        plain = {name: store for name, store in stores.items() if _is_plain(store)}
        self._chunks = {name: tuple(store.chunk_layout.read_chunk.shape) for name, store in plain.items()}
        self._dtypes = {name: store.dtype.numpy_dtype for name, store in plain.items()}
        self._places = _places(items) if plain else {}

    def read(self, name: str, region: Region) -> AnyArray | None:
        """A region that lies in one chunk, as a read-only view; None where it is not to be had that way."""
        chunk = self._chunks.get(name)
        if chunk is None or any(start >= stop for start, stop in region):
            return None
        index = [start // size for (start, _), size in zip(region, chunk, strict=True)]
        if any((stop - 1) // size != i for (_, stop), size, i in zip(region, chunk, index, strict=True)):
            return None
        place = self._places.get("/".join((f"{name}/c", *map(str, index))))
        whole = self._view(place, self._dtypes[name], chunk) if place is not None else None
        if whole is None:
            return None
        box = tuple(
            (start - i * size, stop - i * size) for (start, stop), i, size in zip(region, index, chunk, strict=True)
        )
        part: tuple[Any, ...] = (*slices(box), ...)
        return whole[part]

    def _view(self, place: Place, dtype: np.dtype[Any], chunk: tuple[int, ...]) -> AnyArray | None:
        file, offset, length = place
        if length != math.prod(chunk) * dtype.itemsize or offset % dtype.itemsize or not _DATA_FILE.fullmatch(file):
            return None
        try:
            descriptor = os.open(self._items / file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            if os.fstat(descriptor).st_size < offset + length:
                return None
            # The view keeps its own mapping, which ends with it: so many files cannot all stay mapped.
            first = offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            mapped = mmap.mmap(descriptor, offset + length - first, prot=mmap.PROT_READ, offset=first)
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)
        return np.frombuffer(mapped, dtype, math.prod(chunk), offset - first).reshape(chunk)


def _is_plain(store: Any) -> bool:
    spec = store.spec().to_json()
    if spec.get("driver") != "zarr3" or spec.get("kvstore", {}).get("driver") != "ocdbt":
        return False
    metadata = spec.get("metadata", {})
    encoding = metadata.get("chunk_key_encoding", {})
    separator = encoding.get("configuration", {}).get("separator", "/")
    codecs = metadata.get("codecs", [])
    return (
        len(codecs) == 1
        and codecs[0] in _PLAIN
        and encoding.get("name") == "default"
        and separator == "/"
        and store.rank > 0
    )


def _places(items: Path) -> Mapping[str, Place]:
    """Where the database's current version keeps each value that lies in a data file, by its key."""
    context = new_context()
    found: dict[str, Place] = {}
    try:
        base = ts.KvStore.open({"driver": "file", "path": f"{items}/"}, context=context).result()
        root = ts.ocdbt.dump(base, context=context).result()["versions"][-1]["root"]
        todo = [(b"", root["location"])] if "location" in root else []
        while todo:
            batch, todo = todo[-_AT_ONCE:], todo[:-_AT_ONCE]
            futures = [(prefix, ts.ocdbt.dump(base, node, context=context)) for prefix, node in batch]
            for prefix, future in futures:
                for entry in future.result()["entries"]:
                    _take(entry, prefix, found, todo)
    except (ValueError, OSError, KeyError, IndexError):
        # A damaged tree is for whoever reads the arrays to report.
        return {}
    return found


def _take(entry: Mapping[str, Any], prefix: bytes, found: dict[str, Place], todo: list[tuple[bytes, str]]) -> None:
    key = prefix + entry["key"]
    if "location" in entry:
        todo.append((prefix + entry.get("subtree_common_prefix", b""), entry["location"]))
    elif "indirect_value" in entry:
        kind, base, file, offset, length = entry["indirect_value"].split(":")
        if kind == "value":
            found[key.decode("utf-8", "replace")] = (unquote(base) + unquote(file), int(offset), int(length))
