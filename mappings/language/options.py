"""Options of a layout: given values, defaults, and which values are allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mappings.language import expressions
from mappings.language.errors import Issues, MappingErrors, reading
from mappings.language.evaluation import shown
from mappings.language.family import Family
from mappings.language.nodes import LayoutNode, LayoutSource, Option
from mappings.language.scopes import Symbols


def layout_symbols(family: Family, source: LayoutSource) -> Symbols:
    """Symbols of a layout on top of its family's, before its options are bound.

    Raises:
        MappingErrors: a symbol is defined twice.
    """
    symbols = Symbols(family.config, family.source.node.config_root, family.symbols)
    for let in source.node.let:
        symbols.define(let)
    return symbols


def bind_options(node: LayoutNode, symbols: Symbols, given: Mapping[str, object]) -> dict[str, object]:
    """The final values of a layout's options, which the symbols then know.

    Args:
        node: the layout.
        symbols: the layout's symbols, to which the options are added.
        given: values from the user, a manifest or detection; numbers and truth values may be texts.

    Raises:
        MappingErrors: an option does not exist, has no value, or one that is not allowed.
    """
    issues = Issues()
    declared = {option.name: option for option in node.option}
    for name in given:
        if name not in declared:
            known = ", ".join(declared) or "none"
            issues.add(node.location, f"no option named '{name}'; there are: {known}", "option")

    def value_of(name: str) -> object:
        option = declared[name]
        if name in given:
            value = given[name]
            return _allowed(option, _read(option, value) if isinstance(value, str) else value)
        if not option.default:
            raise MappingErrors.of(option.location, f"option '{name}' must be given", "option")
        return _allowed(option, symbols.evaluate(option.default, option.location))

    symbols.define_options(declared, value_of)
    values: dict[str, object] = {}
    for option in node.option:
        with issues:
            values[option.name] = symbols.evaluate(option.name, option.location)
    issues.raise_any()
    return values


def listed_values(option: Option) -> tuple[object, ...]:
    """The values that an option lists, as its layout sees them; () for an option that lists none."""
    return tuple(_read(option, text) for text in option.value)


def text_of(value: object) -> str:
    """An option's value as mapping files and flags write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _read(option: Option, text: str) -> object:
    """A text as the kind of value that the option has: a text if its default is one, else what it looks like."""
    if option.default and _is_text(reading(expressions.parse, option.default, option.location)):
        return text
    if text in ("true", "false"):
        return text == "true"
    return int(text) if re.fullmatch(r"-?\d{1,18}", text) else text


def _is_text(tree: expressions.Expression) -> bool:
    """Whether an expression is written to give a text."""
    match tree:
        case expressions.Literal(value=value):
            return isinstance(value, str)
        case expressions.Conditional(then=then):
            return _is_text(then)
        case expressions.Binary(operator="??", right=right):
            return _is_text(right)
        case _:
            return False


def _allowed(option: Option, value: object) -> object:
    wrong = ""
    if not isinstance(value, str | int):
        wrong = f"option {option.name} is neither number, text nor truth value: {shown(value)}"
    elif option.value and text_of(value) not in option.value:
        wrong = f"option {option.name}={text_of(value)}: allowed are {', '.join(option.value)}"
    if wrong:
        raise MappingErrors.of(option.location, wrong, "option")
    return value
