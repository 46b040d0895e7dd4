"""Evaluating the `at` lines of a scope: digits, index maps and stacked axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from mappings.language import expressions
from mappings.language.errors import MappingErrors, reading
from mappings.language.limits import MAX_INDEX_VALUES, check_enumerable
from mappings.language.nodes import At
from mappings.language.places import Site
from mappings.language.scopes import Symbols


def top_site(location: str) -> Site:
    """The site of rules outside scopes, and of scopes without `at`."""
    return Site(At(location=location), {}, "", {}, ())


def bind_site(node: At, symbols: Symbols) -> Site:
    """Evaluates an `at`.

    Raises:
        MappingErrors: a text cannot be read, a digit's size is negative, or two digits combinations map to one value.
    """
    over = {
        digit: _digit_size(digit, tree, node, symbols)
        for digit, tree in reading(expressions.parse_over, node.over, node.location)
    }
    stack = tuple(node.stack.split())
    if len(set(stack)) != len(stack):
        raise MappingErrors.of(node.location, f"a digit stands twice in stack '{node.stack}'", "syntax")
    if not node.map:
        if over:
            raise MappingErrors.of(node.location, f"'over' without a 'map' that uses '{next(iter(over))}'", "syntax")
        return Site(node, over, "", {}, stack)
    mapped, tree = reading(expressions.parse_map, node.map, node.location)
    return Site(node, over, mapped, _inverse(mapped, tree, over, node, symbols), stack)


def _digit_size(digit: str, tree: expressions.Expression, node: At, symbols: Symbols) -> int:
    size = symbols.evaluate_tree(tree, f"{digit} in over: '{node.over}'", node.location, {})
    if size < 0:
        raise MappingErrors.of(node.location, f"digit '{digit}' has size {size}", "size")
    return size


def _inverse(
    mapped: str, tree: expressions.Expression, over: Mapping[str, int], node: At, symbols: Symbols
) -> dict[int, tuple[int, ...]]:
    check_enumerable(math.prod(over.values()), MAX_INDEX_VALUES, f"places of '{mapped}'", node.location)
    inverse: dict[int, tuple[int, ...]] = {}
    for values in itertools.product(*map(range, over.values())):
        index = dict(zip(over, values, strict=True))
        value = symbols.evaluate_tree(tree, node.map, node.location, index)
        if value in inverse:
            raise MappingErrors.of(node.location, f"two places for {mapped}={value}")
        inverse[value] = values
    return inverse
