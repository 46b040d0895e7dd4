"""Plain data as YAML, for people and for kubectl; a conversion needs no YAML library beside."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence

Value = str | int | bool | Mapping[str, "Value"] | Sequence["Value"]
"""What can be written."""

# Words that no reader of YAML takes for anything but text: no numbers, dates, booleans, anchors or comments.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]")
_WORDS_WITH_A_MEANING = frozenset(("true", "false", "yes", "no", "on", "off", "y", "n", "null"))


def render(documents: Sequence[Mapping[str, Value]], remarks: Sequence[str] = ()) -> str:
    """Documents, with remarks as comments before the first one. Values are in ASCII, wherever they are piped through.

    Raises:
        ValueError: a value has a character that no UTF-8 can hold.
    """
    comments = "".join(f"# {remark}\n" for remark in remarks)
    return comments + "---\n".join("".join(f"{line}\n" for line in _mapping(document)) for document in documents)


def _lines(value: Value) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _mapping(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for element in value:
            first, *rest = _lines(element)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _scalar(value)


def _mapping(value: Mapping[str, Value]) -> Iterator[str]:
    if not value:
        yield "{}"
    for key, inner in value.items():
        name = _scalar(key)
        if isinstance(inner, str | int) or not inner:
            yield f"{name}: {_scalar(inner)}"
        else:
            yield f"{name}:"
            yield from (f"  {line}" for line in _lines(inner))


def _scalar(value: Value) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS_WITH_A_MEANING:
        return value
    if isinstance(value, str):
        value.encode()
    # JSON is YAML, but for characters beyond 16 bits, which JSON writes as two.
    return _BEYOND_ASCII.sub(_escaped, json.dumps(value, ensure_ascii=False))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
