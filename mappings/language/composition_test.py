"""Composing layouts: what moves, what is filled, checked, dropped and said."""

import numpy as np
import pytest

from mappings.language.composition import Composition, Note, compose
from mappings.language.errors import MappingErrors
from mappings.language.family import Family
from mappings.language.layout import Layout
from mappings.language.regions import normal_form
from mappings.language.testing import family_of, indices, layout_of, numbered, run

FAMILY = """name: "toy"
atom { name: "l" size: "layers" index: true }
atom { name: "e" size: "5" }
atom { name: "h" size: "4" }
atom { name: "p" size: "2" }
atom { name: "r" size: "3" }
atom { name: "d" is: "p r" }
atom { name: "x" size: "3" }
atom { name: "v" size: "10" }
atom { name: "vx" size: "2" }
tensor { id: "embed" axes: "v e" }
tensor { id: "extra" axes: "vx e" }
tensor { id: "head" axes: "v e" }
tie { tensor: "head" to: "embed" when: "tied ?? false" }
group {
  axes: "l"
  tensor { id: "q" axes: "h d e" }
  tensor { id: "norm" axes: "e" }
  tensor { id: "up" axes: "x e" }
}
"""
PLAIN = """format: "plain"
rule { name: "embed" axes: "[embed: v | extra: vx] e" }
rule { tensor: "head" name: "head" axes: "v e" optional: "tied ?? false" }
scope {
  at { name: "layers.{l}." }
  rule { tensor: "q" name: "q" axes: "(h d) e" }
  rule { tensor: "norm" name: "norm" axes: "e" }
  rule { tensor: "up" name: "experts.{x}.up" axes: "e" }
}
"""
STACKED = """format: "stacked" stack_axis: "1"
mirror { name: "mu" root: "mu." }
option { name: "scaled" value: ["true", "false"] default: "true" }
rule { tensor: "embed" name: "embed" axes: "v e" }
rule { tensor: "head" name: "head" axes: "e v" when: "!(tied ?? false)" }
scope {
  at { stack: "l" }
  rule { tensor: "q" name: "q" axes: "e h d" op { scale { of: "size(d)" half_powers: -1 } when: "scaled" } }
  rule { tensor: "norm" name: "norm" axes: "e" op { add { value: "1" } } }
  rule { tensor: "up" name: "up" axes: "x e" }
}
absent { tensor: "extra" reason: "cut" refill: MEAN mean_of: "embed" }
"""
SHARDED = """format: "sharded" part: "{s}"
atom { name: "d" is: "r p" }
atom { name: "s" size: "2" }
atom { name: "hs" size: "2" } atom { of: "h" is: "s hs" }
rule { name: "embed" axes: "[embed: v | extra: vx | 0: 4] e" copies: "s" }
rule { tensor: "head" name: "head" axes: "v e" copies: "s" copy_rule: FIRST }
scope {
  at { name: "{l}." }
  rule { tensor: "q" name: "q" axes: "(hs d) e" }
  rule { tensor: "norm" name: "norm" axes: "e" copies: "s" }
  rule { tensor: "up" name: "up" axes: "x e" copies: "s" }
}
"""


@pytest.fixture(scope="module")
def family() -> Family:
    return family_of(FAMILY, {"layers": 3})


@pytest.fixture(scope="module")
def tied() -> Family:
    return family_of(FAMILY, {"layers": 3, "tied": True})


def bind(family: Family, text: str, **options: object) -> Layout:
    return layout_of(family, text, **options)


def refused(source: Layout, target: Layout, present: tuple[str, ...] = ()) -> list[str]:
    with pytest.raises(MappingErrors) as error:
        compose(source, target, present)
    assert {issue.kind for issue in error.value.issues} <= {"absent", "size"}
    return [str(issue) for issue in error.value.issues]


def notes(composition: Composition, kind: str) -> list[Note]:
    return [note for note in composition.notes if note.kind == kind]


# ---- values


def test_values_arrive_where_a_reader_of_the_rules_expects_them(family: Family) -> None:
    source, target = bind(family, PLAIN), bind(family, STACKED)
    arrays = numbered(source)
    made = run(compose(source, target), arrays)
    assert made.keys() == {"embed", "head", "q", "norm", "up"}
    assert np.array_equal(made["embed"], arrays["embed"][:10])
    assert np.array_equal(made["head"], arrays["head"].T)
    for layer in range(3):
        query = arrays[f"layers.{layer}.q"].T.reshape(5, 4, 6) * 6**-0.5
        assert np.allclose(made["q"][:, layer], query, rtol=1e-15)
        assert np.array_equal(made["norm"][:, layer], arrays[f"layers.{layer}.norm"] + 1)
        for expert in range(3):
            assert np.array_equal(made["up"][expert, layer], arrays[f"layers.{layer}.experts.{expert}.up"])


def test_shards_get_their_part_and_rotary_pairs_become_neighbours(family: Family) -> None:
    source, target = bind(family, PLAIN), bind(family, SHARDED)
    arrays = numbered(source)
    made = run(compose(source, target), arrays)
    for shard in range(2):
        whole = arrays["layers.1.q"].reshape(2, 2, 2, 3, 5)[shard]
        assert np.array_equal(made[f"{shard}|1.q"], whole.swapaxes(1, 2).reshape(12, 5))
        assert np.array_equal(made[f"{shard}|1.norm"], arrays["layers.1.norm"])
        assert np.array_equal(made[f"{shard}|embed"], np.concatenate([arrays["embed"], np.zeros((4, 5))]))


def test_there_and_back_gives_the_same_values(family: Family) -> None:
    plain, sharded = bind(family, PLAIN), bind(family, SHARDED)
    arrays = numbered(plain)
    back = run(compose(sharded, plain), run(compose(plain, sharded), arrays))
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


def test_equal_operations_cancel(family: Family) -> None:
    stacked = bind(family, STACKED)
    composition = compose(stacked, stacked)
    assert all(move.source_ops == move.target_ops == () for move in composition.moves)
    unscaled = compose(stacked, bind(family, STACKED, scaled=False))
    assert {move.tensor: len(move.source_ops) for move in unscaled.moves}["q"] == 1
    assert all(not move.source_ops for move in unscaled.moves if move.tensor == "norm")


def test_moves_between_the_same_arrays_are_merged(family: Family) -> None:
    stacked = bind(family, STACKED)
    composition = compose(stacked, bind(family, STACKED.replace('stack_axis: "1"', 'stack_axis: "0"')))
    assert sorted(move.tensor for move in composition.moves) == ["embed", "head", "norm", "q", "up"]
    arrays = numbered(stacked)
    made = run(composition, arrays)
    assert all(np.array_equal(np.moveaxis(arrays[name], 1, 0), made[name]) for name in ("q", "norm", "up"))


def test_the_worked_example_of_the_language(family: Family) -> None:
    big = family_of(
        FAMILY.replace('"e" size: "5"', '"e" size: "40"').replace('"h" size: "4"', '"h" size: "8"'), {"layers": 3}
    )
    text = STACKED + 'atom { name: "d" is: "r p" }'
    (move,) = (
        move for move in compose(bind(big, PLAIN), bind(big, text)).moves if move.source == "layers.1.q"
    )  # fmt: skip
    form = normal_form(move)
    assert (form.source_offset, form.target_offset) == (0, 48)
    assert form.dims == ((40, 1, 144), (8, 240, 6), (3, 40, 2), (2, 120, 1))


def test_axes_that_are_cut_in_two_ways_are_refused(family: Family) -> None:
    cut = 'atom { name: "v3" size: "5" } atom { of: "v" is: "s v3" }'
    three = (
        SHARDED.replace('"s" size: "2"', '"s" size: "5"')
        .replace('atom { name: "hs" size: "2" } atom { of: "h" is: "s hs" }', cut.replace('"5"', '"2"'))
        .replace('tensor: "head" name: "head" axes: "v e" copies: "s"', 'tensor: "head" name: "head" axes: "v3 e"')
        .replace('axes: "(hs d) e"', 'axes: "(h d) e" copies: "s"')
    )
    two = SHARDED.replace(
        'tensor: "head" name: "head" axes: "v e" copies: "s"', 'tensor: "head" name: "head" axes: "v3 e"'
    )
    messages = refused(bind(family, three), bind(family, two + cut))
    assert messages == [
        "layout.textproto:6: 'v' is cut at 2 by one side and at 5 by the other: use a third layout between them"
    ]


# ---- ties, copies and optional arrays


def test_a_tied_head_is_materialised_where_the_target_has_a_place(tied: Family) -> None:
    plain, sharded = bind(tied, PLAIN), bind(tied, SHARDED)
    composition = compose(plain, sharded, present=())
    assert notes(composition, "TIED") == [
        Note("TIED", "head", f"{shard}|head", "its values are those of 'embed'") for shard in range(2)
    ]
    made = run(composition, numbered(plain))
    assert np.array_equal(made["1|head"], numbered(plain)["embed"][:10])
    assert not composition.checks


def test_an_optional_head_is_compared_and_used_if_it_is_there(tied: Family) -> None:
    plain, sharded = bind(tied, PLAIN), bind(tied, SHARDED)
    composition = compose(plain, sharded, present={"head"})
    assert not notes(composition, "TIED")
    (check,) = composition.checks
    assert (check.kind, check.rule, check.move.source, check.move.target) == ("TIE", "EQUAL", "embed", "head")
    assert check.move.elements == 50
    assert {move.source for move in composition.moves if move.tensor == "head"} == {"head"}
    assert "head" in composition.consumed


def test_an_optional_array_is_never_written(tied: Family) -> None:
    composition = compose(bind(tied, SHARDED), bind(tied, PLAIN))
    assert "head" not in composition.produced
    assert [note.array for note in notes(composition, "OPTIONAL")] == ["0|head", "1|head"]
    assert [check.kind for check in composition.checks].count("TIE") == 1


def test_a_tied_tensor_without_place_in_the_target_is_noted(tied: Family) -> None:
    composition = compose(bind(tied, SHARDED), bind(tied, STACKED))
    assert notes(composition, "TIED") == [
        Note("TIED", "head", f"{shard}|head", "'stacked' holds it as 'embed'") for shard in range(2)
    ]


def test_an_untied_head_is_no_option(family: Family) -> None:
    composition = compose(bind(family, PLAIN), bind(family, STACKED), present=())
    assert "head" in composition.produced


def test_an_optional_array_that_nothing_replaces_is_refused(family: Family) -> None:
    optional = PLAIN.replace('optional: "tied ?? false"', 'optional: "true"')
    assert refused(bind(family, optional), bind(family, STACKED)) == [
        "layout.textproto:5: 'head' has a place in 'stacked', but 'plain' has none for it"
    ]
    assert compose(bind(family, optional), bind(family, STACKED), {"head"}).produced


def test_copies_are_compared_as_their_rule_says(family: Family) -> None:
    composition = compose(bind(family, SHARDED), bind(family, PLAIN))
    checks = {(check.move.source, check.move.target): check for check in composition.checks}
    assert all(check.kind == "COPY" for check in composition.checks)
    assert checks["0|head", "1|head"].rule == "FIRST"
    assert checks["0|2.norm", "1|2.norm"].rule == "EQUAL"
    compared = [check.move.tensor for check in composition.checks]
    assert sorted(set(compared)) == ["embed", "extra", "head", "norm", "up"]
    (extra,) = (check.move for check in composition.checks if check.move.tensor == "extra")
    (from_index, to_index) = indices(extra)
    assert set(from_index[0].ravel()) == set(to_index[0].ravel()) == {10, 11}


def test_reading_takes_the_first_copy(family: Family) -> None:
    composition = compose(bind(family, SHARDED), bind(family, PLAIN))
    assert {move.source for move in composition.moves if move.tensor == "norm"} == {f"0|{i}.norm" for i in range(3)}
    assert "1|2.norm" in composition.consumed


# ---- what one side does not keep


def test_a_mean_is_filled_in(family: Family) -> None:
    stacked, plain = bind(family, STACKED), bind(family, PLAIN)
    composition = compose(stacked, plain)
    arrays = numbered(stacked)
    made = run(composition, arrays)
    assert np.array_equal(made["embed"][:10], arrays["embed"])
    assert np.allclose(made["embed"][10:], arrays["embed"].mean(axis=0))
    assert notes(composition, "REFILLED") == [
        Note("REFILLED", "extra", "embed", "cut; filled with the mean of the others")
    ]


@pytest.mark.parametrize(("refill", "value"), [("ZERO", 0.0), ("ONE", 1.0)])
def test_constants_are_filled_in(family: Family, refill: str, value: float) -> None:
    text = STACKED.replace('refill: MEAN mean_of: "embed"', f"refill: {refill}")
    made = run(compose(bind(family, text), bind(family, PLAIN)), numbered(bind(family, text)))
    assert (made["embed"][10:] == value).all()


def test_filled_values_go_through_the_targets_operations(family: Family) -> None:
    source = STACKED.replace('rule { tensor: "norm" name: "norm" axes: "e" op { add { value: "1" } } }', "")
    source += 'absent { tensor: "norm" reason: "none" refill: ONE }'
    target = STACKED.replace('format: "stacked"', 'format: "other"')
    made = run(compose(bind(family, source), bind(family, target)), numbered(bind(family, source)))
    assert (made["norm"] == 2).all()


def test_a_tensor_that_the_source_lacks_is_refused_by_default(family: Family) -> None:
    text = STACKED.replace('refill: MEAN mean_of: "embed"', "")
    assert refused(bind(family, text), bind(family, PLAIN)) == [
        "layout.textproto:2: 'extra' has a place in 'plain', but 'stacked' has none for it: cut",
    ]


def test_omitted_tensors_leave_out_their_arrays(family: Family) -> None:
    at = 'at { map: "l = b" over: "b: 2" stack: "b" }'
    text = (
        STACKED.replace('at { stack: "l" }', at) + 'absent { tensor: "*" where: "l >= 2" reason: "late" refill: OMIT }'
    )
    composition = compose(bind(family, text), bind(family, PLAIN))
    assert "layers.1.q" in composition.produced
    assert not [name for name in composition.produced if name.startswith("layers.2.")]
    omitted = notes(composition, "ABSENT_IN_SOURCE")
    assert {note.array for note in omitted} == {
        "layers.2.q", "layers.2.norm", *(f"layers.2.experts.{x}.up" for x in range(3)),
    }  # fmt: skip
    assert {note.reason for note in omitted} == {"late"}


def test_an_array_of_which_only_a_part_is_omitted_is_refused(family: Family) -> None:
    text = STACKED.replace('refill: MEAN mean_of: "embed"', "refill: OMIT")
    assert refused(bind(family, text), bind(family, PLAIN)) == [
        "layout.textproto:2: array 'embed' would get 50 of 60 elements; the source lacks others, which it says to omit"
    ]


def test_what_the_target_does_not_keep_is_dropped_with_its_reason(family: Family) -> None:
    composition = compose(bind(family, PLAIN), bind(family, STACKED))
    assert notes(composition, "DROPPED") == [Note("DROPPED", "extra", "embed", "cut")]
    assert not composition.zeros


def test_what_must_be_zero_is_checked(family: Family) -> None:
    text = STACKED.replace('reason: "cut"', 'reason: "cut" must_be_zero: true')
    (zero,) = compose(bind(family, PLAIN), bind(family, text)).zeros
    assert (zero.tensor, zero.reason, zero.move.source) == ("extra", "cut", "embed")
    rows, columns = indices(zero.move)[0]
    assert {*zip(rows.ravel().tolist(), columns.ravel().tolist(), strict=True)} == {
        (row, column) for row in (10, 11) for column in range(5)
    }


def test_padding_is_checked_in_the_source_and_filled_in_the_target(family: Family) -> None:
    plain, sharded = bind(family, PLAIN), bind(family, SHARDED)
    there, back = compose(plain, sharded), compose(sharded, plain)
    padded = {(12 + row, column) for row in range(4) for column in range(5)}
    for shard, fill in enumerate(there.fills):
        assert (fill.kind, fill.tensor) == ("ZERO", "")
        (move,) = fill.moves
        assert move.target == f"{shard}|embed"
        rows, columns = indices(move)[1]
        assert {*zip(rows.ravel().tolist(), columns.ravel().tolist(), strict=True)} == padded
    assert [zero.move.source for zero in back.zeros] == ["0|embed", "1|embed"]
    rows, columns = indices(back.zeros[0].move)[0]
    assert {*zip(rows.ravel().tolist(), columns.ravel().tolist(), strict=True)} == padded


def test_padding_between_factors_is_exactly_what_the_tensors_leave() -> None:
    family = family_of(
        'name: "t" atom { name: "h" size: "3" } atom { name: "d" size: "2" } atom { name: "g" size: "2" }'
        'tensor { id: "w" axes: "h d g" }', {},
    )  # fmt: skip
    plain = bind(family, 'format: "a" rule { tensor: "w" name: "w" axes: "h d g" }')
    padded = bind(family, 'format: "b" rule { tensor: "w" name: "w" axes: "(h [0: 1 | d | 0: 2] g)" }')
    arrays = numbered(plain)
    made = run(compose(plain, padded), arrays)["w"]
    expected = np.zeros((3, 5, 2))
    expected[:, 1:3] = arrays["w"]
    assert np.array_equal(made, expected.ravel())
    checked = np.zeros(30, bool)
    for zero in compose(padded, plain).zeros:
        checked[indices(zero.move)[0]] = True
    assert np.array_equal(checked, made == 0)


# ---- training state


def test_training_state_moves_where_both_have_it(family: Family) -> None:
    stacked = bind(family, STACKED)
    other = bind(family, STACKED.replace('stack_axis: "1"', 'stack_axis: "0"').replace('root: "mu."', 'root: "m/"'))
    composition = compose(stacked, other, stacked.header())
    arrays = numbered(stacked, mirrors=True)
    made = run(composition, arrays)
    assert np.array_equal(made["m/q"], np.moveaxis(arrays["mu.q"], 1, 0))
    assert {move.tensor for move in composition.moves if move.target == "m/q"} == {"mu/q"}
    assert "mu.q" in composition.consumed


def test_training_state_that_is_not_there_is_not_made(family: Family) -> None:
    stacked = bind(family, STACKED)
    composition = compose(stacked, stacked, stacked.header(mirrors=False))
    assert not [name for name in composition.produced if name.startswith("mu.")]
    assert not composition.notes


def test_training_state_that_the_target_lacks_is_dropped(family: Family) -> None:
    stacked = bind(family, STACKED)
    composition = compose(stacked, bind(family, PLAIN), stacked.header())
    assert notes(composition, "DROPPED") == [
        Note("DROPPED", "mu/*", "mu.embed", "'plain' keeps no training state 'mu'")
    ]
    assert "mu.q" in composition.consumed


def test_training_state_of_rescaled_weights_is_not_moved(family: Family) -> None:
    stacked = bind(family, STACKED)
    composition = compose(stacked, bind(family, STACKED, scaled=False), stacked.header())
    assert "mu.q" not in composition.produced
    assert "mu.norm" in composition.produced
    (dropped,) = notes(composition, "DROPPED")
    assert (dropped.tensor, dropped.array) == ("mu/q", "mu.q")


def test_incomplete_training_state_is_refused(family: Family) -> None:
    stacked = bind(family, STACKED)
    present = [name for name in stacked.header() if name not in ("mu.q", "mu.up")]
    with pytest.raises(MappingErrors) as error:
        compose(stacked, stacked, present)
    assert [(str(issue), issue.key) for issue in error.value.issues] == [
        ("layout.textproto:1: training state 'mu' is incomplete: there is no 'mu.q' and 1 more", "mu.q")
    ]


def test_incomplete_training_state_that_the_target_lacks_is_dropped(family: Family) -> None:
    stacked = bind(family, STACKED)
    present = [name for name in stacked.header() if name not in ("mu.q", "mu.up")]
    composition = compose(stacked, bind(family, PLAIN), present)
    reason = "'plain' keeps no training state 'mu', which is incomplete: there is no 'mu.q'"
    assert notes(composition, "DROPPED") == [Note("DROPPED", "mu/*", "mu.embed", reason)]
    assert {"mu.embed", "mu.norm"} <= composition.consumed


# ---- accounting


def test_each_element_of_each_array_is_accounted_for(family: Family, tied: Family) -> None:
    for one in (family, tied):
        layouts = [bind(one, text) for text in (PLAIN, STACKED, SHARDED)]
        for source in layouts:
            for target in layouts:
                composition = compose(source, target, source.header(mirrors=False))
                wanted = {name for name, array in target.arrays.items() if not array.optional and not array.mirror}
                assert set(composition.produced) == wanted
                run(composition, {**numbered(source), "head": np.zeros((10, 5))} if one is tied else numbered(source))
                assert composition.consumed == set(source.header(mirrors=False))


def test_layouts_of_two_configs_are_refused(family: Family, tied: Family) -> None:
    with pytest.raises(ValueError, match="different families"):
        compose(bind(family, PLAIN), bind(tied, PLAIN))


def test_tensors_without_elements_take_no_part() -> None:
    family = family_of(FAMILY.replace('"vx" size: "2"', '"vx" size: "0" may_be_empty: true'), {"layers": 3})
    composition = compose(bind(family, PLAIN), bind(family, STACKED))
    assert "extra" not in {move.tensor for move in composition.moves}
    assert not composition.notes


# ---- optional arrays


def test_an_optional_array_of_the_target_is_made_where_it_is_wanted(tied: Family) -> None:
    plain, sharded = bind(tied, PLAIN), bind(tied, SHARDED)
    plain_names = {name for name in plain.arrays if name != "head"}
    assert set(compose(sharded, plain, sharded.arrays).produced) == plain_names
    wanted = compose(sharded, plain, sharded.arrays, wanted=["head", "of another model"])
    assert set(wanted.produced) == {*plain_names, "head"}


def test_a_tied_array_that_is_wanted_gets_the_values_of_the_other(tied: Family) -> None:
    plain, stacked = bind(tied, PLAIN), bind(tied, STACKED.replace('refill: MEAN mean_of: "embed"', "refill: ZERO"))
    arrays = numbered(stacked)
    made = run(compose(stacked, plain, arrays, wanted=["head"]), arrays)
    assert np.array_equal(made["head"], arrays["embed"])
