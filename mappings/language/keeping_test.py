"""What a format has no place for: kept by logical tensor and index, and given back to any format."""

import numpy as np
import pytest

from mappings.language.composition import compose
from mappings.language.errors import MappingErrors
from mappings.language.family import Family
from mappings.language.keeping import extended, is_kept, keepable, lost
from mappings.language.testing import family_of, layout_of, numbered, run

FAMILY = """name: "toy"
atom { name: "l" size: "4" index: true }
atom { name: "e" size: "5" }
atom { name: "x" size: "3" }
atom { name: "v" size: "10" }
atom { name: "vx" size: "vx" may_be_empty: true }
tensor { id: "embed" axes: "v e" }
tensor { id: "extra" axes: "vx e" }
tensor { id: "head" axes: "v e" }
tie { tensor: "head" to: "embed" when: "tied" }
tensor { id: "up" axes: "l x e" }
"""
PLAIN = """format: "plain"
rule { name: "embed" axes: "[embed: v | extra: vx] e" }
rule { tensor: "head" name: "head" axes: "v e" optional: "tied" }
scope { at { name: "layers.{l}." } rule { tensor: "up" name: "experts.{x}.up" axes: "e" } }
"""
PACKED = PLAIN.replace('"experts.{x}.up" axes: "e"', '"up" axes: "e x"')
SHORT = """format: "short" stack_axis: "1"
rule { tensor: "embed" name: "embed" axes: "v e" op { add { value: "1" } } }
scope { at { map: "l = i" over: "i: 2" stack: "i" } rule { tensor: "up" name: "up" axes: "x e" } }
absent { tensor: "up" where: "l >= 2" reason: "the last two layers have no place" keep: true refill: OMIT }
absent { tensor: "extra" reason: "cut" keep: true refill: ZERO }
absent { tensor: "head" reason: "no head" keep: true }
"""


@pytest.fixture(scope="module")
def family() -> Family:
    return family_of(FAMILY, {"tied": False, "vx": 2})


def test_the_kept_arrays_are_the_logical_tensors_for_each_index_value(family: Family) -> None:
    short = extended(layout_of(family, SHORT), ["kept/up/3", "kept/up/2", "kept/extra", "kept/head"])
    shapes = {name: array.shape for name, array in short.arrays.items() if is_kept(name)}
    assert shapes == {"kept/up/2": (3, 5), "kept/up/3": (3, 5), "kept/extra": (2, 5), "kept/head": (10, 5)}
    assert all(short.arrays[name].keep_dtype for name in shapes)


@pytest.mark.parametrize("other", [PLAIN, PACKED])
def test_all_comes_back_in_the_form_of_any_layout(other: str, family: Family) -> None:
    plain, bound, goal = layout_of(family, PLAIN), layout_of(family, SHORT), layout_of(family, other)
    arrays = numbered(plain)
    short = extended(bound, [each.name for each in lost(plain, bound, arrays)])
    there = run(compose(plain, short, arrays), arrays)
    assert np.array_equal(there["kept/extra"], arrays["embed"][10:])
    assert np.array_equal(there["kept/up/3"][1], arrays["layers.3.experts.1.up"])
    back = run(compose(short, goal, there), there)
    assert back.keys() == goal.arrays.keys()
    direct = run(compose(plain, goal, arrays), arrays)
    assert all(np.array_equal(back[name], values) for name, values in direct.items())


def test_what_was_not_kept_is_filled_as_the_absence_says(family: Family) -> None:
    plain, bound = layout_of(family, PLAIN), layout_of(family, SHORT)
    arrays = numbered(plain)
    short = extended(bound, ["kept/head", "kept/up/2"])
    there = run(compose(plain, short, arrays), arrays)
    back = run(compose(short, plain, there), there)
    assert not back["embed"][10:].any()
    assert "layers.2.experts.0.up" in back
    assert "layers.3.experts.0.up" not in back


def test_a_tied_tensor_is_not_kept_for_it_comes_back_by_the_other() -> None:
    tied = family_of(FAMILY, {"tied": True, "vx": 2})
    assert "kept/head" not in keepable(layout_of(tied, SHORT))


def test_a_tensor_without_elements_is_not_kept() -> None:
    empty = family_of(FAMILY, {"tied": False, "vx": 0})
    assert "kept/extra" not in keepable(layout_of(empty, SHORT))


def test_lost_is_what_the_source_has_and_the_target_keeps(family: Family) -> None:
    plain, short = layout_of(family, PLAIN), layout_of(family, SHORT)
    assert [each.name for each in lost(plain, short, plain.arrays)] == [
        "kept/up/2",
        "kept/up/3",
        "kept/extra",
        "kept/head",
    ]
    assert lost(short, short, short.arrays) == ()


def test_an_optional_array_that_the_source_lacks_is_not_lost() -> None:
    family = family_of(FAMILY.replace('tie { tensor: "head" to: "embed" when: "tied" }', ""), {"tied": True, "vx": 2})
    plain, short = layout_of(family, PLAIN), layout_of(family, SHORT)
    without = [name for name in plain.arrays if name != "head"]
    assert "kept/head" not in [each.name for each in lost(plain, short, without)]
    assert "kept/head" in [each.name for each in lost(plain, short, plain.arrays)]


@pytest.mark.parametrize("name", ["kept/up/1", "kept/up", "kept/embed", "kept/nothing"])
def test_a_name_that_nothing_is_kept_under_is_refused(name: str, family: Family) -> None:
    with pytest.raises(MappingErrors, match=f"nothing to keep as '{name}'"):
        extended(layout_of(family, SHORT), [name])


def test_keeping_what_must_be_zero_is_a_contradiction(family: Family) -> None:
    text = SHORT.replace('reason: "cut"', 'reason: "cut" must_be_zero: true')
    with pytest.raises(MappingErrors, match="exclude each other"):
        layout_of(family, text)
