"""The messages that the language promises: file, line and subject, all violations at once."""

import pytest

from mappings.language.errors import MappingErrors
from mappings.language.layout import bind_layout
from mappings.language.loader import parse_layout
from mappings.language.testing import family_of, layout_of

FAMILY = """name: "toy"
atom { name: "l" size: "layers" index: true }
atom { name: "e" size: "40" }
atom { name: "h" size: "8" }
atom { name: "k" size: "4" }
atom { name: "d" size: "6" }
atom { name: "v" size: "24" }
tensor { id: "embed" axes: "v e" }
group {
  id: "attn." axes: "l"
  tensor { id: "q" axes: "h d e" }
  tensor { id: "k" axes: "k d e" }
}
tensor { id: "norm" axes: "e" }
"""
META = """family: "toy"
format: "meta"
part: "{s}"
option { name: "shards" default: "1" }
atom { name: "ko" size: "min(shards, size(k))" }
atom { name: "t" size: "shards // size(ko)" }
atom { name: "s" is: "ko t" }
atom { name: "hs" size: "size(h) // shards" }  atom { of: "h" is: "s hs" }
atom { name: "ks" size: "size(k) // size(ko)" } atom { of: "k" is: "ko ks" }
rule { tensor: "embed" name: "embed" axes: "v e" copies: "s" }
rule { tensor: "norm" name: "norm" axes: "e" copies: "s" }
scope {
  at { name: "layers.{l}." }
  rule { tensor: "attn.q" name: "attention.wq.weight" axes: "(hs d) e" }
  rule { tensor: "attn.k" name: "attention.wk.weight" axes: "(ks d) e" copies: "t" }
}
"""
MAXTEXT = """family: "toy"
format: "maxtext"
option { name: "vocab_rows" default: "32" }
rule { tensor: "embed" name: "embed" axes: "[v | 0: vocab_rows - size(v)] e" }
rule { tensor: "norm" name: "norm" axes: "e" }
scope {
  at { name: "dense." map: "l = i" over: "i: 2" stack: "i" }
  at { name: "moe." map: "l = 2 + i" over: "i: layers - 2" stack: "i" }
  rule { tensor: "attn.q" name: "query" axes: "e h d" }
  rule { tensor: "attn.k" name: "key" axes: "e k d" }
}
"""


def messages(text: str, old: str = "", new: str = "", layers: int = 5, **options: object) -> list[str]:
    """What binding a changed layout says."""
    assert text.count(old) >= 1, old
    source = parse_layout(text.replace(old, new, 1), "meta.textproto" if text is META else "maxtext.textproto", "toy")
    with pytest.raises(MappingErrors) as error:
        bind_layout(family_of(FAMILY, {"layers": layers}), source, options)
    return [str(issue) for issue in error.value.issues]


def test_the_unchanged_layouts_bind() -> None:
    family = family_of(FAMILY, {"layers": 5})
    for shards in (1, 2, 4, 8):
        assert len(layout_of(family, META, shards=shards).arrays) == 12 * shards
    assert len(layout_of(family, MAXTEXT).arrays) == 6


def test_an_axis_without_place() -> None:
    assert messages(META, '"(hs d) e"', '"(hs d) v"') == [
        "meta.textproto:14: axis 'e' of tensor 'attn.q' has no place in this rule"
    ]


def test_an_axis_of_another_tensor() -> None:
    assert messages(META, '"(hs d) e"', '"(hs d) e v"') == [
        "meta.textproto:14: 'v' is not an axis of tensor 'attn.q' (say copies: if equal copies are meant)"
    ]


def test_a_remaining_digit_of_the_shards() -> None:
    assert messages(META, 'axes: "(ks d) e" copies: "t"', 'axes: "(ks d) e"', shards=8) == [
        "meta.textproto:15: 't' is not an axis of tensor 'attn.k' (say copies: if equal copies are meant)"
    ]


def test_indivisible_shards_name_the_digits() -> None:
    assert messages(META, shards=3) == [
        "meta.textproto:14: 'h' = 8 is not the product ko=3 * t=1 * hs=2",
        "meta.textproto:15: 'k' = 4 is not the product ko=3 * ks=1",
    ]


def test_a_name_that_two_rules_make() -> None:
    assert messages(META, "attention.wq", "attention.wk") == [
        "meta.textproto:15: name '0|layers.0.attention.wk.weight' is already made by the rule at meta.textproto:14"
    ]


def test_a_tensor_without_place_says_which_layer() -> None:
    assert messages(MAXTEXT, "i: layers - 2", "i: layers - 3") == [
        f"maxtext.textproto:1: 'attn.{name}' at {{'l': 4}} (family.textproto:{line}) has no place in layout 'maxtext' "
        "and is not declared absent"
        for name, line in (("q", 11), ("k", 12))
    ]


def test_several_layers_without_place_are_one_message() -> None:
    (first, _) = messages(MAXTEXT, "i: layers - 2", "i: 1")
    assert first.endswith("'attn.q' at {'l': 3} (family.textproto:11) has no place in layout 'maxtext' "
                          "and is not declared absent (and 1 more)")  # fmt: skip


def test_a_second_place_names_the_first() -> None:
    at = 'at { name: "again." map: "l = 3" over: "i: 1" }\n  rule { tensor: "attn.q"'
    assert messages(MAXTEXT, 'rule { tensor: "attn.q"', at) == [
        "maxtext.textproto:10: 'attn.q' at {'l': 3} already has a place, at maxtext.textproto:10",
        "maxtext.textproto:11: 'attn.k' at {'l': 3} already has a place, at maxtext.textproto:11",
    ]


def test_a_misspelt_symbol() -> None:
    assert messages(MAXTEXT, "vocab_rows - size(v)", "vocab_row - size(v)") == [
        "maxtext.textproto:4: 'vocab_row - size(v)': no config key, symbol or option named 'vocab_row'"
    ]


def test_an_unclosed_sum() -> None:
    assert messages(MAXTEXT, "size(v)] e", "size(v) e") == [
        "maxtext.textproto:4: cannot read 'vocab_rows - size(v) e' from 'e'"
    ]


def test_an_array_that_is_not_filled() -> None:
    (message, *_) = messages(MAXTEXT, "i: layers - 2", "i: layers - 1")
    assert message == ("maxtext.textproto:9: array 'moe.query' (4, 40, 8, 6) is filled with 5760 of 7680 elements")


def test_two_sites_with_one_prefix() -> None:
    assert messages(MAXTEXT, '"moe."', '"dense."')[0] == (
        "maxtext.textproto:9: name 'dense.query' would hold two parts of 'attn.q'; an index is missing in the name"
    )


def test_a_layer_that_the_name_forgets() -> None:
    assert messages(META, '"layers.{l}."', '"layers."') == [
        "meta.textproto:14: axis 'l' of tensor 'attn.q' has no place in this rule",
        "meta.textproto:15: axis 'l' of tensor 'attn.k' has no place in this rule",
    ]


def test_a_digit_that_the_name_forgets() -> None:
    (message, *_) = messages(MAXTEXT, 'name: "dense." map: "l = i" over: "i: 2" stack: "i"',
                             'name: "dense." map: "l = i" over: "i: 2"')  # fmt: skip
    assert message == (
        "maxtext.textproto:9: name 'dense.query' would hold two parts of 'attn.q'; an index is missing in the name"
    )


def test_two_values_of_the_digits_for_one_layer() -> None:
    messages_ = messages(MAXTEXT, 'map: "l = i" over: "i: 2"', 'map: "l = i // 2" over: "i: 2"')
    assert messages_ == ["maxtext.textproto:7: two places for l=0"]


def test_a_digit_in_the_name_and_in_an_axis() -> None:
    assert messages(MAXTEXT, '"query"', '"query{h}"') == ["maxtext.textproto:9: 'h' stands in the name and in an axis"]


def test_an_axis_that_appears_twice() -> None:
    assert messages(MAXTEXT, '"e h d"', '"e h d h"') == ["maxtext.textproto:9: axis 'h' appears twice"]


def test_a_digit_that_is_an_axis_of_the_tensor() -> None:
    (message, *_) = messages(MAXTEXT, 'map: "l = i" over: "i: 2" stack: "i"', 'map: "l = k" over: "k: 2" stack: "k"')
    assert message == "maxtext.textproto:7: digit 'k' of 'over' is an axis of tensor 'attn.k'"


def test_digits_without_a_map() -> None:
    (message, *_) = messages(MAXTEXT, 'map: "l = i" over: "i: 2"', 'over: "i: 2"')
    assert message == "maxtext.textproto:7: 'over' without a 'map' that uses 'i'"


def test_a_tensor_outside_the_mapped_layers() -> None:
    (message, *_) = messages(
        MAXTEXT, 'rule { tensor: "attn.q"', 'rule { tensor: "norm" name: "n" axes: "e" }\nrule { tensor: "attn.q"'
    )
    assert message == "maxtext.textproto:9: tensor 'norm' has no axis 'l'"


def test_unknown_tensors_and_atoms() -> None:
    assert messages(MAXTEXT, '"attn.q"', '"attn.qq"')[0] == "maxtext.textproto:9: unknown tensor 'attn.qq'"
    assert messages(MAXTEXT, '"e h d"', '"e h dd"') == ["maxtext.textproto:9: no atom named 'dd'"]


def test_copies_that_are_not_in_the_name() -> None:
    assert messages(MAXTEXT, '"e h d"', '"e h d" copies: "k"') == [
        "maxtext.textproto:9: copies 'k' are not in the name"
    ]


def test_rules_that_name_their_tensor_twice_or_not() -> None:
    both = messages(MAXTEXT, 'name: "key" axes: "e k d"', 'name: "key" axes: "e k [attn.k: d]"')
    assert both == ["maxtext.textproto:10: a rule with labelled branches has no 'tensor'"]
    assert messages(MAXTEXT, 'tensor: "norm" ', "") == [
        "maxtext.textproto:5: a rule without tensor",
        "maxtext.textproto:1: 'norm' (family.textproto:14) has no place in layout 'maxtext' and is not declared absent",
    ]


def test_all_violations_are_reported_at_once() -> None:
    text = MAXTEXT.replace('"e h d"', '"h d"').replace("vocab_rows - size(v)", "size(v) - vocab_rows")
    with pytest.raises(MappingErrors) as error:
        layout_of(family_of(FAMILY, {"layers": 5}), text.replace('rule { tensor: "norm" name: "norm" axes: "e" }', ""))
    assert [str(issue) for issue in error.value.issues] == [
        "layout.textproto:4: padding of -8 elements, from 'size(v) - vocab_rows'",
        "layout.textproto:9: axis 'e' of tensor 'attn.q' has no place in this rule",
        "layout.textproto:1: 'norm' (family.textproto:14) has no place in layout 'maxtext' and is not declared absent",
    ]


def test_the_text_of_several_issues_has_a_line_for_each() -> None:
    with pytest.raises(MappingErrors) as error:
        layout_of(family_of(FAMILY, {"layers": 5}), META, shards=3)
    assert str(error.value).count("\n") == 1
