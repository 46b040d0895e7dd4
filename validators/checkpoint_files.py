"""What lies in a folder that is given as a Hugging Face checkpoint, by the names and sizes of files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from reporting.diagnostics import Diagnostic

_GGUF_MAGIC = b"GGUF"
_GGUF_SUGGESTION = "Give the folder of the Hugging Face checkpoint that the GGUF file was made from."
_FOLDER_SUGGESTION = "Give the folder that holds config.json, the weights and the tokenizer."


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder.

    Attributes:
        sizes: bytes of each regular file, links followed, by its name relative to the folder.
        closed: names of what this user cannot look at: folders such as the `lost+found` of a disk, links in a circle.
    """

    sizes: Mapping[str, int]
    closed: tuple[str, ...]


def look(folder: Path) -> Found:
    """The files of a checkpoint. Folders are looked into one level deep; a checkpoint has no deeper ones.

    Raises:
        OSError: the folder itself cannot be read.
    """
    found: dict[str, int] = {}
    closed: list[str] = []
    for entry in _entries(folder):
        try:
            within = _entries(entry.path) if entry.is_dir(follow_symlinks=False) else None
        except OSError:
            closed.append(entry.name)
            continue
        named = [(entry.name, entry)] if within is None else [(f"{entry.name}/{inner.name}", inner) for inner in within]
        for name, file in named:
            try:
                if file.is_file():
                    found[name] = file.stat().st_size
            except OSError:
                closed.append(name)
    return Found(found, tuple(closed))


def check_place(path: Path) -> list[Diagnostic]:
    """Whether a path is a folder at all, and none of its files is something else than its name says.

    Returns:
        SOURCE_NOT_FOUND, or SOURCE_NOT_RECOGNIZED for a file and for GGUF files by other names.
    """
    if not path.exists():
        return [Diagnostic("SOURCE_NOT_FOUND", f"{path} does not exist.", subject=str(path))]
    if not path.is_dir():
        what = "a GGUF file, as llama.cpp reads it" if _is_gguf(path) else "a file"
        reason = f"{path} is {what}, and no folder with config.json, weights and tokenizer."
        suggestion = _GGUF_SUGGESTION if _is_gguf(path) else _FOLDER_SUGGESTION
        return [Diagnostic("SOURCE_NOT_RECOGNIZED", reason, suggestion=suggestion, subject=str(path))]
    weights = (entry for entry in sorted(path.iterdir()) if entry.suffix in (".safetensors", ".bin"))
    return [
        Diagnostic(
            "SOURCE_NOT_RECOGNIZED",
            f"{entry.name} is a GGUF file, as llama.cpp reads it, whatever its name says.",
            suggestion=_GGUF_SUGGESTION,
            subject=entry.name,
        )
        for entry in weights
        if entry.is_file() and _is_gguf(entry)
    ]


def listed(names: Iterable[str], sizes_by_name: Mapping[str, int]) -> str:
    """Files with their sizes, for a reader."""
    return ", ".join(f"{name} ({sizes_by_name[name]} bytes)" for name in names)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(folder), key=lambda entry: entry.name)


def _is_gguf(path: Path) -> bool:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            return file.read(len(_GGUF_MAGIC)) == _GGUF_MAGIC
    except OSError:
        return False
