"""Small changes of mapping messages, and what finds the places to change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

Change = Callable[[Any], None]
"""Changes a copy of a message in place."""
Get = Callable[[Any], Any]
"""Finds a part of the message that is being changed."""
Found = tuple[str, str, Change]
"""Kind of the edit, what it concerns, and the change."""


def whole(message: Any) -> Any:
    """The message itself."""
    return message


def element(get: Get, field: str, index: int) -> Get:
    """One element of a repeated field."""
    return lambda message: getattr(get(message), field)[index]


def assign(get: Get, field: str, value: str | int) -> Change:
    """Gives a field a value."""
    return lambda message: setattr(get(message), field, value)


def remove(get: Get, field: str, index: int) -> Change:
    """Removes one element of a repeated field."""

    def change(message: Any) -> None:
        del getattr(get(message), field)[index]

    return change


def exchange(get: Get, field: str, one: int, other: int, part: str) -> Change:
    """Exchanges a field of two elements of a repeated field."""

    def change(message: Any) -> None:
        first, second = getattr(get(message), field)[one], getattr(get(message), field)[other]
        kept = getattr(first, part)
        setattr(first, part, getattr(second, part))
        setattr(second, part, kept)

    return change


def condition_changes(part: Any, subject: str, get: Get) -> Iterator[Found]:
    """The edits of the condition of a part of the message, if it has one."""
    if part.when:
        yield "lose a condition", f"{subject}: {part.when}", assign(get, "when", "")
        yield "negate a condition", f"{subject}: {part.when}", assign(get, "when", f"!({part.when})")


def swapped_factors(axes: str) -> Iterator[str]:
    """The axes with the factors of each product of two exchanged."""
    for match in re.finditer(r"\((\w+) (\w+)\)", axes):
        yield f"{axes[: match.start()]}({match[2]} {match[1]}){axes[match.end() :]}"


def misspelt(name: str) -> str:
    """The name with its last two letters that differ from each other exchanged."""
    for index in range(len(name) - 1, 0, -1):
        pair = name[index - 1 : index + 1]
        if pair.isalpha() and pair[0] != pair[1]:
            return name[: index - 1] + pair[1] + pair[0] + name[index + 1 :]
    return name + "x"


def subject_of(part: Any, index: int) -> str:
    """What a part of the message is called."""
    for field in ("name", "of", "tensor", "id", "say"):
        if getattr(part, field, ""):
            return str(getattr(part, field))
    return f"number {index}"
