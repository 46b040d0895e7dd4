"""Tests of strict JSON."""

from __future__ import annotations

import pytest

from mappings import strict_json


def test_plain_json_has_the_values_that_json_gives() -> None:
    text = '{"a": [1, -2.5e3, true, null, "\\u00e9"], "b": {"a": 1e-05}}'
    assert strict_json.loads(text) == {"a": [1, -2500.0, True, None, "é"], "b": {"a": 1e-05}}


def test_bytes_are_utf_8() -> None:
    assert strict_json.loads('"é"'.encode()) == "é"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1 column 1"),
        ("{", "line 1"),
        ('{"a": 1,}', "line 1"),
        ('{"a": 1} x', "Extra data"),
        ('{"a": 1, "a": 1}', "'a' stands twice"),
        ('{"o": {"b": 1, "b": 2}}', "'b' stands twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": Infinity}', "Infinity is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e999}', "1e999 is too large"),
        ("[" * 200_000, "nested too deeply"),
        ("1" * 5000, "integer"),
        ("\ufeff{}", "BOM"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
    ],
)
def test_what_json_does_not_define_is_refused(content: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        strict_json.loads(content)
