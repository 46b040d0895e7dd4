"""Opens the arrays of an Orbax item through TensorStore."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import tensorstore as ts

from converters.formats.orbax_directory import DATABASE_FILE, PROCESS_PREFIX
from converters.formats.orbax_metadata import Tree
from converters.formats.storage_errors import reading
from converters.formats.tensorstore_io import array_spec, unreadable
from reporting.diagnostics import Diagnostic, RecastError, raise_all

_OPEN_AT_ONCE = 256
_HARMLESS_CHUNK = 64 << 20


def check_files(items: Path) -> None:
    """Refuses pipes and devices among the files of an item: TensorStore would wait for ever for what they hold.

    Raises:
        RecastError: ORBAX_ARRAY_UNREADABLE for each of them.
    """
    raise_all(list(_no_files(items)))


def open_arrays(items: Path, tree: Tree, context: Any) -> dict[str, Any]:
    """The TensorStore of each array of a tree, by its stored name.

    Raises:
        RecastError: CHECKPOINT_UNFINISHED where the database was never merged; ORBAX_ARRAY_UNREADABLE for each array
            that cannot be opened.
    """
    ocdbt = _uses_ocdbt(items, tree)
    names = iter([leaf.name for leaf in tree.leaves.values() if leaf.is_array])
    stores: dict[str, Any] = {}
    found = []
    while batch := list(islice(names, _OPEN_AT_ONCE)):
        pending = [ts.open(_spec(items, name, tree, ocdbt), context=context, open=True, read=True) for name in batch]
        for name, future in zip(batch, pending, strict=True):
            try:
                stores[name] = future.result()
            except (ValueError, OSError) as error:
                found.append(unreadable(name, error))
                continue
            if _has_oversized_chunks(stores[name]):
                reason = f"{name}: its chunks are larger than the array of shape {tuple(stores[name].shape)}"
                found.append(Diagnostic("ORBAX_ARRAY_UNREADABLE", reason, subject=name))
    raise_all(found)
    return stores


def _no_files(items: Path) -> Iterator[Diagnostic]:
    for directory, _, names in os.walk(items):
        for path in (Path(directory, name) for name in names):
            if path.exists() and not path.is_file():
                label = str(path.relative_to(items))
                yield Diagnostic("ORBAX_ARRAY_UNREADABLE", f"{label} is not a regular file", subject=label)


def _spec(items: Path, name: str, tree: Tree, ocdbt: bool) -> dict[str, Any]:
    spec = array_spec(items, name, ocdbt=ocdbt, zarr3=tree.use_zarr3)
    # A chunk that is not there would otherwise be read as zeros.
    spec["fill_missing_data_reads"] = not tree.stores_zeros
    return spec


def _has_oversized_chunks(store: Any) -> bool:
    """Whether reading one element would take memory that the array's own size does not explain.

    TensorStore ends the process where it cannot allocate a chunk, so such an array must never be read.
    """
    layout = store.chunk_layout
    for chunk in (layout.read_chunk.shape or (), layout.write_chunk.shape or ()):
        beyond = any(part > size for part, size in zip(chunk, store.shape, strict=True))
        if beyond and math.prod(chunk) * store.dtype.numpy_dtype.itemsize > _HARMLESS_CHUNK:
            return True
    return False


def _uses_ocdbt(items: Path, tree: Tree) -> bool:
    present = (items / DATABASE_FILE).exists()
    if tree.use_ocdbt is None:
        return present
    if not tree.use_ocdbt or present:
        return tree.use_ocdbt
    with reading(items):
        unmerged = any(entry.name.startswith(PROCESS_PREFIX) for entry in items.iterdir())
    if unmerged:
        reason = f"{items}: the databases of its writers were never merged into {DATABASE_FILE}"
        raise RecastError.of("CHECKPOINT_UNFINISHED", reason, subject=str(items))
    reason = f"{items} has no {DATABASE_FILE}, which holds all of its arrays"
    raise RecastError.of("ORBAX_ARRAY_UNREADABLE", reason, subject=DATABASE_FILE)
