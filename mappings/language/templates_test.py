import pytest

from mappings.language.errors import LanguageSyntaxError, MappingErrors
from mappings.language.expressions import Literal
from mappings.language.naming import Namer
from mappings.language.nodes import Atom, Label, Let
from mappings.language.scopes import Symbols
from mappings.language.templates import Hole, Symbol, parse


def test_texts_holes_and_symbols() -> None:
    assert parse("a.{l}.{$root}b{(x y)+1}{kind}") == (
        "a.",
        Hole(("l",), None, "l"),
        ".",
        Symbol("root"),
        "b",
        Hole(("x", "y"), Literal(1), "(x y)+1"),
        Hole(("kind",), None, "kind"),
    )
    assert parse("") == ()
    assert parse("{ l + 1 }") == (Hole(("l",), Literal(1), "l + 1"),)


@pytest.mark.parametrize("text", ["{", "a}", "{}", "{l", "{{l}}", "{l-1}", "{(l)", "{$}", "{$a.b}", "{a b}", "{l+}"])
def test_what_is_no_template_is_an_error(text: str) -> None:
    with pytest.raises(LanguageSyntaxError):
        parse(text)


@pytest.fixture
def namer() -> Namer:
    symbols = Symbols({"dotted": "model."}, ())
    symbols.define(Let(location="s:1", name="three", value="3"))
    symbols.define(Let(location="s:2", name="flag", value="1 == 1"))
    symbols.define(Let(location="s:3", name="many", value="null"))
    for name, size, is_ in (("l", "4", ""), ("x", "2", ""), ("y", "3", ""), ("s", "", "x y")):
        symbols.add_atom(Atom(location="a:1", name=name, size=size, is_=is_))
    label = Label(location="b:1", name="kind", atom="x", value=("local", "global"))
    short = Label(location="b:2", name="short", atom="y", value=("a", "b"))
    return Namer(symbols, {"kind": label, "short": short})


@pytest.mark.parametrize(
    ("template", "digits", "name"),
    [
        ("layers.{l}.w", {"l": 2}, "layers.2.w"),
        ("{s}", {"x": 1, "y": 2}, "5"),
        ("{(y x)}", {"x": 1, "y": 2}, "5"),
        ("{(y x)+three * 2}", {"x": 1, "y": 2}, "11"),
        ("{kind}", {"x": 1}, "global"),
        ("{$dotted}{$three}{$flag}", {}, "model.3true"),
        ("{b}", {"b": 6}, "6"),
    ],
)
def test_names_print_mixed_radix_values_words_and_symbols(
    namer: Namer, template: str, digits: dict[str, int], name: str
) -> None:
    bound = namer.bind(((template, "f:1"),), {"b": 7})
    assert bound.text(digits) == name
    assert bound.digits.keys() == digits.keys()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{q}", "f:1: no atom named 'q'"),
        ("{$q}", "f:1: no option or symbol 'q'"),
        ("{$many}", "f:1: 'many' in a name is neither text nor number"),
        ("{short}", "b:2: label 'short' has 2 words for the 3 values of 'y'"),
        ("{kind+1}", "f:1: label 'kind' stands alone in its placeholder"),
        ("{l", "f:1: unbalanced braces in '{l'"),
    ],
)
def test_names_of_what_does_not_exist_are_errors(namer: Namer, template: str, message: str) -> None:
    with pytest.raises(MappingErrors) as error:
        namer.bind(((template, "f:1"),), {})
    assert str(error.value) == message


def test_a_part_is_joined_by_a_mark_unless_it_is_empty(namer: Namer) -> None:
    assert namer.bind_full(("{s}", "f:1"), (("w", "f:2"),), {}).text({"x": 1, "y": 0}) == "3|w"
    assert namer.bind_full(("", "f:1"), (("w", "f:2"),), {}).text({}) == "w"
