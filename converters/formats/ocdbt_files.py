"""The files of an OCDBT database: which of them its manifest reaches, and the removal of what it does not.

A database is a tree of nodes that grows by copies: each write makes new nodes and a new version of the manifest, which
keeps all older versions. A writer that is killed leaves files that no version knows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import tensorstore as ts

from converters.formats.durable import sync_directory, sync_file, sync_files
from converters.formats.storage_errors import writing
from converters.formats.tensorstore_io import database_config, new_context, unreadable, unwritable
from reporting.diagnostics import RecastError

MANIFEST = "manifest.ocdbt"
DATA = "d"
_DRAFT = "manifest.part"
_AT_ONCE = 256


def reachable_files(items: Path, *, history: bool = True) -> frozenset[str]:
    """The manifest and all files that it reaches, relative to `items`; every node is read and checked, and no value.

    TensorStore keeps about half a kilobyte of each entry that it dumps until the process ends: little for a tree, much
    for the history of a database that was written in many steps and never compacted.

    Args:
        items: the directory with the manifest.
        history: in any of its versions, else in the current one only.

    Raises:
        RecastError: ORBAX_ARRAY_UNREADABLE where a node cannot be read.
    """
    return frozenset(_reached(items, history=history))


def lost_files(items: Path) -> list[str]:
    """The files that the current version reaches and that are gone, or end before what it finds in them.

    Raises:
        RecastError: ORBAX_ARRAY_UNREADABLE where a node cannot be read.
    """
    return sorted(name for name, end in _reached(items, history=False).items() if _size(items / name) < end)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _reached(items: Path, *, history: bool) -> dict[str, int]:
    """Each file, and where the last byte ends that is found in it."""
    reached = {MANIFEST: 0}
    context = new_context()
    try:
        base = ts.KvStore.open({"driver": "file", "path": f"{items}/"}, context=context).result()
        manifest = ts.ocdbt.dump(base, context=context).result()
        roots = [*manifest["versions"], *manifest["version_tree_nodes"]] if history else manifest["versions"][-1:]
        todo: list[str] = []
        seen: set[str] = set()
        _note(roots, reached, seen, todo)
        while todo:
            batch, todo = todo[-_AT_ONCE:], todo[:-_AT_ONCE]
            for future in [ts.ocdbt.dump(base, node, context=context) for node in batch]:
                _note(future.result()["entries"], reached, seen, todo)
    except (ValueError, OSError) as error:
        raise RecastError([unreadable(MANIFEST, error)]) from error
    return reached


def compact(items: Path) -> None:
    """Replaces the manifest by one that knows the current version only, and removes every data file it does not reach.

    Values stay where they are; what is removed are older versions and what a killed writer left. A reader sees the old
    manifest or the new one, both with the same content. Everything that the database holds must be durable.

    Raises:
        RecastError: DISK_FULL, DESTINATION_NOT_WRITABLE, INPUT_OUTPUT; as `reachable_files`.
    """
    draft = items / _DRAFT
    data = items / DATA
    with writing(draft):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        before = set(os.listdir(data))
    _copy(items, draft)
    with writing(data):
        new = set(os.listdir(data)) - before
    sync_files(data / name for name in new)
    sync_directory(data)
    sync_file(draft / MANIFEST)
    with writing(items):
        os.replace(draft / MANIFEST, items / MANIFEST)
        draft.rmdir()
    sync_directory(items)
    reached = reachable_files(items)
    with writing(data):
        for name in os.listdir(data):
            if f"{DATA}/{name}" not in reached:
                (data / name).unlink()
    sync_directory(data)


def _copy(items: Path, draft: Path) -> None:
    """A second manifest over the same data files, with a tree of its own."""
    root = {"driver": "file", "path": f"{items}/"}
    spec: dict[str, Any] = {"driver": "ocdbt", "base": root}
    copy = {
        **spec,
        "manifest": {"driver": "file", "path": f"{draft}/"},
        "config": database_config(),
        "assume_config": True,
    }
    try:
        context = new_context()
        old, new = (ts.KvStore.open(wanted, context=context).result() for wanted in (spec, copy))
        transaction = ts.Transaction(atomic=True)
        old.experimental_copy_range_to(new.with_transaction(transaction)).result()
        transaction.commit_sync()
    except (ValueError, OSError) as error:
        raise unwritable(str(items), error) from error


def _note(entries: list[Mapping[str, Any]], reached: dict[str, int], seen: set[str], todo: list[str]) -> None:
    """Takes the files that entries refer to into `reached`, and nodes not seen before into `todo`."""
    for place in _places(entries):
        kind, _, rest = place.partition(":")
        file, offset, length = rest.rsplit(":", 2)
        base, _, name = file.partition(":")
        path = unquote(base) + unquote(name)
        reached[path] = max(reached.get(path, 0), int(offset) + int(length))
        if kind != "value" and place not in seen:
            seen.add(place)
            todo.append(place)


def _places(entries: list[Mapping[str, Any]]) -> Iterator[str]:
    for entry in entries:
        for found in (entry.get("location"), entry.get("indirect_value"), entry.get("root", {}).get("location")):
            if found is not None:
                yield found
