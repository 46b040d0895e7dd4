from mappings.language.positions import field_lines


def test_fields_are_numbered_within_their_message() -> None:
    lines = field_lines('name: "a"\natom { name: "x" }\natom {\n  name: "y" size: "2"\n}\n')
    assert lines["name[0]"] == 1
    assert lines["atom[0]"] == 2
    assert lines["atom[1]"] == 3
    assert lines["atom[1].name[0]"] == 4
    assert lines["atom[1].size[0]"] == 4


def test_nested_messages_have_dotted_paths() -> None:
    lines = field_lines(
        'scope {\n  at { name: "p" }\n  rule { op { scale { of: "d" } } }\n  rule: <\n    name: "n" >\n}\n'
    )
    assert lines["scope[0].rule[0].op[0].scale[0]"] == 3
    assert lines["scope[0].rule[1]"] == 4
    assert lines["scope[0].rule[1].name[0]"] == 5


def test_list_elements_are_numbered_and_have_their_own_lines() -> None:
    lines = field_lines('value: [\n  "a",\n  "b"\n]\nvalue: "c"\natom: [ { name: "x" },\n { name: "y" } ]\n')
    assert [lines[f"value[{i}]"] for i in range(3)] == [2, 3, 5]
    assert lines["atom[1]"] == 7
    assert lines["atom[1].name[0]"] == 7


def test_comments_and_quoted_marks_are_no_structure() -> None:
    lines = field_lines('# { name: 1\nname: \'a "{ # b\' # }\natom {\n  doc: "it\'s } { ok\\" {"\n}\nlet { }\n')
    assert lines["name[0]"] == 2
    assert lines["atom[0].doc[0]"] == 4
    assert lines["let[0]"] == 6


def test_adjacent_strings_are_one_value() -> None:
    lines = field_lines('doc: "a"\n  "b"\n  "c"\nname: "d"\ndoc: "e"\n')
    assert lines["name[0]"] == 4
    assert lines["doc[1]"] == 5
    lines = field_lines('value: ["a"\n "b",\n "c"]\nname: "d"')
    assert (lines["value[0]"], lines["value[1]"]) == (1, 3)
    assert "value[2]" not in lines


def test_numbers_and_words_are_values() -> None:
    lines = field_lines("may_be_empty: true\nhalf_powers: -1\ncopy_rule: FIRST\nname: 'x'\n")
    assert (lines["half_powers[0]"], lines["copy_rule[0]"], lines["name[0]"]) == (2, 3, 4)


def test_the_message_itself_begins_at_the_first_field() -> None:
    assert field_lines("# text\n\nname: 'a'\n")[""] == 3
    assert field_lines("")[""] == 1
