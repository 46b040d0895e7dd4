"""Writes the statements of a BUILD file as buildifier formats them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

# Buildifier's order of attributes: these by number, all others by name between them.
_PRIORITY = {"name": -99, "size": -95, "srcs": -90, "deps": 4}


@dataclasses.dataclass(frozen=True)
class Glob:
    """The package's files that match patterns, and other labels."""

    patterns: tuple[str, ...]
    labels: tuple[str, ...] = ()


Value = str | Sequence[str] | Glob


def call(function: str, *arguments: Value, **attributes: Value) -> str:
    """A statement that calls a rule, a macro or a function. Empty attributes are left out, lists are sorted."""
    parts = [_shown(value) for value in arguments]
    for name in sorted(attributes, key=lambda name: (_PRIORITY.get(name, 0), name)):
        if attributes[name]:
            parts.append(f"{name} = {_shown(attributes[name])}")
    if len(parts) == 1:
        return f"{function}({parts[0]})"
    lines = "".join(f"    {line}\n" for part in parts for line in f"{part},".splitlines())
    return f"{function}(\n{lines})"


def loads(symbols: Mapping[str, Iterable[str]]) -> str:
    """The load statements of the symbols of each file."""
    files = sorted(symbols, key=lambda file: (not file.startswith("@"), file))
    return "\n".join(
        f"load({', '.join(_quoted(text) for text in (file, *sorted(set(symbols[file]))))})" for file in files
    )


def _shown(value: Value) -> str:
    if isinstance(value, Glob):
        parts = [f"glob({_shown(value.patterns)})"] if value.patterns else []
        return " + ".join([*parts, *([_shown(value.labels)] if value.labels else [])])
    if isinstance(value, str):
        return _quoted(value)
    items = [_quoted(item) for item in sorted(set(value), key=_sort_key)]
    if len(items) == 1:
        return f"[{items[0]}]"
    return "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _sort_key(item: str) -> tuple[int, list[str]]:
    """Files and the package's own targets first, then the repository's, then other repositories'."""
    phase = {":": 1, "/": 2, "@": 3}.get(item[:1], 0)
    return phase, item.replace(":", ".").split(".")


def _quoted(text: str) -> str:
    return f'"{text}"'
