"""How values relate."""

from __future__ import annotations

from typing import Any

import pytest

from recast_proto import compatibility_pb2
from validators.compatibility import relations


def _holds(relation: str, found: Any, expected: Any, name: str = "") -> bool:
    rule = compatibility_pb2.CompatibilityRule(relation=relation, relation_name=name)
    return relations.relation_of(rule).holds(found, expected)


@pytest.mark.parametrize(
    ("relation", "found", "expected"),
    [
        ("EQUAL", 1, 1.0),
        ("EQUAL", [1, "a", None], [1.0, "a", None]),
        ("EQUAL", {"a": 1, "b": {"c": True}}, {"b": {"c": True}, "a": 1}),
        ("AT_MOST", 3, 3),
        ("AT_LEAST", 3, 3),
        ("BELOW", 2, 3),
        ("MULTIPLE_OF", 6, 3),
        ("ONE_OF", "a", ["b", "a"]),
        ("ONE_OF", "a", "a"),
        ("SAME_SET", [1, 2, 2], [2, 1]),
        ("OVERLAP", ["a", "b"], ["b", "c"]),
    ],
)
def test_a_relation_holds(relation: str, found: Any, expected: Any) -> None:
    assert _holds(relation, found, expected)


@pytest.mark.parametrize(
    ("relation", "found", "expected"),
    [
        ("EQUAL", True, 1),
        ("EQUAL", 0, False),
        ("EQUAL", "1", 1),
        ("EQUAL", [1, 2], [2, 1]),
        ("EQUAL", {"a": 1}, {"a": 1, "b": None}),
        ("AT_MOST", 4, 3),
        ("AT_MOST", "3", 3),
        ("AT_LEAST", 2, 3),
        ("BELOW", 3, 3),
        ("MULTIPLE_OF", 7, 3),
        ("MULTIPLE_OF", 7, 0),
        ("ONE_OF", True, [1]),
        ("SAME_SET", [1], [1, 2]),
        ("SAME_SET", [1, 2, 3], [1, 2]),
        ("OVERLAP", ["a"], ["b"]),
        ("OVERLAP", [], ["b"]),
    ],
)
def test_a_relation_does_not_hold(relation: str, found: Any, expected: Any) -> None:
    assert not _holds(relation, found, expected)


@pytest.mark.parametrize(
    ("found", "expected", "holds"),
    [
        (9.999999747378752e-06, 1e-05, True),
        (1e-06, 1e-05, False),
        (500000, 500000.0, True),
        (1e300, 1e-05, False),
        ("1e-05", 1e-05, False),
        ("a", "a", True),
    ],
)
def test_numbers_may_be_the_same_in_float32(found: Any, expected: Any, holds: bool) -> None:
    assert _holds("NAMED", found, expected, "same_in_float32") is holds


def test_a_name_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(relations.UnknownRelationError, match="no relation 'similar'; known are: same_in_float32"):
        _holds("NAMED", 1, 1, "similar")


@pytest.mark.parametrize("relation", ["RELATION_UNSPECIFIED", "PRESENT", "ABSENT"])
def test_what_relates_no_values_is_told(relation: str) -> None:
    with pytest.raises(relations.UnknownRelationError, match=f"{relation} is no relation between values"):
        _holds(relation, 1, 1)
