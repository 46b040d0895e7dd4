"""Expressions: text to syntax tree.

    expr    := or [ "?" expr ":" expr ]
               from loose to tight:  ?:  ??  ||  &&  == != < <= > >= in  + -  * // %  - !  [i]
    primary := INT | 'text' | true | false | null | NAME(.NAME)* | size(ATOM) | f(expr, ...) | ( expr )

`??` binds looser than arithmetic: `head_dim ?? hidden_size // heads` means what it looks like.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator

from mappings.language.errors import LanguageSyntaxError

FUNCTIONS = ("min", "max", "len", "starts")
"""Functions that expressions may call, beside size()."""

MAX_DEPTH = 60
"""How deep brackets and operators may nest."""

_LEVELS: tuple[tuple[str, ...], ...] = (
    ("??",),
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "//", "%"),
)
_TOKEN = re.compile(
    r"\s*(?:(?P<int>\d+)(?![\w.])"
    r"|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<text>'[^']*')"
    r"|(?P<mark>\?\?|//|<=|>=|==|!=|&&|\|\||[-+*%<>!?:()\[\],]))"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Literal:
    """A number, a text, true, false or null."""

    value: int | str | bool | None


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A name, dotted or not."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """size(ATOM)."""

    atom: str


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A function of values."""

    function: str
    arguments: tuple[Expression, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Unary:
    """- or ! before an operand."""

    operator: str
    operand: Expression


@dataclasses.dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands."""

    operator: str
    left: Expression
    right: Expression


@dataclasses.dataclass(frozen=True, slots=True)
class Conditional:
    """condition ? then : otherwise."""

    condition: Expression
    then: Expression
    otherwise: Expression


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """base[index]."""

    base: Expression
    index: Expression


Expression = Literal | Name | Size | Call | Unary | Binary | Conditional | Item


@functools.lru_cache(maxsize=8192)
def parse(text: str) -> Expression:
    """The tree of an expression.

    Raises:
        LanguageSyntaxError: the text is no expression.
    """
    parser = _Parser(text)
    tree = parser.expression()
    parser.end()
    return tree


@functools.lru_cache(maxsize=1024)
def parse_over(text: str) -> tuple[tuple[str, Expression], ...]:
    """The digits of a map and their sizes: ATOM ":" expr ( "," ATOM ":" expr )*; () for an empty text.

    Raises:
        LanguageSyntaxError: the text has another form, or a digit twice.
    """
    if not text.strip():
        return ()
    parser = _Parser(text)
    digits = [(parser.name(), parser.after(":"))]
    while parser.take_if(","):
        digits.append((parser.name(), parser.after(":")))
    parser.end()
    if len({name for name, _ in digits}) != len(digits):
        raise LanguageSyntaxError(f"a digit stands twice in '{text}'")
    return tuple(digits)


@functools.lru_cache(maxsize=1024)
def parse_map(text: str) -> tuple[str, Expression]:
    """An index map: ATOM "=" expr.

    Raises:
        LanguageSyntaxError: the text has another form.
    """
    match = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=(?!=)(.*)", text, re.DOTALL)
    if match is None:
        raise LanguageSyntaxError(f"cannot read map '{text}' (write: atom = expression)")
    return match.group(1), parse(match.group(2))


def walk(tree: Expression) -> Iterator[Expression]:
    """All nodes of a tree."""
    yield tree
    match tree:
        case Call(arguments=parts):
            children: tuple[Expression, ...] = parts
        case Unary(operand=operand):
            children = (operand,)
        case Binary(left=left, right=right):
            children = (left, right)
        case Conditional(condition=condition, then=then, otherwise=otherwise):
            children = (condition, then, otherwise)
        case Item(base=base, index=index):
            children = (base, index)
        case _:
            children = ()
    for child in children:
        yield from walk(child)


def names(tree: Expression) -> frozenset[str]:
    """Names that a tree looks up, without what follows a dot."""
    return frozenset(node.name.split(".")[0] for node in walk(tree) if isinstance(node, Name))


def sizes(tree: Expression) -> frozenset[str]:
    """Atoms whose sizes a tree takes."""
    return frozenset(node.atom for node in walk(tree) if isinstance(node, Size))


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str):
        self._text = text
        self._tokens = _lex(text)
        self._next = 0
        self._depth = 0

    def expression(self) -> Expression:
        """One expression; stops before a token that cannot continue it."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise LanguageSyntaxError(f"'{self._text}' nests too deeply")
        tree = self._binary(0)
        if self.take_if("?"):
            then = self.expression()
            self._expect(":")
            tree = Conditional(tree, then, self.expression())
        self._depth -= 1
        return tree

    def name(self) -> str:
        """A plain name."""
        kind, token = self._take()
        if kind != "name" or "." in token:
            raise LanguageSyntaxError(f"a name expected, not '{token}', in '{self._text}'")
        return token

    def after(self, mark: str) -> Expression:
        """The expression that follows a mark."""
        self._expect(mark)
        return self.expression()

    def take_if(self, mark: str) -> bool:
        """Takes the next token if it is this mark."""
        if self._peek() != mark:
            return False
        self._next += 1
        return True

    def end(self) -> None:
        """Checks that all tokens were taken."""
        if self._next < len(self._tokens):
            raise LanguageSyntaxError(f"cannot read '{self._text}' from '{self._tokens[self._next][1]}'")

    def _peek(self) -> str | None:
        if self._next == len(self._tokens):
            return None
        kind, token = self._tokens[self._next]
        return token if kind != "text" else None

    def _take(self) -> tuple[str, str]:
        if self._next == len(self._tokens):
            raise LanguageSyntaxError(f"'{self._text}' ends too early" if self._text.strip() else "empty expression")
        self._next += 1
        return self._tokens[self._next - 1]

    def _expect(self, mark: str) -> None:
        _, token = self._take()
        if token != mark:
            raise LanguageSyntaxError(f"'{mark}' expected, not '{token}', in '{self._text}'")

    def _binary(self, level: int) -> Expression:
        if level == len(_LEVELS):
            return self._unary()
        tree = self._binary(level + 1)
        while (operator := self._peek()) in _LEVELS[level]:
            self._next += 1
            tree = Binary(str(operator), tree, self._binary(level + 1))
        return tree

    def _unary(self) -> Expression:
        operators: list[str] = []
        while (operator := self._peek()) in ("-", "!"):
            self._next += 1
            operators.append(str(operator))
        if len(operators) > MAX_DEPTH:
            raise LanguageSyntaxError(f"'{self._text}' nests too deeply")
        tree = self._primary()
        while self.take_if("["):
            index = self.expression()
            self._expect("]")
            tree = Item(tree, index)
        for operator in reversed(operators):
            tree = Unary(operator, tree)
        return tree

    def _primary(self) -> Expression:
        kind, token = self._take()
        if kind == "int":
            return Literal(int(token))
        if kind == "text":
            return Literal(token[1:-1])
        if token == "(":
            tree = self.expression()
            self._expect(")")
            return tree
        if kind != "name":
            raise LanguageSyntaxError(f"'{token}' unexpected in '{self._text}'")
        if token in ("true", "false", "null"):
            return Literal({"true": True, "false": False, "null": None}[token])
        if self._peek() == "(":
            return self._call(token)
        return Name(token)

    def _call(self, function: str) -> Expression:
        self._expect("(")
        if function == "size":
            atom = self.name()
            self._expect(")")
            return Size(atom)
        if function not in FUNCTIONS:
            raise LanguageSyntaxError(f"there is no function '{function}', in '{self._text}'")
        arguments = [self.expression()]
        while self.take_if(","):
            arguments.append(self.expression())
        self._expect(")")
        if len(arguments) != {"len": 1, "starts": 2}.get(function, len(arguments)):
            raise LanguageSyntaxError(f"'{function}' takes another number of arguments, in '{self._text}'")
        return Call(function, tuple(arguments))


def _lex(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise LanguageSyntaxError(f"cannot read '{text[position:].strip()}' in '{text}'")
        kind = match.lastgroup or ""
        tokens.append((kind, match.group(kind)))
        position = match.end()
    return tokens
