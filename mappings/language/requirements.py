"""Requirements of a family: what a config must satisfy, and what is said of one that does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mappings.language.errors import MappingErrors
from mappings.language.evaluation import shown
from mappings.language.limits import MAX_INDEX_VALUES, check_enumerable
from mappings.language.nodes import Require
from mappings.language.scopes import MISSING, Symbols


def check(require: Require, symbols: Symbols) -> None:
    """Checks a requirement, for each value of its index atom if it has one.

    Raises:
        MappingErrors: it does not hold, with what the config has in the fields that it reads; it cannot be evaluated.
    """
    for index in _indices(require, symbols):
        if not symbols.holds(require.that, require.location, index):
            text = f"{require.say} ({_found(require, symbols, index)})"
            raise MappingErrors.of(require.location, text, "require")


def _indices(require: Require, symbols: Symbols) -> Iterator[Mapping[str, int]]:
    if not require.each:
        yield {}
        return
    count = symbols.size(require.each, require.location)
    check_enumerable(count, MAX_INDEX_VALUES, f"values of the index '{require.each}'", require.location)
    yield from ({require.each: value} for value in range(count))


def _found(require: Require, symbols: Symbols, index: Mapping[str, int]) -> str:
    read = {key: value for key, value in symbols.reads(require.that, require.location).items() if key not in index}
    given = [
        _shown(key, value, index.get(require.each))
        for key, value in read.items()
        # Of a section, the fields that are read have names of their own.
        if value is not MISSING and not isinstance(value, Mapping)
    ]
    if not given:
        return f"the config has no {' and no '.join(read)}"
    return f"the config has {', '.join(given)}"


def _shown(key: str, value: object, at: int | None) -> str:
    """A field and its value: of a list with an entry for each index, the one that is concerned."""
    if at is not None and isinstance(value, Sequence) and not isinstance(value, str) and at < len(value):
        return f"{key}[{at}] = {shown(value[at])}"
    return f"{key} = {shown(value)}"
