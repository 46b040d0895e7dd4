import pytest

from mappings.language.axes import Axes, Branch, Sum, parse
from mappings.language.errors import LanguageSyntaxError


def test_axes_stand_for_themselves_and_brackets_join_factors() -> None:
    assert parse("(h d) e") == Axes((("h", "d"), ("e",)), None)
    assert parse("") == Axes((), None)
    assert parse("v 1 e") == Axes((("v",), (), ("e",)), None)


def test_a_sum_may_be_an_axis_or_a_factor() -> None:
    gate = Sum((Branch("moe.gate", ()), Branch("moe.up", ())))
    assert parse("x e (m [moe.gate: 1 | moe.up: 1])") == Axes((("x",), ("e",), ("m", gate)), (2, 1))
    halves = parse("[mlp.gate: f | mlp.up: f g] e")
    assert halves.sum == Sum((Branch("mlp.gate", ("f",)), Branch("mlp.up", ("f", "g"))))
    assert halves.tensors == ("mlp.gate", "mlp.up")
    assert halves.sum_at == (0, 0)


def test_padding_is_a_branch_with_an_expression() -> None:
    axes = parse("[v | 0: rows - size(v)] e")
    assert axes.sum == Sum((Branch("", ("v",)), Branch("", (), "rows - size(v)")))
    assert axes.tensors == ()
    assert parse("[v | 0: a || b[1] ? 1 : 2 | 0: 3]").sum == Sum(
        (Branch("", ("v",)), Branch("", (), "a || b[1] ? 1 : 2"), Branch("", (), "3"))
    )


@pytest.mark.parametrize(
    "text",
    [
        "(h d",
        "h)",
        "()",
        "[v",
        "[v | ]",
        "[]",
        "[v | 0 rows]",
        "[v | 0: ]",
        "[0: 3]",
        "[v | w]",
        "[a: v | w]",
        "[a: v | a: w]",
        "[a: v | [b: w]]",
        "[a: 1 | b: 1] [c: 1 | d: 1]",
        "2 e",
        "h.d e",
        "h, e",
        "[a: (v w)]",
    ],
)
def test_what_is_no_axis_expression_is_an_error_that_quotes_it(text: str) -> None:
    with pytest.raises(LanguageSyntaxError) as error:
        parse(text)
    assert f"'{text}'" in str(error.value)
