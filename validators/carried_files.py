"""The files that travel with the weights: configs, tokenizer, chat templates, licences. Never code, never pickles."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import os
from pathlib import Path

from reporting.diagnostics import Diagnostic, raise_all
from validators import plain_files
from validators.plain_files import UnreadableError

_MAX_BYTES = 256 << 20
# What stands for a file in Git where the file itself was not fetched: a few lines.
_LFS_POINTER = b"version https://git-lfs"
_LFS_MAX_BYTES = 1 << 10
# Patterns match whole relative names. There is none for code or pickles: such files run when they are loaded.
PATTERNS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "tokenizer.model.v[0-9]",
    "tiktoken.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "README.md",
    *(
        f"{spelled}{suffix}"
        for name in ("LICENSE", "LICENCE", "NOTICE", "THIRD_PARTY_NOTICES", "USE_POLICY", "USAGE_POLICY")
        for spelled in (name, name.capitalize(), name.lower())
        for suffix in ("", ".md", ".txt")
    ),
)
_FOLDERS = frozenset(pattern.split("/")[0] for pattern in PATTERNS if "/" in pattern)


@dataclasses.dataclass(frozen=True, slots=True)
class CarriedFile:
    """A file beside the weights.

    Attributes:
        name: relative to the checkpoint, with `/` between folders.
        bytes: its size.
    """

    name: str
    bytes: int


def carried_files(source: Path) -> tuple[CarriedFile, ...]:
    """The files of a checkpoint that travel with its weights, by name.

    A link is followed if it leads to a regular file of the checkpoint, or of the Hugging Face cache that holds it.

    Raises:
        RecastError: CONFIG_INVALID for each that is a link to nothing, no regular file, too large, or no JSON though
            its name says so; and for each, or a folder of them, that this user may not read.
    """
    found, wrong = [], []
    for name in names(source):
        if name in _FOLDERS:
            wrong.append(_invalid(name, "this user may not read the folder", "Make it readable, or remove it."))
            continue
        try:
            found.append(CarriedFile(name, plain_files.size_of(source / name, _MAX_BYTES)))
        except UnreadableError as error:
            wrong.append(_invalid(name, error))
            continue
        if not _stays(source, name):
            cure = f"Put the file itself there instead of the link{_or_remove(name)}."
            wrong.append(_invalid(name, "it is a link that leads out of the checkpoint", cure))
        elif not os.access(source / name, os.R_OK):
            cure = f"Make it readable{_or_remove(name)}."
            wrong.append(_invalid(name, "this user may not read it", cure))
        elif found[-1].bytes <= _LFS_MAX_BYTES and _is_pointer(source / name):
            cure = f"Run `git lfs pull`{_or_remove(name)}."
            wrong.append(_invalid(name, "it is a Git LFS pointer, not the file itself", cure))
        elif name.endswith(".json"):
            wrong.extend(_check_json(source, name))
    raise_all(wrong)
    return tuple(found)


def copy_carried(source: Path, target: Path) -> list[tuple[str, int]]:
    """Copies the files that travel with the weights. JSON is checked first: with a fault, nothing is copied.

    Args:
        source: directory of the checkpoint.
        target: directory to copy into; it is made if it does not exist.

    Returns:
        Name and size of each file, by name.

    Raises:
        RecastError: as `carried_files`.
    """
    files = carried_files(source)
    copied = []
    for file in files:
        try:
            content = plain_files.read(source / file.name, _MAX_BYTES)
        except UnreadableError as error:
            raise_all([_invalid(file.name, error)])
        path = target / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        copied.append((file.name, len(content)))
    return copied


def _stays(source: Path, name: str) -> bool:
    """Whether a file lies in the checkpoint, or in the store of the Hugging Face cache that its snapshots link to."""
    target = (source / name).resolve()
    home = source.resolve()
    return target.is_relative_to(home) or target.parent == home.parent.parent / "blobs"


def names(source: Path) -> list[str]:
    """The names of the files of a checkpoint that travel with its weights, whatever they are, sorted.

    A folder of such files that cannot be read stands for them.
    """
    found = [entry.name for entry in source.iterdir()]
    closed = []
    for folder in _FOLDERS & set(found):
        # A linked folder could lead anywhere; those of the Hugging Face cache are real.
        if (source / folder).is_dir() and not (source / folder).is_symlink():
            try:
                found += [f"{folder}/{entry.name}" for entry in (source / folder).iterdir()]
            except OSError:
                closed.append(folder)
    return sorted([*closed, *(name for name in found if any(_matches(name, pattern) for pattern in PATTERNS))])


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def _or_remove(name: str) -> str:
    """What may be done instead of mending a file, where the checkpoint is one without it."""
    return "" if name == "config.json" else ", or remove it"


def _is_pointer(path: Path) -> bool:
    try:
        return plain_files.read(path, _LFS_MAX_BYTES).startswith(_LFS_POINTER)
    except UnreadableError:
        return False


def _check_json(source: Path, name: str) -> list[Diagnostic]:
    try:
        json.loads(plain_files.read(source / name, _MAX_BYTES).decode("utf-8"))
    except UnreadableError as error:
        return [_invalid(name, error)]
    except RecursionError:
        return [_invalid(name, "it is nested too deeply")]
    except ValueError as error:
        return [_invalid(name, f"it is no JSON ({error})")]
    return []


def _invalid(name: str, reason: object, suggestion: str = "") -> Diagnostic:
    return Diagnostic(
        "CONFIG_INVALID",
        f"{name} cannot be carried: {reason}.",
        suggestion=suggestion or f"Take {name} from the original source again{_or_remove(name)}.",
        subject=name,
    )
