from __future__ import annotations

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
