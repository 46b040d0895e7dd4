"""What binding makes of each feature of a layout: names, shapes and places."""

import re

import pytest

from mappings.language.arrays import BoundOp
from mappings.language.errors import MappingErrors
from mappings.language.family import Family
from mappings.language.layout import Layout
from mappings.language.testing import family_of, layout_of

FAMILY = """name: "toy"
atom { name: "l" size: "layers" index: true }
atom { name: "e" size: "5" }
atom { name: "h" size: "8" }
atom { name: "k" size: "4" }
atom { name: "p" size: "2" }
atom { name: "r" size: "3" }
atom { name: "d" is: "p r" }
atom { name: "c" size: "6" }
atom { name: "v" size: "10" }
atom { name: "vx" size: "extra ?? 2" may_be_empty: true }
tensor { id: "embed" axes: "v e" }
tensor { id: "extra" axes: "vx e" when: "rows ?? false" }
tensor { id: "head" axes: "v e" when: "headed ?? false" }
tensor { id: "scalar" axes: "" when: "scalars ?? false" }
tie { tensor: "head" to: "embed" when: "tied ?? false" }
group {
  axes: "l" when: "layers > 0"
  tensor { id: "q" axes: "h d e" }
  tensor { id: "k" axes: "k d e" }
  tensor { id: "v" axes: "k c e" }
}
"""
EMBED = 'rule { tensor: "embed" name: "embed" axes: "v e" }\n'
QKV = """rule { tensor: "q" name: "q" axes: "(h d) e" }
rule { tensor: "k" name: "k" axes: "(k d) e" }
rule { tensor: "v" name: "v" axes: "(k c) e" }
"""


def bind(text: str, config: dict[str, object] | None = None, **options: object) -> Layout:
    return layout_of(toy(config), 'format: "f"\n' + text, **options)


def toy(config: dict[str, object] | None = None) -> Family:
    return family_of(FAMILY, {"layers": 3, **(config or {})})


def shapes(layout: Layout) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in layout.arrays.items()}


def rejected(text: str, config: dict[str, object] | None = None, **options: object) -> list[str]:
    with pytest.raises(MappingErrors) as error:
        bind(text, config, **options)
    return [str(issue) for issue in error.value.issues]


# ---- scopes


def test_layers_may_stand_in_the_name() -> None:
    layout = bind(EMBED + 'scope { at { name: "layers.{l}." } ' + QKV + "}")
    assert shapes(layout) == {
        "embed": (10, 5),
        **{f"layers.{i}.q": (48, 5) for i in range(3)},
        **{f"layers.{i}.{name}": (24, 5) for i in range(3) for name in "kv"},
    }
    assert layout.arrays["layers.1.q"].tensors == ("q",)
    assert layout.arrays["layers.1.q"].stack_axes == ()
    assert layout.arrays["layers.1.q"].location == "layout.textproto:3"


@pytest.mark.parametrize(
    ("axis", "shape", "at"), [("0", (3, 48, 5), 0), ("1", (48, 3, 5), 1), ("2", (48, 5, 3), 2), ("7", (48, 5, 3), 2)]
)
def test_stacked_layers_are_inserted_at_the_stack_axis(axis: str, shape: tuple[int, ...], at: int) -> None:
    layout = bind(EMBED + f'stack_axis: "{axis}" scope {{ at {{ stack: "l" }} {QKV} }}')
    assert layout.arrays["q"].shape == shape
    assert layout.arrays["q"].stack_axes == (at,)


def test_a_place_may_have_a_stack_axis_of_its_own() -> None:
    at = 'at { stack: "l" stack_axis: "2" }'
    layout = bind(EMBED + f'stack_axis: "1" scope {{ {at} {QKV} }}')
    assert layout.arrays["q"].shape == (48, 5, 3)
    assert layout.arrays["q"].stack_axes == (2,)
    (issue,) = rejected(EMBED + 'scope {\nat { stack: "l" stack_axis: "-1" }\n' + QKV.split("\n")[0] + "}")[:1]
    assert "stack_axis is -1" in issue


def test_a_map_splits_layers_into_digits() -> None:
    at = 'at { name: "l{j}." map: "l = 2*b + j" over: "b: 2, j: 2" stack: "b" }'
    layout = bind(EMBED + f'stack_axis: "1" scope {{ {at} {QKV} }}', {"layers": 4})
    assert shapes(layout)["l1.q"] == (48, 2, 5)
    (place,) = layout.places["", "q"]
    assert [place.names_of(place.ranks[(i,)]) for i in range(4)] == [("l0.q",), ("l1.q",), ("l0.q",), ("l1.q",)]
    assert [place.bases[place.ranks[(i,)]] for i in range(4)] == [(0, 0, 0), (0, 0, 0), (0, 1, 0), (0, 1, 0)]


def test_a_remainder_may_be_empty() -> None:
    at = """at { name: "b{j}." map: "l = 3*b + j" over: "b: layers // 3, j: 3" stack: "b" }
    at { name: "rest{i}." map: "l = 3*(layers // 3) + i" over: "i: layers % 3" }"""
    text = EMBED + f"scope {{ {at} {QKV} }}"
    assert shapes(bind(text, {"layers": 5}))["rest1.q"] == (48, 5)
    assert not any(name.startswith("rest") for name in bind(text, {"layers": 6}).arrays)
    assert not any(name.startswith("b") for name in bind(text, {"layers": 2}).arrays)


def test_nested_digits_are_stacked_side_by_side() -> None:
    at = 'at { map: "l = 3*b + j" over: "b: 2, j: 3" stack: "b j" }'
    layout = bind(EMBED + f'stack_axis: "1" scope {{ {at} {QKV} }}', {"layers": 6})
    assert layout.arrays["q"].shape == (48, 2, 3, 5)
    assert layout.arrays["q"].stack_axes == (1, 2)


def test_conditions_choose_scopes_sites_and_rules() -> None:
    text = (
        EMBED
        + """option { name: "scan" value: ["true", "false"] default: "true" }
scope { when: "false" rule { tensor: "q" name: "never" axes: "h d e" } }
scope {
  at { when: "scan" name: "all." stack: "l" }
  at { when: "!scan" name: "{l}." }
  rule { tensor: "q" name: "q" axes: "h d e" when: "scan" }
  rule { tensor: "q" name: "q" axes: "(h d) e" when: "!scan" }
  rule { tensor: "k" name: "k" axes: "k d e" } rule { tensor: "v" name: "v" axes: "k c e" }
}"""
    )
    assert shapes(bind(text))["all.q"] == (3, 8, 6, 5)
    assert shapes(bind(text, scan=False))["2.q"] == (48, 5)


# ---- axes


def test_direct_sums_lie_behind_each_other() -> None:
    rule = 'rule { name: "qkv" axes: "[q: h d | k: k d | v: k c] e" }'
    layout = bind(EMBED + f'scope {{ at {{ name: "{{l}}." }} {rule} }}')
    assert shapes(layout)["0.qkv"] == (96, 5)
    assert layout.arrays["0.qkv"].tensors == ("q", "k", "v")
    assert [layout.places["", id][0].bases[0] for id in "qkv"] == [(0, 0), (48, 0), (72, 0)]


def test_a_sum_inside_a_product_interleaves() -> None:
    rule = 'rule { name: "kv" axes: "e (k [k: d | v: c])" } rule { tensor: "q" name: "q" axes: "h d e" }'
    layout = bind(EMBED + f'scope {{ at {{ name: "{{l}}." }} {rule} }}')
    assert shapes(layout)["0.kv"] == (5, 48)
    (keys,), (values,) = layout.places["", "k"], layout.places["", "v"]
    assert (keys.address["k"], keys.address["p"], keys.bases[0]) == ((1, 12), (1, 3), (0, 0))
    assert (values.address["k"], values.address["c"], values.bases[0]) == ((1, 12), (1, 1), (0, 6))


def test_ones_add_axes_and_branches_of_one_element() -> None:
    layout = bind(
        'rule { tensor: "embed" name: "embed" axes: "1 v (1 e)" } rule { tensor: "scalar" name: "s" axes: "" }\n'
        'atom { of: "c" is: "p r" } scope { at { name: "{l}." } rule { name: "kv" axes: "[k: 1 | v: 1] k e d" } '
        'rule { tensor: "q" name: "q" axes: "h d e" } }',
        {"scalars": True},
    )
    assert shapes(layout)["embed"] == (1, 10, 5)
    assert shapes(layout)["s"] == ()
    assert shapes(layout)["0.kv"] == (2, 4, 5, 6)


def test_padding_enlarges_an_array() -> None:
    text = f"""option {{ name: "rows" default: "12" }}
rule {{ tensor: "embed" name: "e" axes: "[v | 0: rows - size(v)] e" }}
scope {{ at {{ name: "{{l}}." }} {QKV} }}"""
    assert shapes(bind(text))["e"] == (12, 5)
    assert shapes(bind(text, rows=10))["e"] == (10, 5)
    assert rejected(text, rows=9) == ["layout.textproto:3: padding of -1 elements, from 'rows - size(v)'"]


def test_an_empty_branch_leaves_the_others() -> None:
    config: dict[str, object] = {"rows": True, "extra": 0}
    rule = 'rule { name: "e" axes: "[embed: v | extra: vx] e" }'
    layout = bind(rule + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}', config)
    assert shapes(layout)["e"] == (10, 5)


def test_an_array_of_no_elements_is_not_made() -> None:
    config: dict[str, object] = {"rows": True, "extra": 0}
    rule = 'rule { tensor: "extra" name: "x" axes: "vx e" }'
    assert "x" not in bind(EMBED + rule + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}', config).arrays


# ---- spellings, shards and copies

SHARDS = """part: "{s}"
option { name: "shards" default: "1" }
atom { name: "ko" size: "min(shards, size(k))" }
atom { name: "t" size: "shards // size(ko)" }
atom { name: "s" is: "ko t" }
atom { name: "hs" size: "size(h) // shards" } atom { of: "h" is: "s hs" }
atom { name: "ks" size: "size(k) // size(ko)" } atom { of: "k" is: "ko ks" }
atom { name: "vs" size: "size(v) // shards" } atom { of: "v" is: "s vs" }
rule { tensor: "embed" name: "embed" axes: "v e" copies: "s" copy_rule: FIRST }
scope {
  at { name: "{l}." }
  rule { tensor: "q" name: "q" axes: "(hs d) e" }
  rule { tensor: "k" name: "k" axes: "(ks d) e" copies: "t" }
  rule { tensor: "v" name: "v" axes: "(ks c) e" copies: "t" }
}
"""


@pytest.mark.parametrize(("shards", "q", "k", "copies"), [(1, 48, 24, 1), (2, 24, 12, 1), (4, 12, 6, 1), (8, 6, 6, 2)])
def test_a_shard_is_an_atom_in_the_part(shards: int, q: int, k: int, copies: int) -> None:
    layout = bind(SHARDS, shards=shards)
    assert len(layout.arrays) == shards * 10
    array = layout.arrays[f"{shards - 1}|2.q"]
    assert (array.part, array.name, array.key) == (str(shards - 1), "2.q", f"{shards - 1}|2.q")
    assert array.shape == (q, 5)
    assert layout.arrays["0|0.k"].shape == (k, 5)
    assert len(layout.places["", "k"][0].copies) == copies
    assert len(layout.places["", "embed"][0].copies) == shards


def test_shards_that_do_not_divide_an_axis_are_errors() -> None:
    assert "layout.textproto:13: 'h' = 8 is not the product ko=3 * t=1 * hs=2" in rejected(SHARDS, shards=3)


def test_a_remaining_digit_without_copies_is_an_error() -> None:
    messages = rejected(SHARDS.replace('axes: "(ks d) e" copies: "t"', 'axes: "(ks d) e"'), shards=8)
    assert messages == ["layout.textproto:14: 't' is not an axis of tensor 'k' (say copies: if equal copies are meant)"]


def test_a_composite_is_spelled_in_the_layouts_order() -> None:
    at = f'scope {{ at {{ name: "{{l}}." }} {QKV} }}'
    halves = bind(EMBED + at).places["", "q"][0].address
    pairs = bind(EMBED + 'atom { name: "d" is: "r p" }' + at).places["", "q"][0].address
    assert (halves["p"], halves["r"]) == ((0, 3), (0, 1))
    assert (pairs["p"], pairs["r"]) == ((0, 1), (0, 2))


# ---- options


def test_options_have_defaults_and_kinds() -> None:
    text = (
        EMBED
        + f"""scope {{ at {{ name: "{{l}}." }} {QKV} }}
option {{ name: "scan" value: ["true", "false"] default: "true" }}
option {{ name: "axis" value: ["0", "1"] default: "0" }}
option {{ name: "version" value: ["0.2.4", "1"] default: "'1'" }}
option {{ name: "rows" default: "layers * 2" }}
option {{ name: "model" default: "''" }}
option {{ name: "rope" value: ["a", "b"] default: "starts(model, 'x') ? 'a' : 'b'" }}
option {{ name: "level" value: ["1", "2"] default: "gone ?? (starts(model, 'x') ? '1' : '2')" }}
"""
    )
    assert bind(text).options == {
        "scan": True, "axis": 0, "version": "1", "rows": 6, "model": "", "rope": "b", "level": "2",
    }  # fmt: skip
    given = bind(text, scan="false", axis="1", version="0.2.4", rows="32", model="x1")
    assert given.options == {
        "scan": False, "axis": 1, "version": "0.2.4", "rows": 32, "model": "x1", "rope": "a", "level": "1",
    }  # fmt: skip
    assert bind(text, scan=False, model="7").options["model"] == "7"
    assert bind(text, level="1").options["level"] == "1"


def test_options_that_do_not_exist_or_fit_are_errors() -> None:
    text = (
        EMBED
        + f"""scope {{ at {{ name: "{{l}}." }} {QKV} }}
option {{ name: "scan" value: ["true", "false"] default: "true" }}
option {{ name: "shards" }}
"""
    )
    messages = rejected(text, scan="maybe", other=1)
    assert messages == [
        "layout.textproto:1: no option named 'other'; there are: scan, shards",
        "layout.textproto:7: option scan=maybe: allowed are true, false",
        "layout.textproto:8: option 'shards' must be given",
    ]
    assert rejected(text, shards=[1]) == [
        "layout.textproto:8: option shards is neither number, text nor truth value: [1]"
    ]


def test_a_default_that_needs_itself_is_an_error_that_names_the_cycle() -> None:
    text = EMBED + 'option { name: "a" default: "b" } option { name: "b" default: "a" }'
    assert any("defined by itself: a -> b -> a" in message for message in rejected(text))


# ---- names


def test_labels_are_words_in_names() -> None:
    at = 'at { name: "{b}." map: "l = 2*b + j" over: "b: 2, j: 2" }'
    text = f'label {{ name: "kind" atom: "j" value: ["local", "global"] }} scope {{ {at} {QKV} }}'
    layout = bind(EMBED + re.sub('name: "([qkv])"', r'name: "\1_{kind}"', text), {"layers": 4})
    assert {"0.q_local", "0.q_global", "1.q_local", "1.q_global"} < layout.arrays.keys()


def test_roots_stand_before_names_and_a_rule_may_have_its_own() -> None:
    text = 'root: "params." scope { at { name: "{l}." } ' + QKV.replace('name: "k"', 'root: "other." name: "k"') + "}"
    names = bind(EMBED + text).arrays.keys()
    assert {"params.embed", "params.0.q", "other.0.k"} < names


def test_ignored_names_are_generated() -> None:
    text = f"""scope {{ at {{ name: "{{l}}." }} {QKV} }}
ignore {{ name: "{{l}}.inv_freq" reason: "computed" }} ignore {{ name: "step" reason: "count" carry: true }}"""
    layout = bind(EMBED + text)
    assert layout.ignored == {**{f"{i}.inv_freq": "computed" for i in range(3)}, "step": "count"}
    assert [name for name, ignored in layout.ignored_names.items() if ignored.carry] == ["step"]


def test_a_name_is_not_both_ignored_and_made() -> None:
    text = f'scope {{ at {{ name: "{{l}}." }} {QKV} }} ignore {{ name: "{{l}}.q" reason: "x" }}'
    assert rejected(EMBED + text)[0] == "layout.textproto:1: '0.q' is ignored but made by a rule too"


# ---- what arrays say


def test_operations_are_evaluated() -> None:
    text = """rule {
  tensor: "embed" name: "e" axes: "v e"
  op { scale { of: "size(e) * 5" half_powers: 1 factor_dtype: "bf16" } }
  op { scale { of: "16" half_powers: -1 } when: "layers == 3" }
  op { add { value: "1" } when: "layers == 4" }
  op { add { value: "-2" } }
}
"""
    layout = bind(text + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}')
    assert layout.arrays["e"].ops == (BoundOp("scale", 5.0, "bf16"), BoundOp("scale", 0.25), BoundOp("add", -2.0))


@pytest.mark.parametrize("op", ['scale { of: "0" half_powers: 1 }', 'scale { of: "4" }', ""])
def test_operations_without_effect_or_factor_are_errors(op: str) -> None:
    text = f'rule {{ tensor: "embed" name: "e" axes: "v e" op {{ {op} }} }}'
    (message,) = rejected(text + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}')
    assert message.startswith("layout.textproto:2: ")


def test_optional_keep_dtype_and_peer_dtype_are_exposed() -> None:
    family = family_of(
        FAMILY.replace('axes: "v e" }', 'axes: "v e" keep_dtype: true }', 1), {"layers": 3, "headed": True}
    )
    text = f"""format: "f"
rule {{ tensor: "embed" name: "e" axes: "v e" peer_dtype: "float32" }}
rule {{ tensor: "head" name: "h" axes: "v e" optional: "layers == 3" }}
scope {{ at {{ name: "{{l}}." }} {QKV} }}"""
    layout = layout_of(family, text)
    assert (layout.arrays["e"].keep_dtype, layout.arrays["e"].peer_dtype) == (True, "float32")
    assert (layout.arrays["h"].keep_dtype, layout.arrays["h"].peer_dtype) == (False, "")
    assert layout.arrays["h"].optional
    assert not layout.arrays["e"].optional
    assert "h" not in layout.header(optional=False)


def test_a_codec_gives_physical_arrays() -> None:
    family = family_of(FAMILY.replace('name: "c" size: "6"', 'name: "c" size: "64"'), {"layers": 1})
    text = """format: "f" option { name: "packed" value: ["true", "false"] default: "true" }
rule { tensor: "embed" name: "e" axes: "v e" codec { kind: "fp8_block" block: ["4", "3"] } }
scope {
  at { name: "{l}." }
  rule { tensor: "q" name: "q" axes: "h d e" } rule { tensor: "k" name: "k" axes: "k d e" }
  rule {
    tensor: "v" name: "v" axes: "k e c"
    codec { kind: "mxfp4" when: "packed" array { role: "scales" name: "{name}.s" } }
  }
}"""
    layout = layout_of(family, text)
    assert layout.arrays["0.v"].shape == (4, 5, 64)
    assert [(s.role, s.name, s.shape, s.dtype) for s in layout.arrays["0.v"].stored] == [
        ("blocks", "0.v_blocks", (4, 5, 2, 16), "uint8"),
        ("scales", "0.v.s", (4, 5, 2), "uint8"),
    ]
    assert layout.header() == {
        "e": (10, 5),
        "e_scale_inv": (3, 2),
        "0.q": (8, 6, 5),
        "0.k": (4, 6, 5),
        "0.v_blocks": (4, 5, 2, 16),
        "0.v.s": (4, 5, 2),
    }
    assert layout_of(family, text, packed=False).arrays["0.v"].codec is None


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        ('kind: "zip"', "layout.textproto:2: there is no codec 'zip'"),
        ('kind: "mxfp4"', "layout.textproto:2: array 'e': the last axis of shape [10, 5] is not a multiple of 32"),
        ('kind: "fp8_block" block: "4"', "layout.textproto:2: codec 'fp8_block' takes 2 block sizes, not [4]"),
        ('kind: "fp8_block" block: ["0", "1"]', "layout.textproto:2: codec 'fp8_block' takes 2 block sizes"),
        ('kind: "mxfp4" array { role: "x" name: "y" }', "layout.textproto:2: codec 'mxfp4' has no role 'x'"),
    ],
)
def test_a_codec_that_does_not_fit_is_an_error(codec: str, message: str) -> None:
    text = f'rule {{ tensor: "embed" name: "e" axes: "v e" codec {{ {codec} }} }}'
    (found,) = rejected(text + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}')
    assert found.startswith(message)


def test_mirrors_have_the_weights_shapes_without_operations() -> None:
    text = f"""root: "params."
mirror {{ name: "mu" root: "opt.mu." }}
rule {{ tensor: "embed" name: "e" axes: "v e" op {{ add {{ value: "1" }} }} }}
scope {{ at {{ name: "{{l}}." }} {QKV} }}"""
    layout = bind(text)
    assert layout.arrays["opt.mu.e"].shape == (10, 5)
    assert layout.arrays["opt.mu.e"].ops == ()
    assert layout.arrays["opt.mu.2.q"].mirror == "mu"
    assert len(layout.arrays) == 20
    assert not any(name.startswith("opt") for name in layout.header(mirrors=False))


def test_a_rule_with_its_own_root_has_no_mirror() -> None:
    text = f"""mirror {{ name: "mu" root: "opt.mu." }}
rule {{ tensor: "embed" name: "e" axes: "v e" root: "other." }} scope {{ at {{ name: "{{l}}." }} {QKV} }}"""
    assert {name for name in bind(text).arrays if name.endswith("e")} == {"other.e"}


# ---- absences


def test_absences_say_what_a_layout_does_not_keep() -> None:
    text = (
        EMBED
        + f"""scope {{ at {{ name: "{{i}}." map: "l = i" over: "i: 2" }} {QKV} }}
absent {{ tensor: "*" where: "l >= 2" reason: "cut" refill: OMIT }}
absent {{ tensor: "extra" reason: "never" refill: MEAN mean_of: "embed" }}
absent {{ tensor: "head" when: "false" reason: "no" }}"""
    )
    layout = bind(text, {"rows": True})
    assert layout.absence("q", (2,)) is not None
    assert layout.absence("q", (1,)) is None
    assert layout.absence("embed", ()) is None
    absence = layout.absence("extra", ())
    assert absence is not None
    assert (absence.refill, absence.mean_of, absence.reason) == ("MEAN", "embed", "never")
    assert {(absence.tensor, absence.refill) for absence in layout.absent} == {
        ("q", "OMIT"), ("k", "OMIT"), ("v", "OMIT"), ("extra", "MEAN"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ('tensor: "qq" reason: "x"', "unknown tensor 'qq'"),
        ('tensor: "zz*" reason: "x"', "unknown tensor 'zz*'"),
        ('tensor: "extra" reason: "x" refill: MEAN', "'mean_of' belongs to refill MEAN"),
        ('tensor: "extra" reason: "x" mean_of: "embed"', "'mean_of' belongs to refill MEAN"),
        ('tensor: "extra" reason: "x" refill: MEAN mean_of: "zz"', "unknown tensor 'zz'"),
        ('tensor: "embed" reason: "x"', "'embed' is declared absent but has a place at layout.textproto:2"),
    ],
)
def test_absences_that_say_nothing_true_are_errors(absent: str, message: str) -> None:
    messages = rejected(EMBED + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}\nabsent {{ {absent} }}')
    assert messages == [f"layout.textproto:7: {message}"]


def test_a_tied_tensor_needs_no_place() -> None:
    text = EMBED + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}'
    bind(text, {"headed": True, "tied": True})
    (message,) = rejected(text, {"headed": True})
    assert message.startswith("layout.textproto:1: 'head' (family.textproto:14) has no place in layout 'f'")


def test_a_rule_whose_tensors_do_not_exist_has_no_effect() -> None:
    rule = 'rule { tensor: "head" name: "h" axes: "v e" }'
    assert "h" not in bind(EMBED + rule + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}').arrays


def test_a_sum_of_which_only_some_tensors_exist_is_an_error() -> None:
    rule = 'rule { name: "e" axes: "[embed: v | head: v] e" }'
    messages = rejected(rule + f'scope {{ at {{ name: "{{l}}." }} {QKV} }}')
    assert messages == [
        "layout.textproto:2: only ['embed'] of ['embed', 'head'] exist for this config; give the rule a 'when'"
    ]
