from __future__ import annotations

import pytest
import yaml

from converters.kubernetes import yaml_text


def test_nested_data_is_indented_and_text_that_means_something_is_quoted() -> None:
    document: dict[str, yaml_text.Value] = {
        "kind": "Job",
        "empty": {},
        "spec": {"count": 1, "yes": True, "on": "no", "text": ["1.5", "a: b", "#", "plain-word", "é\n"]},
        "rules": [{"name": "a", "values": [1, 2]}, {"name": "b"}],
    }
    assert yaml_text.render([document, {"a": "b"}], ["remark"]) == (
        "# remark\n"
        "kind: Job\n"
        "empty: {}\n"
        "spec:\n"
        "  count: 1\n"
        '  "yes": true\n'
        '  "on": "no"\n'
        "  text:\n"
        '    - "1.5"\n'
        '    - "a: b"\n'
        '    - "#"\n'
        "    - plain-word\n"
        '    - "\\u00e9\\n"\n'
        "rules:\n"
        "  - name: a\n"
        "    values:\n"
        "      - 1\n"
        "      - 2\n"
        "  - name: b\n"
        "---\n"
        "a: b\n"
    )


_SURROGATES = range(0xD800, 0xE000)


def test_every_character_is_read_as_it_was() -> None:
    plane = [chr(code) for code in range(0x10000) if code not in _SURROGATES]
    beyond = [chr(code) for code in range(0x10000, 0x110000, 0x101)]
    everything = "".join([*plane, *beyond, "\U0001f600", chr(0x10FFFF)])
    text = yaml_text.render([{"all": everything, "each": plane[:0x300], "emoji/\U0001f600": "a"}])
    assert yaml.safe_load(text) == {"all": everything, "each": plane[:0x300], "emoji/\U0001f600": "a"}
    assert text.isascii()


@pytest.mark.parametrize("text", ["\ud83d", "a\udcff", "\ude00\ud83d"])
def test_what_no_utf8_can_hold_is_refused(text: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        yaml_text.render([{"a": text}])
