"""Which files make up a safetensors checkpoint, by its index or by their names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from converters.formats.json_files import JsonFault, is_text, printable, read_object
from converters.formats.storage_errors import reading
from reporting.diagnostics import Diagnostic, RecastError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_FILE = "adapter_model.safetensors"
"""What PEFT saves beside a model: changes to its weights, which are no weights themselves."""
_SUFFIX = ".safetensors"
_NAMED_AT_MOST = 10
_NUMBERED = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors$", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class FileSet:
    """The files of a checkpoint, before any was opened.

    Attributes:
        directory: where they are.
        files: their names, sorted.
        index: the file of each tensor where there is an index, else None.
        unused: names of safetensors files in the directory that are no part of it.
    """

    directory: Path
    files: tuple[str, ...]
    index: Mapping[str, str] | None
    unused: tuple[str, ...] = ()


def locate(path: Path) -> tuple[FileSet, list[Diagnostic]]:
    """The files of the checkpoint at a directory, an index or a single file.

    Returns:
        The files to open, and what is wrong already (index content, missing shards).

    Raises:
        RecastError: SOURCE_NOT_FOUND, SOURCE_NOT_RECOGNIZED, INDEX_INVALID; nothing could be opened.
    """
    if path.is_file():
        if path.name.endswith(".index.json"):
            return _from_index(path.parent, path.name)
        if not path.name.endswith(_SUFFIX):
            raise _no_weights(path)
        return FileSet(path.parent, (path.name,), None), []
    if not path.exists():
        raise RecastError.of("SOURCE_NOT_FOUND", f"{path} does not exist", subject=str(path))
    present = _safetensors_in(path)
    # A link to a blob that is gone counts: the error must name the index, not say that there is none.
    if (path / INDEX_FILE).exists() or (path / INDEX_FILE).is_symlink():
        files, found = _from_index(path, INDEX_FILE)
        if SINGLE_FILE in present and SINGLE_FILE not in files.files:
            found.append(_ambiguous())
        return files, found
    if SINGLE_FILE in present:
        return FileSet(path, (SINGLE_FILE,), None, _without(present, [SINGLE_FILE])), []
    if not present:
        reason = f"{path} holds no safetensors files and no pytorch_model.bin"
        raise RecastError.of("SOURCE_NOT_RECOGNIZED", reason, subject=str(path))
    model = _without(present, [ADAPTER_FILE]) or present
    return FileSet(path, model, None, _without(present, list(model))), _missing_numbers(model)


def _no_weights(path: Path) -> RecastError:
    return RecastError.of(
        "SOURCE_NOT_RECOGNIZED",
        f"{path} is a file, and none that ends in {_SUFFIX} or .index.json",
        suggestion="Give the directory of the checkpoint.",
        subject=str(path),
    )


def _safetensors_in(directory: Path) -> tuple[str, ...]:
    with reading(directory):
        names = (entry.name for entry in directory.iterdir() if not entry.is_dir())
        return tuple(sorted(name for name in names if name.endswith(_SUFFIX)))


def _without(names: tuple[str, ...], used: list[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names) - set(used)))


def _ambiguous() -> Diagnostic:
    return Diagnostic(
        "INDEX_INVALID",
        f"{SINGLE_FILE} stands beside {INDEX_FILE}, which does not name it: these are two checkpoints in one directory",
        suggestion=f"Remove the one that is not meant, or give the path of {SINGLE_FILE} or of {INDEX_FILE} itself.",
        subject=INDEX_FILE,
    )


def _from_index(directory: Path, name: str) -> tuple[FileSet, list[Diagnostic]]:
    weight_map = _weight_map(directory / name, name)
    found: list[Diagnostic] = []
    index: dict[str, str] = {}
    escaping: set[str] = set()
    below: set[str] = set()
    cure = _from_the_source(name)
    for tensor, file in weight_map.items():
        if not is_text(tensor) or not is_text(file):
            reason = f"{name}: {printable(tensor)} is mapped to {printable(file)}, which is no file name"
            found.append(Diagnostic("INDEX_INVALID", reason, suggestion=cure, subject=printable(tensor)))
        elif _is_below(str(file)):
            below.add(str(file))
        elif not _is_plain_name(str(file)):
            escaping.add(str(file))
        else:
            index[tensor] = str(file)
    for file in sorted(below):
        reason = f"{name} names the file {printable(file)}, and subfolders are not read"
        move = f"Move all files beside {name}, and give their names in it without folders."
        found.append(Diagnostic("INDEX_INVALID", reason, suggestion=move, subject=printable(file)))
    for file in sorted(escaping):
        reason = f"{name} names the file {printable(file)}, which is not a name inside of its directory"
        found.append(Diagnostic("PATH_ESCAPES", reason, subject=printable(file)))
    files = tuple(sorted(set(index.values())))
    for file in files:
        if not (directory / file).exists():
            tensors = sum(1 for place in index.values() if place == file)
            reason = f"{name} places {tensors} tensors in {printable(file)}, which is not there"
            found.append(Diagnostic("MISSING_SHARD", reason, subject=printable(file)))
    present = tuple(file for file in files if (directory / file).exists())
    return FileSet(directory, present, index, _without(_safetensors_in(directory), list(files))), found


def _weight_map(path: Path, name: str) -> dict[str, object]:
    try:
        with reading(path):
            fields = read_object(path)
    except JsonFault as fault:
        reason = f"{name}: {fault}"
        raise RecastError.of("INDEX_INVALID", reason, suggestion=_from_the_source(name), subject=name) from fault
    weight_map = fields.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        reason = f"{name} has no weight_map"
        raise RecastError.of("INDEX_INVALID", reason, suggestion=_from_the_source(name), subject=name)
    return weight_map


def _from_the_source(name: str) -> str:
    return f"Take {name} from the original source again."


def _is_below(name: str) -> bool:
    """Whether a name is that of a file in a folder of the directory."""
    parts = name.split("/")
    return len(parts) > 1 and all(part != ".." and _is_plain_name(part) for part in parts)


def _is_plain_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not any(c in name for c in "/\\\0")


def _missing_numbers(names: tuple[str, ...]) -> list[Diagnostic]:
    found = []
    present = frozenset(names)
    groups = {(m["stem"], m["count"]) for m in map(_NUMBERED.match, names) if m}
    for stem, count in sorted(groups):
        expected = (f"{stem}-{number:05d}-of-{count}{_SUFFIX}" for number in range(1, int(count) + 1))
        missing = [name for name in expected if name not in present]
        if missing:
            named = ", ".join(missing[:_NAMED_AT_MOST]) + (", ..." if len(missing) > _NAMED_AT_MOST else "")
            reason = f"{len(missing)} of the files numbered 'of {count}' are not there: {named}"
            found.append(Diagnostic("MISSING_SHARD", reason, subject=missing[0]))
    return found
