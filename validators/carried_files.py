"""The files that travel with the weights: configs, tokenizer, chat templates, licences. Never code, never pickles."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from pathlib import Path

from reporting.diagnostics import Diagnostic, raise_all
from validators import plain_files
from validators.plain_files import UnreadableError

_MAX_BYTES = 256 << 20
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
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
    *(f"{name}{suffix}" for name in ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY") for suffix in ("", ".md", ".txt")),
)


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

    A link is followed if it leads to a regular file, as those of the Hugging Face cache do.

    Raises:
        RecastError: CONFIG_INVALID for each that is a link to nothing, no regular file, too large, or no JSON though
            its name says so.
    """
    found, wrong = [], []
    for name in _names(source):
        try:
            found.append(CarriedFile(name, plain_files.size_of(source / name, _MAX_BYTES)))
        except UnreadableError as error:
            wrong.append(_invalid(name, error))
            continue
        if not _stays(source, name):
            wrong.append(_invalid(name, "it is a link that leads out of the checkpoint"))
            continue
        if name.endswith(".json"):
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


def is_carried(name: str) -> bool:
    """Whether a file of this name travels with the weights."""
    return any(_matches(name, pattern) for pattern in PATTERNS)


def _stays(source: Path, name: str) -> bool:
    """Whether a file lies in the checkpoint, or in the store of the Hugging Face cache that its snapshots link to."""
    target = (source / name).resolve()
    home = source.resolve()
    return target.is_relative_to(home) or target.parent == home.parent.parent / "blobs"


def _names(source: Path) -> list[str]:
    names = [entry.name for entry in source.iterdir()]
    for folder in {pattern.split("/")[0] for pattern in PATTERNS if "/" in pattern} & set(names):
        # A linked folder could lead anywhere; those of the Hugging Face cache are real.
        if (source / folder).is_dir() and not (source / folder).is_symlink():
            names += [f"{folder}/{entry.name}" for entry in (source / folder).iterdir()]
    return sorted(name for name in names if any(_matches(name, pattern) for pattern in PATTERNS))


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


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


def _invalid(name: str, reason: object) -> Diagnostic:
    return Diagnostic(
        "CONFIG_INVALID",
        f"{name} cannot be carried: {reason}.",
        suggestion=f"Take {name} from the original source again, or remove it.",
        subject=name,
    )
