from pathlib import Path

import pytest

from mappings.language.lint import lint_all, lint_family
from mappings.language.loader import families

FAMILY = """name: "toy"
include: "common/base.textproto"
let { name: "wide" value: "hidden" }
atom { name: "f" size: "inner" }
tensor { id: "w" axes: "e f" }
tensor { id: "b" axes: "f" when: "biased ?? false" }
tensor { id: "twin" axes: "e f" }
tie { tensor: "twin" to: "w" when: "tied ?? false" }
group { axes: "l" tensor { id: "q" axes: "h d e" } }
example { name: "a" config: '{"layers": 7, "hidden": 5, "inner": 4, "biased": true}' }
example { name: "t" config: '{"layers": 7, "hidden": 5, "inner": 4, "tied": true}' }
"""
BASE = """atom { name: "l" size: "layers" index: true }
atom { name: "e" size: "wide" }
atom { name: "h" size: "4" }
atom { name: "d" size: "6" }
tensor { id: "norm" axes: "e" }
tensor { id: "unused" axes: "e" when: "false" }
"""
PLAIN = """family: "toy" format: "plain"
scope { include: "common/rules.textproto" }
rule { tensor: "w" name: "w" axes: "e f" }
rule { tensor: "b" name: "b" axes: "f" }
rule { tensor: "twin" name: "twin" axes: "e f" }
scope {
  at { name: "{l}." }
  rule { tensor: "q" name: "q" axes: "(h d) e" }
}
ignore { name: "step" reason: "a count" }
"""
RULES = """rule { tensor: "norm" name: "norm" axes: "e" }
"""
STACKED = """family: "toy" format: "stacked" stack_axis: "0"
option { name: "scan" value: ["true", "false"] default: "true" }
option { name: "rows" default: "size(f)" tried: ["6"] }
label { name: "kind" atom: "j" value: ["one", "two"] }
mirror { name: "mu" root: "mu." }
scope { include: "common/rules.textproto" }
rule { tensor: "w" name: "w" axes: "e [f | 0: rows - size(f)]" }
rule { tensor: "twin" name: "twin" axes: "f e" when: "!(tied ?? false)" }
scope {
  at { when: "scan" name: "s{kind}" map: "l = 2*b + j" over: "b: layers // 2, j: 2" stack: "b" }
  at { when: "scan" name: "rest" map: "l = 2*(layers // 2) + i" over: "i: layers % 2" }
  at { when: "!scan" name: "{l}." }
  rule { tensor: "q" name: "q" axes: "e h d" op { scale { of: "size(d)" half_powers: -1 } } }
}
absent { tensor: "b" reason: "it has none" refill: ZERO }
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in {
        "toy/family.textproto": FAMILY,
        "toy/plain.textproto": PLAIN,
        "toy/stacked.textproto": STACKED,
        "twin/family.textproto": 'name: "twin" alias_of: "toy" model_type: "twin"',
        "common/base.textproto": BASE,
        "common/rules.textproto": RULES,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def change(root: Path, file: str, old: str, new: str) -> None:
    path = root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def messages(root: Path) -> list[str]:
    return [str(issue) for issue in lint_family("toy", root)]


def test_a_clean_family_has_no_issues(root: Path) -> None:
    assert messages(root) == []


Change = tuple[str, str, str]
"""(file, what stands there, what replaces it)."""

TWIN = 'tensor: "twin" name: "twin"'
CASES: dict[str, tuple[Change, str]] = {
    "S1 axes": (("plain", "(h d) e", "(h d e"), "plain.textproto:8: '(' is not closed in '(h d e' [S1]"),
    "S1 condition": (("stacked", "!scan", "!scan &&"), "stacked.textproto:12: '!scan &&' ends too early [S1]"),
    "S1 name": (("stacked", '"{l}."', '"{l."'), "stacked.textproto:12: unbalanced braces in '{l.' [S1]"),
    "S1 map": (("stacked", '"l = 2*b + j"', '"2*b"'), "stacked.textproto:10: cannot read map '2*b'"),
    "S1 digits": (("stacked", "i: layers % 2", "i layers"), "stacked.textproto:11: ':' expected, not 'layers'"),
    "S1 JSON": (
        ("family", '"layers": 7, ', '"layers": 7; '),
        "family.textproto:10: the config of example 'a' is no JSON",
    ),
    "S1 object": (("family", "'{", "'[{"), "family.textproto:10: the config of example 'a' is no JSON"),
    "S1 family": (
        ("plain", '"toy"', '"toi"'),
        "plain.textproto:1: the layout says family 'toi' in the folder of 'toy'",
    ),
    "S1 format": (("plain", '"plain"', '"p"'), "plain.textproto:1: the layout says format 'p' in the file of 'plain'"),
    "S2 symbol": (
        ("family", "let {", 'let { name: "lost" value: "1" } let {'),
        "family.textproto:3: symbol 'lost' is never used [S2]",
    ),
    "S2 atom": (
        ("family", "atom {", 'atom { name: "lost" size: "1" } atom {'),
        "family.textproto:4: atom 'lost' is never used [S2]",
    ),
    "S2 option": (
        ("stacked", "label {", 'option { name: "lost" default: "1" } label {'),
        "stacked.textproto:4: option 'lost' is never used [S2]",
    ),
    "S2 label": (("stacked", "s{kind}", "s{j}"), "stacked.textproto:4: label 'kind' is never used [S2]"),
    "S3 rule": (("plain", TWIN, TWIN.replace("twin", "twins", 1)), "plain.textproto:5: unknown tensor 'twins' [S3]"),
    "S3 absent": (("stacked", 'tensor: "b"', 'tensor: "z*"'), "stacked.textproto:15: unknown tensor 'z*' [S3]"),
    "S3 tie": (("family", 'to: "w"', 'to: "ww"'), "family.textproto:8: unknown tensor 'ww' [S3]"),
    "S4 rule": (
        ("plain", "ignore", 'rule { tensor: "b" name: "b2" axes: "f" when: "false" }\nignore'),
        "plain.textproto:10: rule 'b2' places nothing in any example [S4]",
    ),
    "S4 site": (
        ("stacked", "  rule {", '  at { when: "false" name: "x" }\n  rule {'),
        "stacked.textproto:13: nothing lies at 'x' in any example [S4]",
    ),
    "S4 absent": (
        ("stacked", "absent", 'absent { tensor: "w" when: "false" reason: "x" }\nabsent'),
        "stacked.textproto:15: absent 'w' concerns nothing in any example [S4]",
    ),
    "S5 absent": (("stacked", '"it has none"', '" "'), "stacked.textproto:15: absent 'b' gives no reason [S5]"),
    "S5 ignore": (("plain", ' reason: "a count"', ""), "plain.textproto:10: ignore 'step' gives no reason [S5]"),
    "S6 listed": (
        (
            "stacked",
            "label {",
            'option { name: "m" value: ["0", "1"] default: "0" } let { name: "n" value: "m" } label {',
        ),
        "stacked.textproto:4: option m=0 makes no difference in any example [S6]",
    ),
    "S6 tried": (
        ("stacked", 'tried: ["6"]', 'tried: ["4"]'),
        "stacked.textproto:3: option rows=4 makes no difference in any example [S6]",
    ),
    "B1 none": (
        ("plain", 'rule { tensor: "w" name: "w" axes: "e f" }', ""),
        "plain.textproto:1: 'w' (family.textproto:5) has no place in layout 'plain'",
    ),
    "B1 short": (
        ("stacked", "i: layers % 2", "i: 0"),
        "stacked.textproto:1: 'q' at {'l': 6} (family.textproto:9) has no",
    ),
    "B1 twice": (("stacked", "b: layers // 2", "b: 4"), "stacked.textproto:13: 'q' at {'l': 6} already has a place"),
    "B2": (("plain", TWIN, TWIN.replace('name: "twin"', 'name: "w"')), "plain.textproto:5: name 'w' is already made"),
    "B3": (("stacked", '"rest"', '"sone"'), "stacked.textproto:13: name 'sone"),
    "B4": (
        ("stacked", "b: layers // 2", "b: 4"),
        "stacked.textproto:13: array 'stwoq' (4, 5, 4, 6) is filled with 360",
    ),
    "B5": (("plain", '"(h d) e"', '"(h d)"'), "plain.textproto:8: axis 'e' of tensor 'q' has no place in this rule"),
    "B6": (("stacked", "rows - size(f)", "rows - 5"), "stacked.textproto:7: padding of -1 elements, from 'rows - 5'"),
    "B6 tried": (("stacked", 'tried: ["6"]', 'tried: ["2"]'), "stacked.textproto:7: padding of -2 elements"),
    "B7 tensor": (
        ("family", 'tensor { id: "b"', 'tensor { id: "c" axes: "e" when: "false" } tensor { id: "b"'),
        "family.textproto:6: tensor 'c' is in no example [B7]",
    ),
    "B7 tie": (("family", ', "tied": true', ""), "family.textproto:8: the tie of 'twin' holds in no example [B7]"),
    "B8": (
        ("plain", "ignore", 'mirror { name: "mu" root: "m." }\nignore'),
        "stacked.textproto:5: mirror 'mu' of 'q' has other operations in 'plain' [B8]",
    ),
}


@pytest.mark.parametrize(("change_", "expected"), CASES.values(), ids=CASES)
def test_each_rule_finds_its_case(root: Path, change_: Change, expected: str) -> None:
    file, old, new = change_
    change(root, f"toy/{file}.textproto", old, new)
    found = messages(root)
    assert any(message.startswith(expected) for message in found), found


def test_a_family_without_example_is_an_issue(root: Path) -> None:
    path = root / "toy/family.textproto"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("example")))
    assert "family.textproto:1: a family without an example [B7]" in messages(root)


def test_equal_sizes_in_all_examples_are_an_issue(root: Path) -> None:
    path = root / "toy/family.textproto"
    path.write_text(path.read_text().replace('"inner": 4', '"inner": 5'))
    found = messages(root)
    assert "family.textproto:5: no example has axes of distinct sizes above 1 for tensor 'w' [B7]" in found
    assert not any("'q'" in message for message in found)


def test_sizes_of_one_are_an_issue(root: Path) -> None:
    path = root / "toy/family.textproto"
    path.write_text(path.read_text().replace('"inner": 4', '"inner": 1'))
    assert any("for tensor 'b' [B7]" in message for message in messages(root))


def test_axes_of_one_expression_need_no_distinct_sizes(root: Path) -> None:
    change(root, "toy/family.textproto", "atom {", 'atom { name: "o" size: "wide" } atom {')
    change(root, "toy/family.textproto", '"b" axes: "f"', '"b" axes: "o e"')
    change(root, "toy/plain.textproto", '"b" axes: "f"', '"b" axes: "o e"')
    assert messages(root) == []


def test_a_remainder_that_no_example_has_is_an_issue(root: Path) -> None:
    path = root / "toy/family.textproto"
    path.write_text(path.read_text().replace('"layers": 7', '"layers": 8'))
    assert messages(root) == ["stacked.textproto:11: nothing lies at 'rest' in any example [S4]"]


def test_values_to_try_must_suit_one_example_only(root: Path) -> None:
    change(root, "toy/stacked.textproto", 'tried: ["6"]', 'tried: ["6", "4"]')
    path = root / "toy/family.textproto"
    path.write_text(path.read_text().replace('"inner": 4, "tied"', '"inner": 9, "tied"'))
    change(root, "toy/stacked.textproto", 'tried: ["6", "4"]', 'tried: ["6", "9"]')
    assert messages(root) == []


def test_all_issues_are_found_at_once(root: Path) -> None:
    change(root, "toy/stacked.textproto", 'reason: "it has none"', 'reason: ""')
    change(root, "toy/plain.textproto", '"(h d) e"', '"(h d)"')
    change(root, "toy/plain.textproto", '"e f" }\nrule { tensor: "b"', '"e" }\nrule { tensor: "b"')
    found = messages(root)
    assert [message.split(":")[0] for message in found] == ["stacked.textproto", "plain.textproto", "plain.textproto"]


def test_parts_of_fragments_may_lie_idle_in_one_family_but_not_in_all(root: Path) -> None:
    assert messages(root) == []
    assert [str(issue) for issue in lint_all(root)] == [
        "common/base.textproto:6: this has no effect in any example of any family [S4]"
    ]


def test_a_tie_of_a_fragment_must_hold_in_some_family(root: Path) -> None:
    tie = 'tie { tensor: "twin" to: "w" when: "tied ?? false" }'
    change(root, "toy/family.textproto", tie, "")
    (root / "common/base.textproto").write_text(BASE + tie)
    idle = "common/base.textproto:7: this has no effect in any example of any family [S4]"
    assert idle not in [str(issue) for issue in lint_all(root)]
    change(root, "toy/family.textproto", ', "tied": true', "")
    assert messages(root) == []
    assert idle in [str(issue) for issue in lint_all(root)]


def test_a_fragment_that_no_family_includes_is_an_issue(root: Path) -> None:
    (root / "common/lost.textproto").write_text(RULES)
    assert "common/lost.textproto:1: no family includes this fragment [S2]" in [str(i) for i in lint_all(root)]


def test_a_file_that_cannot_be_read_is_one_issue(root: Path) -> None:
    (root / "toy/plain.textproto").write_text("rule {")
    found = lint_family("toy", root)
    assert [issue.location for issue in found if issue.kind == "syntax"] == ["plain.textproto:1"]


def test_the_families_of_this_repository_are_clean() -> None:
    assert families()
    assert [str(issue) for issue in lint_all()] == []
