"""Name templates with their digits known: names of arrays from values of digits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mappings.language import templates
from mappings.language.arrays import PART_MARK
from mappings.language.errors import MappingErrors, reading
from mappings.language.evaluation import EvaluationError
from mappings.language.nodes import Label
from mappings.language.options import text_of
from mappings.language.scopes import Symbols

Digits = tuple[tuple[str, int], ...]
"""Names and sizes of digits, major first."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Number:
    digits: Digits
    offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Word:
    digits: Digits
    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class BoundName:
    """A template whose digits have sizes.

    Attributes:
        parts: texts and holes.
        digits: the digits that it prints, each once.
    """

    parts: tuple[str | _Number | _Word, ...]
    digits: Mapping[str, int]

    def text(self, values: Mapping[str, int]) -> str:
        """The name for values of the digits."""
        return "".join([part if isinstance(part, str) else _printed(part, values) for part in self.parts])

    def texts(self, outer: Iterable[Mapping[str, int]], inner: Sequence[Mapping[str, int]]) -> Iterator[str]:
        """The names for all pairs of values, the inner ones running fastest; what both share is printed once."""
        names = frozenset(inner[0]) if inner else frozenset()
        holes = [at for at, part in enumerate(self.parts) if not isinstance(part, str) and names & _names(part)]
        if len(holes) != 1 or not _names(self.parts[holes[0]]) <= names:
            yield from (self.text({**ours, **theirs}) for ours in outer for theirs in inner)
            return
        (hole,) = holes
        printed = [_printed(self.parts[hole], values) for values in inner]
        head, tail = BoundName(self.parts[:hole], {}), BoundName(self.parts[hole + 1 :], {})
        for values in outer:
            before, after = head.text(values), tail.text(values)
            yield from [f"{before}{text}{after}" for text in printed]


def _names(part: str | _Number | _Word) -> frozenset[str]:
    return frozenset() if isinstance(part, str) else frozenset(name for name, _ in part.digits)


def _printed(part: str | _Number | _Word, values: Mapping[str, int]) -> str:
    if isinstance(part, str):
        return part
    number = 0
    for digit, size in part.digits:
        number = number * size + values[digit]
    return str(number + part.offset) if isinstance(part, _Number) else part.words[number]


class Namer:
    """Binds templates of one layout."""

    def __init__(self, symbols: Symbols, labels: Mapping[str, Label]):
        self._symbols = symbols
        self._labels = labels

    def bind(self, texts: tuple[tuple[str, str], ...], over: Mapping[str, int]) -> BoundName:
        """One name from templates that follow each other.

        Args:
            texts: each template with its "file:line".
            over: digits of the scope and their sizes; they come before atoms of the same name.

        Raises:
            MappingErrors: a template cannot be read, or names what does not exist.
        """
        parts: list[str | _Number | _Word] = []
        digits: dict[str, int] = {}
        for text, location in texts:
            for part in reading(templates.parse, text, location):
                bound = self._part(part, over, location)
                if isinstance(bound, str) and parts and isinstance(parts[-1], str):
                    parts[-1] += bound
                else:
                    parts.append(bound)
                if not isinstance(bound, str):
                    digits.update(bound.digits)
        return BoundName(tuple(parts), digits)

    def bind_full(
        self, part: tuple[str, str], texts: tuple[tuple[str, str], ...], over: Mapping[str, int]
    ) -> BoundName:
        """The full name of an array: its part, if that is not empty, a mark, and its name.

        Args:
            part: the template of the part with its "file:line".
            texts: templates of the name, see `bind`.
            over: digits of the scope, see `bind`.

        Raises:
            MappingErrors: as for `bind`.
        """
        bound = self.bind((part,), over)
        if not bound.digits and not bound.text({}):
            return self.bind(texts, over)
        return self.bind((part, (PART_MARK, part[1]), *texts), over)

    def _part(self, part: templates.Part, over: Mapping[str, int], location: str) -> str | _Number | _Word:
        if isinstance(part, str):
            return part
        if isinstance(part, templates.Symbol):
            return text_of(self._symbol(part.name, location))
        label = self._labels.get(part.names[0])
        if label is not None and label.name not in over:
            return self._word(part, label, over, location)
        digits = tuple(digit for name in part.names for digit in self._digits(name, over, location))
        offset = 0
        if part.offset is not None:
            offset = self._symbols.evaluate_tree(part.offset, "the offset in a name", location, {})
        return _Number(digits, offset)

    def _word(self, hole: templates.Hole, label: Label, over: Mapping[str, int], location: str) -> _Word:
        if len(hole.names) > 1 or hole.offset is not None:
            raise MappingErrors.of(location, f"label '{label.name}' stands alone in its placeholder", "syntax")
        digits = self._digits(label.atom, over, label.location)
        size = math.prod(size for _, size in digits)
        if size != len(label.value):
            text = f"label '{label.name}' has {len(label.value)} words for the {size} values of '{label.atom}'"
            raise MappingErrors.of(label.location, text, "size")
        return _Word(digits, label.value)

    def _digits(self, name: str, over: Mapping[str, int], location: str) -> Digits:
        if name in over:
            return ((name, over[name]),)
        return tuple((leaf, self._symbols.size(leaf, location)) for leaf in self._symbols.expand(name, location))

    def _symbol(self, name: str, location: str) -> object:
        try:
            value = self._symbols.lookup(name)
        except EvaluationError as error:
            raise MappingErrors.of(location, f"no option or symbol '{name}'", error.kind) from None
        if not isinstance(value, str | int):
            raise MappingErrors.of(location, f"'{name}' in a name is neither text nor number", "value")
        return value
