import re

import pytest

from mappings.language.errors import LanguageSyntaxError
from mappings.language.expressions import (
    MAX_DEPTH,
    Binary,
    Call,
    Conditional,
    Item,
    Literal,
    Name,
    Size,
    Unary,
    names,
    parse,
    parse_map,
    parse_over,
    sizes,
)

A, B, C = Name("a"), Name("b"), Name("c")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("12", Literal(12)),
        ("'a b'", Literal("a b")),
        ("true", Literal(True)),
        ("null", Literal(None)),
        ("a.b.c", Name("a.b.c")),
        ("size(d)", Size("d")),
        ("min(a, b, 1)", Call("min", (A, B, Literal(1)))),
        ("a ?? b // c", Binary("??", A, Binary("//", B, C))),
        ("a + b * c", Binary("+", A, Binary("*", B, C))),
        ("a - b - c", Binary("-", Binary("-", A, B), C)),
        ("(a - b) * c", Binary("*", Binary("-", A, B), C)),
        ("a || b && c", Binary("||", A, Binary("&&", B, C))),
        ("a && b == c", Binary("&&", A, Binary("==", B, C))),
        ("a < b + 1", Binary("<", A, Binary("+", B, Literal(1)))),
        ("a ?? b || c", Binary("??", A, Binary("||", B, C))),
        ("a in b", Binary("in", A, B)),
        ("-a * b", Binary("*", Unary("-", A), B)),
        ("!a && b", Binary("&&", Unary("!", A), B)),
        ("!a[b]", Unary("!", Item(A, B))),
        ("a[b][c]", Item(Item(A, B), C)),
        ("a ? b : c", Conditional(A, B, C)),
        ("a ?? b ? b : c", Conditional(Binary("??", A, B), B, C)),
        ("a ? b : b ? a : c", Conditional(A, B, Conditional(B, A, C))),
        ("a?b:c", Conditional(A, B, C)),
        ("'in' == a", Binary("==", Literal("in"), A)),
    ],
)
def test_operators_bind_as_the_grammar_says(text: str, tree: object) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty expression"),
        ("a +", "'a +' ends too early"),
        ("a b", "cannot read 'a b' from 'b'"),
        ("(a", "ends too early"),
        ("a ? b", "ends too early"),
        ("a ? b c", "':' expected, not 'c'"),
        ("1.5", "cannot read '1.5'"),
        ("2x", "cannot read '2x'"),
        ("a = b", "cannot read '= b'"),
        ("a / b", "cannot read '/ b'"),
        ("'a", "cannot read"),
        ("sqrt(a)", "there is no function 'sqrt'"),
        ("starts(a)", "another number of arguments"),
        ("len(a, b)", "another number of arguments"),
        ("size(a.b)", "a name expected"),
        (")", "')' unexpected"),
        ("a ?? ", "ends too early"),
    ],
)
def test_what_is_no_expression_is_an_error_that_quotes_it(text: str, message: str) -> None:
    with pytest.raises(LanguageSyntaxError, match=re.escape(message)):
        parse(text)


@pytest.mark.parametrize("text", ["(" * 5000 + "a" + ")" * 5000, "-" * 5000 + "a", "a?" * 5000 + "a" + ":a" * 5000])
def test_deep_nesting_is_an_error_and_no_crash(text: str) -> None:
    with pytest.raises(LanguageSyntaxError, match="nests too deeply"):
        parse(text)


def test_nesting_within_the_limit_is_read() -> None:
    assert parse("(" * (MAX_DEPTH - 1) + "a" + ")" * (MAX_DEPTH - 1)) == A


def test_digits_of_a_map_may_have_commas_and_colons_in_their_sizes() -> None:
    assert parse_over("b: min(a, 2), j: a ? 1 : c") == (
        ("b", Call("min", (A, Literal(2)))),
        ("j", Conditional(A, Literal(1), C)),
    )
    assert parse_over("  ") == ()


@pytest.mark.parametrize("text", ["b", "b:", "b: 1,", "b: 1 j: 2", "b: 1, b: 2", "b.c: 1"])
def test_damaged_digit_lists_are_errors(text: str) -> None:
    with pytest.raises(LanguageSyntaxError):
        parse_over(text)


def test_a_map_has_an_atom_and_an_expression() -> None:
    assert parse_map("l = a + b") == ("l", Binary("+", A, B))
    assert parse_map("l=a == b") == ("l", Binary("==", A, B))


@pytest.mark.parametrize("text", ["l", "l == a", "a.b = c", "= a"])
def test_damaged_maps_are_errors(text: str) -> None:
    with pytest.raises(LanguageSyntaxError, match="cannot read map"):
        parse_map(text)


def test_names_are_found_without_what_follows_a_dot() -> None:
    tree = parse("a.x + size(d) ?? (b ? min(c, 'z') : e[f]) || !g")
    assert names(tree) == {"a", "b", "c", "e", "f", "g"}
    assert sizes(tree) == {"d"}
