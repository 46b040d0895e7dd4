"""Where fields stand in a textproto: Python's text_format keeps no positions, so the text is scanned once more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+|\#[^\n]*)"
    r"|(?P<newline>\n)"
    r"|(?P<string>\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')"
    r"|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<mark>[{}<>\[\]:,;])"
    r"|(?P<other>[^\s{}<>\[\]:,;\"'#]+)"
)


def field_lines(text: str) -> Mapping[str, int]:
    """Lines on which the fields of a textproto begin.

    Args:
        text: a textproto that text_format accepts.

    Returns:
        From a path such as "scope[0].rule[2]" to a line number, counted from 1. Every field has an index, its
        position among the fields of that name in its message; the message itself has the path "".
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str):
        self._tokens = list(_tokens(text))
        self._next = 0
        self._lines: dict[str, int] = {"": self._tokens[0][2] if self._tokens else 1}

    def scan(self) -> Mapping[str, int]:
        self._message("")
        return self._lines

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _message(self, path: str) -> None:
        """Fields up to the mark that closes the message, which is consumed."""
        counts: dict[str, int] = {}
        while self._next < len(self._tokens):
            kind, token, line = self._tokens[self._next]
            self._next += 1
            if token in ("}", ">"):
                return
            if kind == "name":
                self._field(path, token, line, counts)

    def _field(self, path: str, name: str, line: int, counts: dict[str, int]) -> None:
        if self._peek() == ":":
            self._next += 1
        if self._peek() != "[":
            self._value(_numbered(path, name, counts), line)
            return
        self._next += 1
        while self._peek() not in ("]", ""):
            if self._peek() == ",":
                self._next += 1
                continue
            self._value(_numbered(path, name, counts), self._tokens[self._next][2])
        self._next += 1

    def _value(self, path: str, line: int) -> None:
        """One scalar (adjacent strings are one) or message."""
        self._lines[path] = line
        kind, token, _ = self._tokens[self._next]
        self._next += 1
        if token in ("{", "<"):
            self._message(path + ".")
            return
        while kind == "string" and self._next < len(self._tokens) and self._tokens[self._next][0] == "string":
            self._next += 1


def _numbered(path: str, name: str, counts: dict[str, int]) -> str:
    index = counts.get(name, 0)
    counts[name] = index + 1
    return f"{path}{name}[{index}]"


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind == "newline":
            line += 1
        elif kind != "space":
            yield kind, match.group(), line
