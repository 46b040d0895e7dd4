import pytest

from mappings.language.errors import MappingErrors, MissingKeyError
from mappings.language.limits import MAX_SIZE
from mappings.language.nodes import Atom, Let
from mappings.language.scopes import Symbols


def symbols(config: dict[str, object] | None = None, **lets: str) -> Symbols:
    made = Symbols(config or {}, ())
    for line, (name, value) in enumerate(lets.items(), 1):
        made.define(Let(location=f"s:{line}", name=name, value=value))
    return made


def with_atoms(made: Symbols, **atoms: str) -> Symbols:
    for line, (name, text) in enumerate(atoms.items(), 1):
        composite = text.startswith("is ")
        size, is_ = ("", text[3:]) if composite else (text, "")
        made.add_atom(Atom(location=f"a:{line}", name=name, size=size, is_=is_))
    return made


def test_names_are_looked_up_from_the_inside_out() -> None:
    family = symbols({"x": "config", "y": "config", "z": "config"}, x="'family'", y="'family'", o="'family'")
    layout = Symbols({"x": "config", "y": "config", "z": "config"}, (), family)
    layout.define(Let(location="l:1", name="x", value="'layout'"))
    layout.define_options(["o"], lambda name: "option")
    assert [layout.evaluate(name, "f:1") for name in "xyzo"] == ["layout", "family", "config", "option"]
    assert layout.evaluate("x", "f:1", {"x": 3}) == 3
    assert layout.evaluate("o", "f:1", {"o": 3}) == 3


def test_config_roots_are_tried_in_order() -> None:
    config: dict[str, object] = {"text": {"a": 1}, "a": 2, "b": 3}
    made = Symbols(config, ("text", ""))
    assert (made.lookup("a"), made.lookup("b")) == (1, 3)


def test_a_symbol_whose_key_is_missing_counts_as_missing() -> None:
    made = symbols(inner="gone + 1", outer="inner ?? 5")
    assert made.evaluate("outer", "f:1") == 5
    with pytest.raises(MissingKeyError) as error:
        made.evaluate("inner", "f:1")
    assert error.value.issues[0].location == "s:1"


def test_members_of_a_symbol_that_is_an_object() -> None:
    made = symbols({"vision_config": {"size": 3}}, vision="vision_config ?? null")
    assert made.evaluate("vision.size", "f:1") == 3
    assert made.evaluate("vision.gone ?? 4", "f:1") == 4


def test_a_symbol_that_needs_itself_is_an_error_that_names_the_cycle() -> None:
    for lets, cycle in (({"a": "a"}, "a -> a"), ({"a": "b + 1", "b": "c", "c": "a"}, "a -> b -> c -> a")):
        with pytest.raises(MappingErrors, match="defined by itself") as error:
            symbols({}, **lets).evaluate("a", "f:1")
        assert cycle in str(error.value)
        assert error.value.issues[0].location.startswith("s:")


def test_a_cycle_is_found_behind_a_default() -> None:
    with pytest.raises(MappingErrors, match="defined by itself"):
        symbols(a="a ?? 1").evaluate("a", "f:1")


def test_sizes_that_need_each_other_are_an_error_that_names_the_cycle() -> None:
    made = with_atoms(symbols(), a="size(b)", b="size(a) + 1")
    with pytest.raises(MappingErrors) as error:
        made.size("a", "f:1")
    assert "size(a) -> size(b) -> size(a)" in str(error.value)


def test_an_atom_made_of_itself_is_an_error_that_names_the_cycle() -> None:
    made = with_atoms(symbols(), a="is b c", b="is a", c="2")
    with pytest.raises(MappingErrors) as error:
        made.expand("a", "f:1")
    assert "a -> b -> a" in str(error.value)


def test_composites_expand_major_first_and_multiply() -> None:
    made = with_atoms(symbols(), p="2", r="3", d="is p r", k="4", g="is k d")
    assert made.expand("g", "f:1") == ("k", "p", "r")
    assert made.size("g", "f:1") == 24


def test_a_layouts_atom_shadows_the_familys() -> None:
    family = with_atoms(symbols(), p="2", r="3", d="is p r")
    layout = with_atoms(Symbols({}, (), family), d="is r p")
    assert layout.expand("d", "f:1") == ("r", "p")
    assert family.expand("d", "f:1") == ("p", "r")
    assert layout.size("d", "f:1") == 6


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("0", "has size 0, from '0'"),
        ("-3", "has size -3, from '-3'"),
        ("true", "has size true"),
        ("'8'", "has size '8'"),
        ("null", "has size null"),
        ("f", "has size 2.0, from 'f'"),
        ("big", "more than the limit"),
    ],
)
def test_a_size_that_is_no_size_is_an_error(size: str, message: str) -> None:
    made = with_atoms(symbols({"f": 2.0, "big": MAX_SIZE + 1}), a=size)
    with pytest.raises(MappingErrors) as error:
        made.size("a", "f:1")
    assert str(error.value).startswith("a:1: atom 'a' ")
    assert message in str(error.value)


def test_an_atom_may_be_empty_if_it_says_so() -> None:
    made = symbols()
    made.add_atom(Atom(location="a:1", name="x", size="0", may_be_empty=True))
    assert made.size("x", "f:1") == 0


def test_an_unknown_atom_is_an_error() -> None:
    with pytest.raises(MappingErrors, match="f:1: no atom named 'q'"):
        symbols().expand("q", "f:1")


@pytest.mark.parametrize(
    "atom",
    [
        Atom(location="a:1", name="x"),
        Atom(location="a:1", name="x", size="2", is_="y"),
        Atom(location="a:1", size="2"),
        Atom(location="a:1", of="h", name="x", is_="a b"),
        Atom(location="a:1", of="h"),
    ],
)
def test_an_atom_has_one_definition(atom: Atom) -> None:
    with pytest.raises(MappingErrors, match="a:1: "):
        symbols().add_atom(atom)


def test_a_second_definition_is_an_error() -> None:
    made = with_atoms(symbols(a="1"), x="2")
    with pytest.raises(MappingErrors, match="atom 'x' defined twice"):
        made.add_atom(Atom(location="a:2", name="x", size="3"))
    with pytest.raises(MappingErrors, match="symbol 'a' defined twice"):
        made.define(Let(location="s:2", name="a", value="2"))


def test_an_atom_whose_condition_does_not_hold_does_not_exist() -> None:
    made = symbols()
    made.add_atom(Atom(location="a:1", name="x", size="2", when="1 == 2"))
    assert made.atom("x") is None
