"""Reads what a pair is judged by from the small files of a checkpoint: bounded, never from outside of its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from mappings import strict_json
from reporting.diagnostics import Diagnostic
from validators import plain_files, tokenizer
from validators.compatibility.facts import TokenizerFacts
from validators.plain_files import UnreadableError
from validators.speculative.sides import Vocabulary

GENERATION = "generation_config.json"
# Vocabularies in formats whose libraries are not needed to see that two files are the same.
_OPAQUE = ("tokenizer.model", "tekken.json", "tiktoken.model", "tokenizer.tiktoken", "vocab.txt")
_ADDED = "added tokens"
_LARGEST_CONFIG = 10_000_000
_LARGEST_VOCABULARY = 256 << 20
_SNAPSHOTS, _BLOBS = "snapshots", "blobs"


def check_links(folder: Path) -> list[Diagnostic]:
    """PATH_ESCAPES for each entry of a checkpoint that is a link to something outside of it.

    The local cache of the Hugging Face Hub keeps the files of a snapshot in `blobs` beside all snapshots; links to
    there stay within what was downloaded.
    """
    own = folder.resolve()
    allowed = [own, *([own.parent.parent / _BLOBS] if own.parent.name == _SNAPSHOTS else [])]
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.is_symlink() and not any(_target(entry).is_relative_to(place) for place in allowed):
            reason = f"{entry.name} is a link that leads out of the checkpoint's directory."
            suggestion = "Put the file itself in its place."
            found.append(Diagnostic("PATH_ESCAPES", reason, suggestion=suggestion, subject=entry.name))
    return found


def read_generation(folder: Path) -> tuple[dict[str, Any], list[Diagnostic]]:
    """generation_config.json, empty where there is none; CONFIG_INVALID if it is there and cannot be read."""
    try:
        content = strict_json.loads(plain_files.read(folder / GENERATION, _LARGEST_CONFIG))
    except UnreadableError as error:
        return {}, [] if error.missing else [_invalid(str(error))]
    except ValueError as error:
        return {}, [_invalid(str(error))]
    return (content, []) if isinstance(content, dict) else ({}, [_invalid("it is no JSON object")])


def read_vocabulary(folder: Path, facts: TokenizerFacts | None) -> tuple[Vocabulary, list[Diagnostic]]:
    """What the tokenizer's files say of token ids.

    Args:
        folder: of the checkpoint.
        facts: what was found in its tokenizer; None if there is none, or it is damaged.

    Returns:
        It, and TOKENIZER_INVALID for a file in a format that is compared by its bytes and cannot be read.
    """
    tokens = tokenizer.token_map(folder) if facts is not None and facts.token_map_digest else {}
    digests: dict[str, str] = {}
    found = []
    for name in () if tokens else _OPAQUE:
        try:
            digests[name] = hashlib.sha256(plain_files.read(folder / name, _LARGEST_VOCABULARY)).hexdigest()
        except UnreadableError as error:
            if not error.missing:
                found.append(Diagnostic("TOKENIZER_INVALID", f"{name} cannot be used: {error}.", subject=name))
    added = tokenizer.added_tokens(folder) if digests else {}
    if added:
        digests[_ADDED] = tokenizer.digest(added)
    special = facts.special_ids if facts is not None else {}
    return Vocabulary(tokens, digests, special, facts.chat_template if facts is not None else None), found


def _target(entry: Path) -> Path:
    try:
        return entry.resolve()
    except (OSError, RuntimeError):
        return Path("/")


def _invalid(reason: str) -> Diagnostic:
    return Diagnostic("CONFIG_INVALID", f"{GENERATION} cannot be used: {reason}.", subject=GENERATION)
