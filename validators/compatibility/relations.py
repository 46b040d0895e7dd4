"""How a value of a checkpoint must relate to what is expected: the relations of rules, and those that have a name."""

from __future__ import annotations

import dataclasses
import numbers
import struct
from collections.abc import Callable, Mapping
from typing import Any

from recast_proto import compatibility_pb2

Holds = Callable[[Any, Any], bool]
"""Whether a found value relates to an expected one."""


class UnknownRelationError(LookupError):
    """A rule asks for a relation that this version does not have."""


@dataclasses.dataclass(frozen=True, slots=True)
class Relation:
    """A relation between a found and an expected value, neither of which is None.

    Attributes:
        holds: decides it; values of kinds that it does not relate do not.
        agrees: says that it holds, between the two values: "32 is {agrees} 32".
        differs: says that it does not.
    """

    holds: Holds
    agrees: str
    differs: str


def relation_of(rule: compatibility_pb2.CompatibilityRule) -> Relation:
    """The relation that a rule asks for.

    Raises:
        UnknownRelationError: there is none of that kind or name.
    """
    if rule.relation == compatibility_pb2.NAMED:
        named = NAMED.get(rule.relation_name)
        if named is None:
            known = ", ".join(sorted(NAMED))
            raise UnknownRelationError(f"there is no relation '{rule.relation_name}'; known are: {known}")
        return named
    relation = _RELATIONS.get(rule.relation)
    if relation is None:
        name = compatibility_pb2.Relation.Name(rule.relation)
        raise UnknownRelationError(f"{name} is no relation between values")
    return relation


def equal(first: Any, second: Any) -> bool:
    """Whether two values of JSON are the same. Numbers are, in either notation (1 and 1.0), but true is not 1."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _compared(holds: Holds) -> Holds:
    return lambda found, expected: is_number(found) and is_number(expected) and holds(found, expected)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _has(values: Any, wanted: Any) -> bool:
    return any(equal(value, wanted) for value in _listed(values))


def _same_set(found: Any, expected: Any) -> bool:
    return all(_has(expected, value) for value in _listed(found)) and all(
        _has(found, value) for value in _listed(expected)
    )


def _same_in_float32(found: Any, expected: Any) -> bool:
    """Equal once both are rounded to float32: 1e-5 may be written as 9.999999747378752e-06."""
    if not (is_number(found) and is_number(expected)):
        return equal(found, expected)
    try:
        return struct.pack("<f", found) == struct.pack("<f", expected)
    except OverflowError:
        return False


_RELATIONS: Mapping[int, Relation] = {
    compatibility_pb2.EQUAL: Relation(equal, "equal to", "not"),
    compatibility_pb2.AT_MOST: Relation(_compared(lambda a, b: a <= b), "at most", "more than"),
    compatibility_pb2.AT_LEAST: Relation(_compared(lambda a, b: a >= b), "at least", "less than"),
    compatibility_pb2.BELOW: Relation(_compared(lambda a, b: a < b), "below", "not below"),
    compatibility_pb2.MULTIPLE_OF: Relation(
        _compared(lambda a, b: b != 0 and a % b == 0), "a multiple of", "no multiple of"
    ),
    compatibility_pb2.ONE_OF: Relation(lambda found, expected: _has(expected, found), "one of", "none of"),
    compatibility_pb2.SAME_SET: Relation(_same_set, "the same as", "not the same as"),
    compatibility_pb2.OVERLAP: Relation(
        lambda found, expected: any(_has(expected, value) for value in _listed(found)),
        "among",
        "none of",
    ),
}

NAMED: Mapping[str, Relation] = {
    "same_in_float32": Relation(_same_in_float32, "in float32 equal to", "not"),
}
"""Relations that rules ask for by name."""
