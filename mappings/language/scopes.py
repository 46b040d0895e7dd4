"""Symbols: where expressions of a family or a layout find index values, options, symbols, atoms and config keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from mappings.language import expressions
from mappings.language.errors import MappingErrors, MissingKeyError, reading
from mappings.language.evaluation import EvaluationError, evaluate, shown, truth
from mappings.language.limits import MAX_SIZE
from mappings.language.nodes import Atom, Let

MISSING: Final = object()
"""Stands for the value of a config key that there is not."""

_NO_INDEX: Mapping[str, int] = {}


class Symbols:
    """Names of one family, or of one layout on top of its family's.

    A name is looked up in this order: index value, option, symbol, the family's symbols, config key under each root.
    Values are computed when they are needed and then kept; a symbol or size that needs itself is an error.
    """

    def __init__(self, config: Mapping[str, object], roots: Iterable[str], parent: Symbols | None = None):
        self._config = config
        self._roots = tuple(roots) or ("",)
        self._parent = parent
        self._lets: dict[str, Let] = {}
        self._atoms: dict[str, Atom] = {}
        self._spellings: dict[str, list[Atom]] = {}
        self._options: dict[str, object] = {}
        self._option_default: Callable[[str], object] | None = None
        self._declared_options: frozenset[str] = frozenset()
        self._values: dict[str, object] = {}
        self._sizes: dict[str, int] = {}
        self._expanded: dict[str, tuple[str, ...]] = {}
        self._active: list[str] = []

    # ---- definitions

    def define_options(self, names: Iterable[str], value: Callable[[str], object]) -> None:
        """Declares options; `value` computes one when it is first needed."""
        self._declared_options = frozenset(names)
        self._option_default = value

    def define(self, let: Let) -> None:
        """Adds a symbol."""
        if let.name in self._lets:
            raise MappingErrors.of(let.location, f"symbol '{let.name}' defined twice", "syntax")
        self._lets[let.name] = let

    def add_atom(self, atom: Atom) -> None:
        """Adds an atom or a spelling, if its condition holds."""
        if not self.holds(atom.when, atom.location):
            return
        if atom.of and (atom.name or atom.size or not atom.is_):
            raise MappingErrors.of(atom.location, f"a spelling of '{atom.of}' has 'of' and 'is' only", "syntax")
        if atom.of:
            self._spellings.setdefault(atom.of, []).append(atom)
            return
        if not atom.name or bool(atom.size) == bool(atom.is_):
            raise MappingErrors.of(atom.location, f"atom '{atom.name}' has exactly one of 'size' and 'is'", "syntax")
        if atom.name in self._atoms:
            raise MappingErrors.of(atom.location, f"atom '{atom.name}' defined twice", "syntax")
        self._atoms[atom.name] = atom

    # ---- values

    def evaluate(self, text: str, location: str, index: Mapping[str, int] = _NO_INDEX) -> object:
        """The value of an expression.

        Args:
            text: the expression.
            location: its place, for messages.
            index: values of index atoms and digits.

        Raises:
            MappingErrors: the expression cannot be read or has no value.
        """
        return self._value(reading(expressions.parse, text, location), text, location, index)

    def evaluate_tree(self, tree: expressions.Expression, text: str, location: str, index: Mapping[str, int]) -> int:
        """The integer value of a tree that is part of `text`.

        Raises:
            MappingErrors: it has no value, or is no integer.
        """
        return _whole(self._value(tree, text, location, index), text, location)

    def _value(self, tree: expressions.Expression, text: str, location: str, index: Mapping[str, int]) -> object:
        try:
            return evaluate(tree, _View(self, index))
        except EvaluationError as error:
            message = f"'{text}': {error}"
            if error.kind == "missing_key":
                raise MissingKeyError(location, message, error.key) from None
            raise MappingErrors.of(location, message, error.kind) from None

    def integer(self, text: str, location: str, index: Mapping[str, int] = _NO_INDEX) -> int:
        """The value of an expression that must be an integer."""
        return _whole(self.evaluate(text, location, index), text, location)

    def holds(self, condition: str, location: str, index: Mapping[str, int] = _NO_INDEX) -> bool:
        """Whether a condition holds; an empty one does."""
        if not condition:
            return True
        value = self.evaluate(condition, location, index)
        try:
            return truth(value)
        except EvaluationError as error:
            raise MappingErrors.of(location, f"'{condition}': {error}", error.kind) from None

    def lookup(self, name: str) -> object:
        """The value of an option, symbol or config key.

        Raises:
            EvaluationError: nothing has that name.
            MappingErrors: a symbol's expression has no value.
        """
        if name in self._values:
            return self._values[name]
        head, _, rest = name.partition(".")
        if head in self._declared_options or head in self._lets:
            with self._computing(head):
                value = self._own(head)
            value = _member(value, rest, name) if rest else value
        elif self._parent is not None:
            value = self._parent.lookup(name)
        else:
            value = self._config_value(name)
        self._values[name] = value
        return value

    def _own(self, name: str) -> object:
        if name in self._declared_options:
            assert self._option_default is not None
            return self._option_default(name)
        let = self._lets[name]
        return self.evaluate(let.value, let.location)

    def _config_value(self, name: str) -> object:
        for root in self._roots:
            value: object = self._config
            for key in (f"{root}.{name}" if root else name).split("."):
                if not isinstance(value, Mapping) or key not in value:
                    break
                value = value[key]
            else:
                return value
        raise EvaluationError(f"no config key, symbol or option named '{name}'", "missing_key", name)

    def reads(self, text: str, location: str) -> Mapping[str, object]:
        """The config keys that an expression reads, through symbols and sizes too, with their values.

        Keys that the config lacks have the value MISSING.
        """
        found: dict[str, object] = {}
        self._add_reads(text, location, found, set())
        return found

    def _add_reads(self, text: str, location: str, found: dict[str, object], seen: set[str]) -> None:
        for node in expressions.walk(reading(expressions.parse, text, location)):
            if isinstance(node, expressions.Size):
                for leaf in self.expand(node.atom, location):
                    atom = self.atom(leaf)
                    if atom is not None and leaf not in seen:
                        seen.add(leaf)
                        self._add_reads(atom.size, atom.location, found, seen)
            elif isinstance(node, expressions.Name):
                let = self._lets.get(node.name.partition(".")[0])
                if let is None:
                    try:
                        found[node.name] = self._config_value(node.name)
                    except EvaluationError:
                        found[node.name] = MISSING
                elif let.name not in seen:
                    seen.add(let.name)
                    self._add_reads(let.value, let.location, found, seen)

    @contextmanager
    def _computing(self, what: str) -> Iterator[None]:
        if what in self._active:
            cycle = " -> ".join([*self._active[self._active.index(what) :], what])
            raise EvaluationError(f"defined by itself: {cycle}", "syntax")
        self._active.append(what)
        try:
            yield
        finally:
            self._active.pop()

    # ---- atoms

    def atom(self, name: str) -> Atom | None:
        """The definition of an atom, the layout's before the family's."""
        own = self._atoms.get(name)
        return own if own is not None or self._parent is None else self._parent.atom(name)

    def expand(self, name: str, location: str) -> tuple[str, ...]:
        """The plain atoms that an atom is the product of, major first; itself if it is plain.

        Raises:
            MappingErrors: there is no such atom, or it is made of itself.
        """
        known = self._expanded.get(name)
        if known is not None:
            return known
        atom = self.atom(name)
        if atom is None:
            raise MappingErrors.of(location, f"no atom named '{name}'", "unknown")
        if not atom.is_:
            expanded: tuple[str, ...] = (name,)
        else:
            try:
                with self._computing(name):
                    expanded = tuple(leaf for part in atom.is_.split() for leaf in self.expand(part, atom.location))
            except EvaluationError as error:
                raise MappingErrors.of(atom.location, f"atom '{name}' is {error}", error.kind) from None
        self._expanded[name] = expanded
        return expanded

    def spellings(self, name: str) -> list[tuple[str, ...]]:
        """The `of` spellings of an atom, each as plain atoms."""
        return [
            tuple(leaf for part in atom.is_.split() for leaf in self.expand(part, atom.location))
            for atom in self._spellings.get(name, ())
        ]

    def size(self, name: str, location: str) -> int:
        """The size of an atom, the product of its parts' for a composite.

        Raises:
            MappingErrors: there is no such atom, its size has no value, or is not allowed.
        """
        return math.prod([self._plain_size(leaf) for leaf in self.expand(name, location)])

    def _plain_size(self, name: str) -> int:
        if name in self._sizes:
            return self._sizes[name]
        if name not in self._atoms:
            assert self._parent is not None
            return self._parent._plain_size(name)
        atom = self._atoms[name]
        try:
            with self._computing(f"size({name})"):
                value = self.evaluate(atom.size, atom.location)
        except EvaluationError as error:
            raise MappingErrors.of(atom.location, f"'{atom.size}' is {error}", error.kind) from None
        least = 0 if atom.may_be_empty else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            text = f"atom '{name}' has size {shown(value)}, from '{atom.size}'"
            raise MappingErrors.of(atom.location, text, "size")
        if value > MAX_SIZE:
            text = f"atom '{name}' has size {shown(value)}, more than the limit of {MAX_SIZE:,}"
            raise MappingErrors.of(atom.location, text, "size")
        self._sizes[name] = value
        return value


class _View:
    """Symbols with the values of index atoms on top."""

    __slots__ = ("_index", "_symbols")

    def __init__(self, symbols: Symbols, index: Mapping[str, int]):
        self._symbols = symbols
        self._index = index

    def lookup(self, name: str) -> object:
        return self._index[name] if name in self._index else self._symbols.lookup(name)

    def atom_size(self, atom: str) -> int:
        if self._symbols.atom(atom) is None:
            raise EvaluationError(f"no atom named '{atom}'", "unknown")
        return self._symbols.size(atom, "")


def _whole(value: object, text: str, location: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise MappingErrors.of(location, f"'{text}' is {shown(value)}, not an integer", "value")


def _member(value: object, path: str, name: str) -> object:
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise EvaluationError(f"no config key, symbol or option named '{name}'", "missing_key", name)
        value = value[key]
    return value
