from __future__ import annotations

from tests.campaigns.maxtext_headers import differences


def test_equal_headers_have_no_differences() -> None:
    assert differences({"a": (2, 3)}, {"a": [2, 3]}) == []


def test_a_missing_an_added_and_a_turned_array_are_each_named() -> None:
    found = differences({"a": (2, 3), "b": (4,), "c": ()}, {"a": [3, 2], "c": [], "d": [5]})
    assert found == [
        "a: Recast (2, 3), MaxText (3, 2)",
        "b: Recast (4,), MaxText has none",
        "d: Recast has none, MaxText (5,)",
    ]
