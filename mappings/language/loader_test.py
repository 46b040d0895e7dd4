from pathlib import Path

import pytest

from mappings.language.errors import MappingErrors
from mappings.language.loader import families, formats_of, load_family, load_layout, parse_layout

FAMILY = """# A comment.
name: "toy" model_type: "toy"
include: ["common/base.textproto"]
config_root: "text"
atom { name: "e" size: "hidden" }
example { name: "a" config: '{"hidden": 4}' }
"""
BASE = """
config_root: ""
let { name: "wide" value: "2" }
tensor { id: "w" axes: "e" }
"""
LAYOUT = """family: "toy" format: "plain"
scope {
  include: "common/rules.textproto"
  rule { tensor: "w" name: "own" axes: "e" }
}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "toy/family.textproto": FAMILY,
        "toy/plain.textproto": LAYOUT,
        "twin/family.textproto": 'name: "twin" alias_of: "toy" model_type: "twin"',
        "common/base.textproto": BASE,
        "common/rules.textproto": '# r\n\nrule { tensor: "w" name: "first" axes: "e" }',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def issue(error: pytest.ExceptionInfo[MappingErrors]) -> tuple[str, str, str]:
    (found,) = error.value.issues
    return found.location, found.text, found.kind


def test_a_fragment_comes_before_the_file_that_includes_it(root: Path) -> None:
    family = load_family("toy", root)
    assert family.node.config_root == ("", "text")
    assert [let.name for let in family.node.let] == ["wide"]
    assert family.fragments == ("common/base.textproto",)


def test_every_node_has_its_file_and_line(root: Path) -> None:
    family = load_family("toy", root)
    assert family.node.atom[0].location == "family.textproto:5"
    assert family.node.tensor[0].location == "common/base.textproto:4"
    assert family.location == "family.textproto:2"
    rules = load_layout("toy", "plain", root).node.scope[0].rule
    assert [rule.location for rule in rules] == ["common/rules.textproto:3", "plain.textproto:4"]


def test_rules_of_a_fragment_come_before_those_of_the_scope(root: Path) -> None:
    assert [rule.name for rule in load_layout("toy", "plain", root).node.scope[0].rule] == ["first", "own"]


def test_an_alias_has_the_other_familys_content_and_layouts(root: Path) -> None:
    twin = load_family("twin", root)
    assert (twin.name, twin.folder, twin.node.model_type) == ("twin", "toy", ("twin",))
    assert twin.node.tensor == load_family("toy", root).node.tensor
    assert formats_of("twin", root) == ("plain",)
    assert load_layout("twin", "plain", root).family == "toy"


def test_families_are_listed_with_aliases(root: Path) -> None:
    assert families(root) == ("toy", "twin")


def test_an_edited_file_is_read_again(root: Path) -> None:
    load_family("toy", root)
    path = root / "toy/family.textproto"
    path.write_text(FAMILY.replace('"hidden"', '"hidden // 2"'))
    assert load_family("toy", root).node.atom[0].size == "hidden // 2"


def test_an_unknown_family_is_an_error_that_lists_the_known_ones(root: Path) -> None:
    with pytest.raises(MappingErrors) as error:
        load_family("toyy", root)
    assert issue(error)[1:] == ("there is no family 'toyy'; there are: toy, twin", "unknown")


@pytest.mark.parametrize("name", ["../toy", "toy/..", "", "/etc", "toy\n"])
def test_a_family_name_is_no_path(root: Path, name: str) -> None:
    with pytest.raises(MappingErrors):
        load_family(name, root)


@pytest.mark.parametrize("name", ["family", "../toy/plain", "plan"])
def test_an_unknown_format_is_an_error_that_lists_the_known_ones(root: Path, name: str) -> None:
    with pytest.raises(MappingErrors) as error:
        load_layout("toy", name, root)
    assert issue(error)[1:] == (f"family 'toy' has no layout '{name}'; it has: plain", "unknown")


def test_a_field_that_does_not_exist_is_an_error_with_its_line(root: Path) -> None:
    with pytest.raises(MappingErrors) as error:
        parse_layout('family: "toy"\nrule { tenser: "w" }', "x.textproto", "toy", root)
    location, text, kind = issue(error)
    assert (location, kind) == ("x.textproto:2", "syntax")
    assert "tenser" in text
    assert not text[0].isdigit()


def test_a_node_without_its_name_is_an_error_with_its_line(root: Path) -> None:
    with pytest.raises(MappingErrors) as error:
        parse_layout('family: "toy"\n\nrule { tensor: "w" }', "x.textproto", "toy", root)
    assert issue(error) == ("x.textproto:3", "rule without 'name'", "syntax")


def test_a_missing_fragment_is_an_error(root: Path) -> None:
    with pytest.raises(MappingErrors) as error:
        parse_layout('family: "toy"\nscope { include: "common/none.textproto" }', "x.textproto", "toy", root)
    assert issue(error) == ("x.textproto:2", "there is no fragment 'common/none.textproto'", "unknown")


def test_a_fragment_includes_no_fragment(root: Path) -> None:
    (root / "common/base.textproto").write_text(BASE + 'include: "common/rules.textproto"')
    with pytest.raises(MappingErrors) as error:
        load_family("toy", root)
    assert issue(error)[1] == "a family fragment has no 'include'"


def test_a_scope_fragment_holds_rules_only(root: Path) -> None:
    (root / "common/rules.textproto").write_text('at { name: "x" }')
    with pytest.raises(MappingErrors) as error:
        load_layout("toy", "plain", root)
    assert issue(error) == ("common/rules.textproto:1", "a scope fragment has no 'at'", "syntax")


def test_an_alias_has_nothing_of_its_own(root: Path) -> None:
    (root / "twin/family.textproto").write_text('name: "twin" alias_of: "toy" let { name: "x" value: "1" }')
    with pytest.raises(MappingErrors) as error:
        load_family("twin", root)
    assert issue(error)[1] == "an alias has no 'let'"


def test_an_alias_of_an_alias_is_an_error(root: Path) -> None:
    (root / "third").mkdir()
    (root / "third/family.textproto").write_text('name: "third" alias_of: "twin"')
    with pytest.raises(MappingErrors) as error:
        load_family("third", root)
    assert issue(error)[1] == "'twin' is an alias itself"
