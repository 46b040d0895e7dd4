"""Values of expressions. Integers, texts, truth values, null, and what config.json holds; no floats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from mappings.language.errors import MissingKeyError
from mappings.language.expressions import Binary, Call, Conditional, Expression, Item, Literal, Name, Size, Unary


class EvaluationError(Exception):
    """An expression without a value; whoever knows the expression's place makes it an issue.

    Attributes:
        kind: the kind of the issue.
        key: the name that was not found, for missing_key.
    """

    def __init__(self, text: str, kind: str = "value", key: str = ""):
        super().__init__(text)
        self.kind = kind
        self.key = key


class Names(Protocol):
    """Where an expression finds what it names."""

    def lookup(self, name: str) -> object:
        """The value of a name; EvaluationError of kind missing_key if nothing has it."""

    def atom_size(self, atom: str) -> int:
        """The size of an atom."""


def evaluate(tree: Expression, scope: Names) -> object:
    """The value of an expression.

    Raises:
        EvaluationError: a name is missing, or an operand has the wrong kind.
        MappingErrors: a symbol or an atom that it names has no value.
    """
    match tree:
        case Literal(value=value):
            return value
        case Name(name=name):
            return scope.lookup(name)
        case Size(atom=atom):
            return scope.atom_size(atom)
        case Binary(operator=operator, left=left, right=right):
            return _binary(operator, left, right, scope)
        case Unary(operator="!", operand=operand):
            return not truth(evaluate(operand, scope))
        case Unary(operand=operand):
            return -_integer("-", evaluate(operand, scope))
        case Conditional(condition=condition, then=then, otherwise=otherwise):
            return evaluate(then if truth(evaluate(condition, scope)) else otherwise, scope)
        case Call(function=function, arguments=arguments):
            return _call(function, [evaluate(argument, scope) for argument in arguments])
        case Item(base=base, index=index):
            return _item(evaluate(base, scope), evaluate(index, scope))


def truth(value: object) -> bool:
    """Whether a condition holds: true, and numbers but 0, and lists and objects that are not empty.

    Raises:
        EvaluationError: the value is a text: "false" would hold.
    """
    if value is None or isinstance(value, bool | int | list | tuple | Mapping):
        return bool(value)
    raise EvaluationError(f"a condition is {shown(value)}, neither true nor false")


def _binary(operator: str, left: Expression, right: Expression, scope: Names) -> object:
    if operator == "??":
        found = _if_there(left, scope)
        return evaluate(right, scope) if found is None else found
    if operator == "||":
        return truth(evaluate(left, scope)) or truth(evaluate(right, scope))
    if operator == "&&":
        return truth(evaluate(left, scope)) and truth(evaluate(right, scope))
    first, second = evaluate(left, scope), evaluate(right, scope)
    if operator == "==":
        return _equal(first, second)
    if operator == "!=":
        return not _equal(first, second)
    if operator == "in":
        return _contains(second, first)
    return _ARITHMETIC[operator](_integer(operator, first), _integer(operator, second))


def _if_there(tree: Expression, scope: Names) -> object:
    """The value, or None where a key that it needs is missing; other errors pass."""
    try:
        return evaluate(tree, scope)
    except MissingKeyError:
        return None
    except EvaluationError as error:
        if error.kind != "missing_key":
            raise
        return None


def _equal(first: object, second: object) -> bool:
    # Python's True == 1 would make a flag equal to a count.
    return isinstance(first, bool) == isinstance(second, bool) and first == second


def _contains(container: object, item: object) -> bool:
    if isinstance(container, list | tuple):
        return any(_equal(entry, item) for entry in container)
    if isinstance(container, Mapping):
        return item in container
    raise EvaluationError(f"'in' needs a list, not {shown(container)}")


def _integer(operator: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if value is None:
        raise EvaluationError(f"null operand of '{operator}'")
    raise EvaluationError(f"operand of '{operator}' is {shown(value)}, not an integer")


def _floor_divide(a: int, b: int) -> int:
    if b == 0:
        raise EvaluationError("division by zero")
    return a // b


def _modulo(a: int, b: int) -> int:
    if b == 0:
        raise EvaluationError("division by zero")
    return a % b


_ARITHMETIC: Mapping[str, Callable[[int, int], object]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": _floor_divide,
    "%": _modulo,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def _call(function: str, values: list[object]) -> object:
    if function == "min":
        return min(_integer("min", value) for value in values)
    if function == "max":
        return max(_integer("max", value) for value in values)
    if function == "len":
        if isinstance(values[0], str | list | tuple | Mapping):
            return len(values[0])
        raise EvaluationError(f"len of {shown(values[0])}")
    text, start = values
    if isinstance(text, str) and isinstance(start, str):
        return text.startswith(start)
    raise EvaluationError(f"starts() needs two texts, not {shown(text)} and {shown(start)}")


def _item(base: object, index: object) -> object:
    if isinstance(base, list | tuple):
        position = _integer("[]", index)
        if not 0 <= position < len(base):
            raise EvaluationError(f"position {position} is outside a list of {len(base)}")
        return base[position]
    if isinstance(base, Mapping) and isinstance(index, str):
        if index not in base:
            raise EvaluationError(f"no key '{index}'", "missing_key", index)
        return base[index]
    raise EvaluationError(f"{shown(base)} has no positions")


def shown(value: object) -> str:
    """A value as messages show it: as JSON writes it, and short, whatever a config holds."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 100:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
