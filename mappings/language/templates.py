"""Name templates: `layers.{l}.experts.{(b j)+1}.{kind}.{$text}` to parts.

A hole prints the mixed-radix value of its digits, or a label's word; `$` prints an option or symbol.
"""

from __future__ import annotations

import dataclasses
import functools
import re

from mappings.language import expressions
from mappings.language.errors import LanguageSyntaxError
from mappings.language.expressions import Expression

_HOLE = re.compile(r"\{([^{}]*)\}")
_DIGITS = re.compile(r"(?:\(\s*((?:[A-Za-z_]\w*\s*)+)\)|([A-Za-z_]\w*))\s*(?:\+(.*))?", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Symbol:
    """The value of an option or symbol."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Hole:
    """The value of digits, or a label's word.

    Attributes:
        names: atoms, or one label; major first.
        offset: what is added, None for nothing.
        text: the hole as written, without braces.
    """

    names: tuple[str, ...]
    offset: Expression | None
    text: str


Part = str | Symbol | Hole


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Part, ...]:
    """The parts of a template; plain texts are strings.

    Raises:
        LanguageSyntaxError: a brace is unbalanced, or a hole cannot be read.
    """
    parts: list[Part] = []
    position = 0
    for match in _HOLE.finditer(text):
        parts += _plain(text[position : match.start()], text)
        parts.append(_hole(match.group(1).strip(), text))
        position = match.end()
    return (*parts, *_plain(text[position:], text))


def _plain(piece: str, text: str) -> list[Part]:
    if "{" in piece or "}" in piece:
        raise LanguageSyntaxError(f"unbalanced braces in '{text}'")
    return [piece] if piece else []


def _hole(content: str, text: str) -> Part:
    if re.fullmatch(r"\$[A-Za-z_]\w*", content):
        return Symbol(content[1:])
    match = _DIGITS.fullmatch(content)
    if match is None:
        raise LanguageSyntaxError(f"cannot read placeholder '{{{content}}}' in name '{text}'")
    group, single, offset = match.groups()
    names = tuple((group or single).split())
    return Hole(names, expressions.parse(offset) if offset is not None else None, content)
