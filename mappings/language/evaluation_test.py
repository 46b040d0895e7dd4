import pytest

from mappings.language.errors import MappingErrors, MissingKeyError
from mappings.language.evaluation import shown
from mappings.language.scopes import Symbols

CONFIG: dict[str, object] = {
    "hidden": 40,
    "heads": 8,
    "nothing": None,
    "yes": True,
    "name": "llama3.1-8b",
    "layers": ["full", "sliding"],
    "rope": {"theta": 5, "deep": {"x": 1}},
    "ratio": 0.5,
    "zero": 0,
}


def value(text: str) -> object:
    return Symbols(CONFIG, ()).evaluate(text, "f:1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hidden // heads", 5),
        ("-hidden // 9", -5),
        ("-1 % 3", 2),
        ("2 + 3 * 4", 14),
        ("min(hidden, heads) + max(1, 2)", 10),
        ("len(layers) + len(name)", 13),
        ("layers[1]", "sliding"),
        ("layers[1] == 'sliding'", True),
        ("rope.deep.x", 1),
        ("rope['theta']", 5),
        ("'theta' in rope", True),
        ("'full' in layers", True),
        ("'x' in layers", False),
        ("starts(name, 'llama3.1') ? 'a' : 'b'", "a"),
        ("nothing == null", True),
        ("hidden != null", True),
        ("yes == 1", False),
        ("yes in layers", False),
        ("!zero && !nothing", True),
        ("yes || 1 // 0", True),
        ("zero && 1 // 0", False),
        ("3 < 4 == true", True),
    ],
)
def test_values(text: str, expected: object) -> None:
    assert value(text) == expected
    assert type(value(text)) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gone ?? hidden // heads", 5),
        ("nothing ?? 3", 3),
        ("rope.gone ?? rope.theta ?? 1", 5),
        ("rope.theta.deeper ?? 7", 7),
        ("nothing.x ?? 7", 7),
        ("gone + 1 ?? 7", 7),
        ("(gone ? 1 : 2) ?? 7", 7),
        ("rope['gone'] ?? 7", 7),
        ("zero ?? 7", 0),
        ("gone ?? null ?? 7", 7),
    ],
)
def test_what_is_missing_or_null_has_the_other_value(text: str, expected: object) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 // zero ?? 7", "division by zero"),
        ("1 % zero", "division by zero"),
        ("nothing + 1 ?? 7", "null operand of '+'"),
        ("name * 2", "operand of '*' is 'llama3.1-8b', not an integer"),
        ("yes + 1", "operand of '+' is true, not an integer"),
        ("ratio < 1", "operand of '<' is 0.5, not an integer"),
        ("layers[2]", "position 2 is outside a list of 2"),
        ("layers[-1]", "position -1 is outside a list of 2"),
        ("hidden[0]", "40 has no positions"),
        ("1 in hidden", "'in' needs a list, not 40"),
        ("len(hidden)", "len of 40"),
        ("starts(hidden, 'a')", "starts() needs two texts, not 40 and 'a'"),
        ("name ? 1 : 2", "a condition is 'llama3.1-8b', neither true nor false"),
        ("size(d)", "no atom named 'd'"),
    ],
)
def test_errors_are_not_swallowed_and_quote_the_expression(text: str, message: str) -> None:
    with pytest.raises(MappingErrors) as error:
        value(text)
    assert str(error.value) == f"f:1: '{text}': {message}"
    assert not isinstance(error.value, MissingKeyError)


def test_a_missing_key_is_an_error_with_the_key() -> None:
    with pytest.raises(MissingKeyError) as error:
        value("hidden + rope.gone")
    (issue,) = error.value.issues
    assert (issue.kind, issue.key) == ("missing_key", "rope.gone")
    assert str(issue) == "f:1: 'hidden + rope.gone': no config key, symbol or option named 'rope.gone'"


def test_shown_values_are_short() -> None:
    assert shown("x" * 1000).endswith("...")
    assert len(shown("x" * 1000)) == 60
    assert shown(10**5000) == "an integer of 16610 bits"
    assert shown(None) == "null"
