"""Axis expressions: how the axes of one array are made of atoms.

axes   := axis*                          an empty string is a scalar
axis   := factor | "(" factor+ ")"       one array axis; major factor first
factor := ATOM | "1" | sum
sum    := "[" branch ( "|" branch )* "]"
branch := [ TENSOR ":" ] factor+ | "0:" expr       the second is zero padding of that many elements
"""

from __future__ import annotations

import dataclasses
import functools
import re

from mappings.language import expressions
from mappings.language.errors import LanguageSyntaxError

_TOKEN = re.compile(
    r"\s*(?:(?P<padding>0\s*:)|(?P<label>[A-Za-z_][\w.]*\s*:)|(?P<atom>[A-Za-z_]\w*(?![\w.]))"
    r"|(?P<one>1(?!\w))|(?P<mark>[()\[\]|]))"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Branch:
    """One part of a direct sum.

    Attributes:
        tensor: the tensor's id where the branch names it, else "".
        atoms: major first; () for one element.
        padding: an expression for the number of zeros where the branch is padding, else "".
    """

    tensor: str
    atoms: tuple[str, ...]
    padding: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Sum:
    """A direct sum: its branches follow each other."""

    branches: tuple[Branch, ...]


Factor = str | Sum
"""An atom or a sum. "1" leaves no factor: it is the empty product."""


@dataclasses.dataclass(frozen=True, slots=True)
class Axes:
    """The axes of one array, before stacking.

    Attributes:
        axes: for each array axis its factors, major first.
        sum_at: (axis, factor) where the direct sum stands, None without one.
    """

    axes: tuple[tuple[Factor, ...], ...]
    sum_at: tuple[int, int] | None

    @property
    def sum(self) -> Sum | None:
        """The direct sum, None without one."""
        if self.sum_at is None:
            return None
        found = self.axes[self.sum_at[0]][self.sum_at[1]]
        assert isinstance(found, Sum)
        return found

    @property
    def tensors(self) -> tuple[str, ...]:
        """Tensors that the branches name; () where the rule names the tensor."""
        return tuple(branch.tensor for branch in self.sum.branches if branch.tensor) if self.sum else ()


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Axes:
    """The structure of an axis expression.

    Raises:
        LanguageSyntaxError: the text is no axis expression, or has more than one direct sum, or a sum whose
            branches do not all say, or all leave out, their tensors.
    """
    return _Parser(text).axes()


class _Parser:
    def __init__(self, text: str):
        self._text = text
        self._position = 0
        self._end = len(text.rstrip())
        self._sums: list[tuple[int, int]] = []

    def axes(self) -> Axes:
        found: list[tuple[Factor, ...]] = []
        while self._position < self._end:
            if self._take_if("("):
                factors = self._factors(len(found), ")")
                if not self._take_if(")"):
                    raise LanguageSyntaxError(f"'(' is not closed in '{self._text}'")
                found.append(factors)
            else:
                found.append(self._factor(len(found), 0))
        if len(self._sums) > 1:
            raise LanguageSyntaxError(f"more than one direct sum in '{self._text}'; name the products as tensors")
        return Axes(tuple(found), self._sums[0] if self._sums else None)

    def _factors(self, axis: int, closing: str) -> tuple[Factor, ...]:
        factors: list[Factor] = []
        start = self._position
        while self._position < self._end and self._peek() != closing:
            factors += self._factor(axis, len(factors))
        if self._position == start:
            raise LanguageSyntaxError(f"an empty axis in '{self._text}' (write 1 for one element)")
        return tuple(factors)

    def _factor(self, axis: int, index: int) -> tuple[Factor, ...]:
        """One factor, as a tuple that is empty for "1"."""
        kind, token = self._take()
        if kind == "one":
            return ()
        if kind == "atom":
            return (token,)
        if token == "[":
            self._sums.append((axis, index))
            return (self._sum(),)
        raise LanguageSyntaxError(f"'{token}' unexpected in axes '{self._text}'")

    def _sum(self) -> Sum:
        branches = [self._branch()]
        while self._take_if("|"):
            branches.append(self._branch())
        if not self._take_if("]"):
            raise LanguageSyntaxError(f"'[' is not closed in '{self._text}'")
        real = [branch for branch in branches if not branch.padding]
        named = [branch.tensor for branch in real if branch.tensor]
        if len(set(named)) != len(named):
            raise LanguageSyntaxError(f"a tensor stands twice in '{self._text}'")
        if not real or (len(named) != len(real) and (named or len(real) > 1)):
            raise LanguageSyntaxError(f"branches without the tensor's name in '{self._text}'")
        return Sum(tuple(branches))

    def _branch(self) -> Branch:
        kind, token = self._token()
        if kind == "padding":
            self._take()
            padding = self._padding().strip()
            if not padding:
                raise LanguageSyntaxError(f"padding without a count in '{self._text}'")
            expressions.parse(padding)
            return Branch("", (), padding)
        label = ""
        if kind == "label":
            self._take()
            label = token[:-1].strip()
        atoms: list[str] = []
        start = self._position
        while self._peek() not in ("|", "]", ""):
            kind, token = self._take()
            if kind not in ("atom", "one"):
                raise LanguageSyntaxError(f"'{token}' unexpected in a branch of '{self._text}'")
            atoms += [token] if kind == "atom" else []
        if self._position == start:
            raise LanguageSyntaxError(f"empty branch in '{self._text}' (write 1 for one element)")
        return Branch(label, tuple(atoms))

    def _padding(self) -> str:
        """The text up to the end of the branch; the expression in it may have brackets and `||`."""
        start, depth = self._position, 0
        while self._position < self._end:
            rest = self._text[self._position :]
            if rest.startswith("||"):
                self._position += 2
                continue
            if depth == 0 and rest[0] in "|]":
                break
            depth += (rest[0] in "[(") - (rest[0] in "])")
            self._position += 1
        return self._text[start : self._position]

    def _token(self) -> tuple[str, str]:
        if self._position >= self._end:
            return "", ""
        match = _TOKEN.match(self._text, self._position)
        if match is None:
            rest = self._text[self._position :].strip()
            raise LanguageSyntaxError(f"cannot read axes '{self._text}' from '{rest}'")
        kind = match.lastgroup or ""
        return kind, match.group(kind)

    def _peek(self) -> str:
        return self._token()[1]

    def _take(self) -> tuple[str, str]:
        kind, token = self._token()
        if not kind:
            raise LanguageSyntaxError(f"axes '{self._text}' end too early")
        match = _TOKEN.match(self._text, self._position)
        assert match is not None
        self._position = match.end()
        return kind, token

    def _take_if(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self._take()
        return True
