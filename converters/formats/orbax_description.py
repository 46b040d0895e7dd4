"""How the arrays of an Orbax item are stored: their grid, codecs and database, from headers alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.formats.orbax_arrays import check_files, open_arrays
from converters.formats.orbax_directory import DATABASE_FILE
from converters.formats.orbax_metadata import TREE_FILE, array_names, read_tree
from converters.formats.tensorstore_io import new_context

NONE = "none"
_SHARDING = "sharding_indexed"
# Codecs that say in which order bytes lie, not how they are compressed.
_ORDER = frozenset(("bytes", "transpose", "endian", "crc32c"))


@dataclasses.dataclass(frozen=True)
class Stored:
    """How one array is stored.

    Attributes:
        chunk: box sizes of the objects that are written.
        inner: box sizes of what is decoded at a time; smaller than `chunk` where chunks are sharded.
        compression: `none`, or the codec with its level, as `zstd:1`.
    """

    chunk: tuple[int, ...]
    inner: tuple[int, ...]
    compression: str


@dataclasses.dataclass(frozen=True)
class Description:
    """How an item is stored.

    Attributes:
        arrays: by the names by which sources know them.
        zarr: version of the array format.
        ocdbt: whether all arrays are in one database.
        bytes: size of all files of the item.
        files: their number.
    """

    arrays: Mapping[str, Stored]
    zarr: int
    ocdbt: bool
    bytes: int
    files: int

    @property
    def compression(self) -> tuple[str, ...]:
        """The compressions that occur, each once, sorted."""
        return tuple(sorted({stored.compression for stored in self.arrays.values()}))


def describe(items: Path) -> Description:
    """Reads the headers of all arrays of an item.

    Raises:
        RecastError: as `orbax_metadata.read_tree` and `orbax_arrays.open_arrays`.
    """
    tree = read_tree(items / TREE_FILE)
    check_files(items)
    stores = open_arrays(items, tree, new_context())
    arrays = {name: _stored(stores[leaf.name]) for name, leaf in array_names(tree.leaves)}
    sizes = [os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(items) for name in names]
    ocdbt = tree.use_ocdbt if tree.use_ocdbt is not None else (items / DATABASE_FILE).exists()
    return Description(arrays, 3 if tree.use_zarr3 else 2, ocdbt, sum(sizes), len(sizes))


def _stored(store: Any) -> Stored:
    layout = store.chunk_layout
    metadata = store.spec().to_json().get("metadata", {})
    return Stored(
        tuple(layout.write_chunk.shape or ()),
        tuple(layout.read_chunk.shape or ()),
        _zarr3(metadata["codecs"]) if "codecs" in metadata else _zarr2(metadata.get("compressor")),
    )


def _zarr3(codecs: Sequence[Any]) -> str:
    for codec in codecs:
        name, said = (codec, {}) if isinstance(codec, str) else (codec["name"], codec.get("configuration", {}))
        if name == _SHARDING:
            return _zarr3(said.get("codecs", ()))
        if name not in _ORDER:
            return _shown(name, said.get("level", said.get("clevel")), said.get("cname"))
    return NONE


def _zarr2(compressor: Mapping[str, Any] | None) -> str:
    if compressor is None:
        return NONE
    return _shown(compressor["id"], compressor.get("level", compressor.get("clevel")), compressor.get("cname"))


def _shown(name: str, level: object, kind: object) -> str:
    return ":".join(str(part) for part in (name, kind, level) if part is not None)
