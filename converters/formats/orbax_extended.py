"""What Orbax keeps of arrays beside their values: that some are keys of random numbers, and of which kind.

Orbax writes it into `array_metadatas/process_N`. Who restores into typed keys gets them again from there; who asks for
nothing gets the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from converters.formats.base import Declared
from converters.formats.durable import sync_directory, write_file
from converters.formats.json_files import JsonFault, dump, is_text, read_object
from converters.formats.storage_errors import reading, writing
from reporting.diagnostics import RecastError

FOLDER = "array_metadatas"
_FILES = "process_*"
_FIRST = "process_0"

Extended = Mapping[str, Mapping[str, Any]]
"""By the stored name of an array: what is kept of it, as Orbax spells it."""


def read(items: Path) -> Extended:
    """What an item keeps of its arrays, of those of which it keeps anything.

    Raises:
        RecastError: ORBAX_METADATA_INVALID, INPUT_OUTPUT.
    """
    found: dict[str, Mapping[str, Any]] = {}
    with reading(items):
        paths = sorted((items / FOLDER).glob(_FILES))
    for path in paths:
        try:
            with reading(path):
                entries = read_object(path).get("array_metadatas")
            for entry in _list(entries):
                inner = _object(entry.get("array_metadata", entry))
                name, kept = inner.get("param_name"), inner.get("ext_metadata")
                if not is_text(name):
                    raise JsonFault("an entry has no param_name")
                if kept:
                    found[str(name)] = _object(kept)
        except JsonFault as fault:
            where = f"{FOLDER}/{path.name}"
            raise RecastError.of("ORBAX_METADATA_INVALID", f"{where}: {fault}", subject=where) from fault
    return found


def write(items: Path, kept: Iterable[tuple[Declared, Mapping[str, Any]]]) -> None:
    """Writes it for arrays under their stored names; nothing if there are none.

    Raises:
        RecastError: DISK_FULL, DESTINATION_NOT_WRITABLE, INPUT_OUTPUT.
    """
    entries = [
        {
            "array_metadata": {
                "param_name": array.info.name,
                "write_shape": list(array.chunk),
                "chunk_shape": list(array.chunk),
                "ext_metadata": dict(extended),
            }
        }
        for array, extended in kept
    ]
    if not entries:
        return
    folder = items / FOLDER
    with writing(folder):
        folder.mkdir(exist_ok=True)
    write_file(folder / _FIRST, dump({"array_metadatas": entries}))
    sync_directory(folder)


def _list(value: object) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise JsonFault("array_metadatas is not a list")
    return [_object(entry) for entry in value]


def _object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise JsonFault("an entry is not an object")
    return value
