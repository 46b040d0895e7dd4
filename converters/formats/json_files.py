"""JSON from strangers: bounded, without duplicate keys, and never an exception other than JsonFault."""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from converters.formats.regular_files import open_regular

LIMIT = 100_000_000
"""Bytes beyond which a metadata file is refused unread."""


class JsonFault(Exception):
    """Why a text is not the JSON object that was expected."""


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in UTF-8 bytes; raises JsonFault."""
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise JsonFault(f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise JsonFault("nested too deeply") from error
    except ValueError as error:
        raise JsonFault(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise JsonFault("not a JSON object")
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises JsonFault, and OSError where the file cannot be read."""
    file = open_regular(path)
    if file is None:
        raise JsonFault("not a regular file")
    with file:
        size = os.fstat(file.fileno()).st_size
        if size > LIMIT:
            raise JsonFault(f"{size} bytes, more than the {LIMIT} that are read")
        return parse_object(file.read(LIMIT))


def is_text(value: object) -> bool:
    """Whether a value is a string that can be written as UTF-8 (JSON escapes can spell ones that cannot)."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def is_count(value: object, limit: int = 2**63 - 1) -> bool:
    """Whether a value is an integer from 0 to a limit; JSON's true is not."""
    return type(value) is int and 0 <= value <= limit


def printable(value: object) -> str:
    """A stranger's value, shortened, in a form that any terminal and encoding takes."""
    text = value if isinstance(value, str) else ascii(value)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:200])


def dump(value: Mapping[str, Any]) -> bytes:
    """A JSON object on one line, in UTF-8."""
    return json.dumps(value).encode()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = collections.Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise JsonFault(f"the key {printable(twice)} appears twice")
    return value


def _no_constant(text: str) -> NoReturn:
    raise JsonFault(f"{text} is not JSON")
