"""Errors of the mapping language: each has the place in a mapping file, a text, and a kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import TypeVar

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class MappingIssue:
    """One thing that a mapping, or a config bound by it, does not satisfy.

    Attributes:
        location: "file:line" in the mapping files.
        text: what is wrong, with the names and sizes concerned.
        kind: one of
            syntax       a text that the language cannot read;
            unknown      a family, format, option, atom or tensor that does not exist;
            missing_key  a name that is neither config key, symbol nor option (`key` says which);
            value        a config value or expression of the wrong kind;
            size         sizes that do not fit, or are beyond the limits;
            require      a `require` of the family that does not hold (`text` is its `say`);
            place        rules that do not give each element one place;
            absent       a target needs what the source layout does not keep;
            option       an option that does not exist, or a value that it does not allow;
            lint         a mapping that works but breaks a rule of the linter.
        key: for missing_key, the key that was not found; for absent training state, the array.
    """

    location: str
    text: str
    kind: str = "place"
    key: str = ""

    def __str__(self) -> str:
        return f"{self.location}: {self.text}"


class MappingErrors(Exception):
    """One or more issues, all that a step found.

    Attributes:
        issues: the issues in the order found, without repetitions.
    """

    def __init__(self, issues: Iterable[MappingIssue]):
        self.issues: tuple[MappingIssue, ...] = tuple(dict.fromkeys(issues))
        super().__init__("\n".join(str(issue) for issue in self.issues))

    @classmethod
    def of(cls, location: str, text: str, kind: str = "place") -> MappingErrors:
        """One issue as an error."""
        return cls([MappingIssue(location, text, kind)])


class MissingKeyError(MappingErrors):
    """A name that the config, the symbols and the options do not have; `??` gives it a value."""

    def __init__(self, location: str, text: str, key: str):
        super().__init__([MappingIssue(location, text, "missing_key", key)])


class LanguageSyntaxError(Exception):
    """A text that the language cannot read; whoever knows the text's place makes it an issue."""


class Issues:
    """Collects issues, so that one step can report all of them."""

    def __init__(self) -> None:
        self._found: dict[MappingIssue, None] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def __enter__(self) -> Issues:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Takes over the issues of a MappingErrors raised in the block; other errors pass."""
        if isinstance(error, MappingErrors):
            self.extend(error.issues)
            return True
        return False

    @property
    def found(self) -> tuple[MappingIssue, ...]:
        """The distinct issues so far."""
        return tuple(self._found)

    def add(self, location: str, text: str, kind: str = "place") -> None:
        """Notes one issue."""
        self._found[MappingIssue(location, text, kind)] = None

    def extend(self, issues: Iterable[MappingIssue]) -> None:
        """Notes several issues."""
        self._found.update(dict.fromkeys(issues))

    def raise_any(self) -> None:
        """Raises MappingErrors if anything was noted."""
        if self._found:
            raise MappingErrors(self._found)


def reading(parse: Callable[[str], _T], text: str, location: str) -> _T:
    """What a parser makes of a text.

    Raises:
        MappingErrors: the text cannot be read.
    """
    try:
        return parse(text)
    except LanguageSyntaxError as error:
        raise MappingErrors.of(location, str(error), "syntax") from None
