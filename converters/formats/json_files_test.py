import os
from pathlib import Path

import pytest

from converters.formats import json_files
from converters.formats.json_files import JsonFault, is_count, is_text, parse_object, printable, read_object


def test_an_object_is_read() -> None:
    assert parse_object(b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[1]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1, "a": 1}', "appears twice"),
        (b'{"x": {"a": 1, "b": 2, "a": 3}}', "the key a appears twice"),
        (b'{"\xff": 1}', "not UTF-8 at byte 2"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": ' + b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
    ],
)
def test_what_is_not_one_plain_object_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(JsonFault, match=reason):
        parse_object(data)


def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "LIMIT", 10)
    path = tmp_path / "file"
    path.write_bytes(b'{"a": 1234}')
    with pytest.raises(JsonFault, match="11 bytes"):
        read_object(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(JsonFault, match="regular"):
        read_object(tmp_path / "pipe")


def test_a_lone_surrogate_is_no_text() -> None:
    assert is_text("é")
    assert not is_text("\ud800")
    assert not is_text(1)


@pytest.mark.parametrize("value", [True, False, -1, 1.0, "1", None, 2**63])
def test_only_integers_from_zero_up_are_counts(value: object) -> None:
    assert not is_count(value)


def test_the_largest_count_is_that_of_a_signed_word() -> None:
    assert is_count(0)
    assert is_count(2**63 - 1)


def test_a_name_with_control_characters_is_shown_escaped_and_short() -> None:
    assert printable("a\x1b[31m\ud800é") == "a\\x1b[31m\\ud800é"
    assert printable(["a", 1]) == "['a', 1]"
    assert len(printable("x" * 10_000)) == 200
