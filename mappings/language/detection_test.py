import itertools

import pytest

from mappings.language.detection import Detection, Difference, detect, differences, mean_the_same, signature
from mappings.language.errors import MappingErrors
from mappings.language.family import Family
from mappings.language.layout import bind_layout
from mappings.language.loader import parse_layout
from mappings.language.nodes import LayoutSource
from mappings.language.testing import family_of

FAMILY = """name: "toy"
atom { name: "l" size: "layers" index: true }
atom { name: "e" size: "hidden" }
atom { name: "f" size: "inner" }
atom { name: "p" size: "2" }
atom { name: "r" size: "3" }
atom { name: "d" is: "p r" }
tensor { id: "embed" axes: "f e" }
tensor { id: "bias" axes: "e" when: "biased ?? false" }
tensor { id: "head" axes: "f e" }
tie { tensor: "head" to: "embed" }
group { axes: "l" tensor { id: "q" axes: "d e" } }
"""
LAYOUT = """format: "f" stack_axis: "0"
option { name: "scan" value: ["true", "false"] default: "true" }
option { name: "version" value: ["1", "2"] default: "'2'" doc: "places the bias" }
option { name: "model" default: "''" }
option { name: "rope" value: ["half", "pairs"] default: "starts(model, 'new') ? 'pairs' : 'half'" }
option { name: "gating" value: ["fe", "ef"] default: "hidden == 7 ? 'ef' : 'fe'" }
option { name: "prefix" value: ["a.", "b."] default: "'a.'" }
atom { name: "d" is: "r p" when: "rope == 'pairs'" }
mirror { name: "mu" root: "mu." }
rule { tensor: "embed" name: "{$prefix}embed" axes: "f e" when: "gating == 'fe'" }
rule { tensor: "embed" name: "{$prefix}embed" axes: "e f" when: "gating == 'ef'" }
rule { tensor: "head" name: "head" axes: "f e" optional: "true" }
rule { tensor: "bias" name: "old" axes: "e" when: "version == '1'" }
rule { tensor: "bias" name: "new" axes: "e" when: "version == '2'" }
scope {
  at { when: "scan" stack: "l" }
  at { when: "!scan" name: "{l}." }
  rule { tensor: "q" name: "q" axes: "d e" }
}
ignore { name: "step" reason: "count" }
"""
SOURCE = parse_layout(LAYOUT, "layout.textproto", "toy")


def family(**config: object) -> Family:
    return family_of(FAMILY, {"layers": 2, "hidden": 5, "inner": 4, **config})


def header(bound: Family, source: LayoutSource, options: dict[str, object] | None = None) -> dict[str, tuple[int, ...]]:
    return bind_layout(bound, source, options).header(optional=False, mirrors=False)


def found(bound: Family, fixed: dict[str, object] | None = None, **options: object) -> Detection:
    return detect(bound, SOURCE, header(bound, SOURCE, options), fixed)


def test_options_that_show_in_names_and_shapes_are_decided() -> None:
    bound = family(biased=True)
    for scan in (True, False):
        for version in ("1", "2"):
            for prefix in ("a.", "b."):
                for gating in ("fe", "ef"):
                    wanted = {"scan": scan, "version": version, "prefix": prefix, "gating": gating}
                    detected = found(bound, {"rope": "half"}, **wanted)
                    assert detected.fits
                    assert detected.options == {**wanted, "rope": "half", "model": ""}
                    assert not detected.undecided
                    assert not detected.defaulted


def test_an_option_that_changes_no_value_keeps_its_default() -> None:
    detected = found(family(), {"rope": "half"})
    assert detected.options["version"] == "2"
    assert detected.defaulted == ("version",)
    assert not detected.undecided


def test_an_option_that_changes_values_unseen_is_undecided() -> None:
    detected = found(family())
    assert detected.undecided == {"rope": ("half", "pairs")}
    assert "rope" not in detected.options
    assert detected.options["scan"] is True


def test_an_option_follows_from_a_given_name() -> None:
    assert found(family(), {"model": "newest"}).options["rope"] == "pairs"
    assert found(family(), {"model": "old"}).options["rope"] == "half"
    assert not found(family(), {"model": "old"}).undecided


def test_an_empty_name_is_no_name() -> None:
    assert found(family(), {"model": ""}).undecided


def test_an_option_follows_from_the_config() -> None:
    square = family(inner=5)
    detected = found(square, {"rope": "half"})
    assert detected.options["gating"] == "fe"
    assert not detected.undecided
    assert found(family(hidden=7, inner=7), {"rope": "half"}, gating="fe").options["gating"] == "ef"


def test_a_constant_default_does_not_decide_what_changes_values() -> None:
    text = LAYOUT.replace("\"hidden == 7 ? 'ef' : 'fe'\"", "\"'fe'\"")
    source = parse_layout(text, "layout.textproto", "toy")
    bound = family(inner=5)
    detected = detect(bound, source, header(bound, source), {"rope": "half"})
    assert detected.undecided == {"gating": ("fe", "ef")}


def test_a_size_one_pair_changes_no_value() -> None:
    bound = family_of(
        FAMILY.replace('name: "r" size: "3"', 'name: "r" size: "1"'), {"layers": 2, "hidden": 5, "inner": 4}
    )
    detected = found(bound)
    assert not detected.undecided
    assert set(detected.defaulted) == {"version", "rope"}


def test_fixed_options_are_not_tried() -> None:
    detected = found(family(), {"rope": "half", "scan": False})
    assert not detected.fits
    assert detected.options["scan"] is False
    assert {difference.kind for difference in detected.nearest} == {"missing", "unexpected"}


def test_optional_arrays_training_state_and_ignored_names_may_be_there() -> None:
    bound = family()
    full = bind_layout(bound, SOURCE, {}).header()
    assert "head" in full
    assert "mu.q" in full
    assert detect(bound, SOURCE, {**full, "step": ()}, {"rope": "half"}).fits


def test_where_nothing_fits_the_nearest_combination_is_reported() -> None:
    bound = family(biased=True)
    damaged = header(bound, SOURCE, {"scan": False, "version": "1", "prefix": "b."})
    del damaged["1.q"]
    damaged["b.embed"] = (4, 6)
    damaged["lora"] = (1,)
    detected = detect(bound, SOURCE, damaged)
    assert not detected.fits
    assert detected.nearest == (
        Difference("missing", "1.q", (6, 5), None),
        Difference("shape", "b.embed", (4, 5), (4, 6)),
        Difference("unexpected", "lora", None, (1,)),
    )
    expected = {"scan": False, "version": "1", "prefix": "b."}
    assert {name: detected.options[name] for name in expected} == expected


def test_differences_of_a_fitting_header_are_none() -> None:
    bound = family()
    layout = bind_layout(bound, SOURCE, {})
    assert differences(layout, layout.header()) == ()


def test_a_layout_that_binds_with_no_options_raises_its_issues() -> None:
    broken = parse_layout(LAYOUT.replace('axes: "d e" }', 'axes: "d" }'), "layout.textproto", "toy")
    with pytest.raises(MappingErrors, match="axis 'e' of tensor 'q' has no place in this rule"):
        detect(family(), broken, {})


def test_an_unknown_fixed_option_is_an_error() -> None:
    with pytest.raises(MappingErrors, match="no option named 'scam'"):
        detect(family(), SOURCE, {}, {"scam": 1})


def test_too_many_combinations_are_refused() -> None:
    extra = "".join(f'option {{ name: "o{i}" value: ["a", "b", "c"] default: "\'a\'" }}\n' for i in range(5))
    with pytest.raises(MappingErrors, match="combinations of option values"):
        detect(family(), parse_layout(LAYOUT + extra, "layout.textproto", "toy"), {})


def test_signatures_are_equal_exactly_where_elements_lie_alike() -> None:
    bound = family()

    def of(**options: object) -> frozenset[object]:
        return signature(bind_layout(bound, SOURCE, options))

    assert of() == of(version="1")
    assert of() != of(rope="pairs")
    assert of() != of(gating="ef")


def test_layouts_mean_the_same_exactly_where_their_signatures_are_equal() -> None:
    bound = family()
    choices = itertools.product(("1", "2"), ("half", "pairs"), ("fe", "ef"))
    layouts = [
        bind_layout(bound, SOURCE, {"version": version, "rope": rope, "gating": gating})
        for version, rope, gating in choices
    ]
    pairs = list(itertools.product(layouts, repeat=2))
    expected = [signature(first) == signature(second) for first, second in pairs]
    assert [mean_the_same(first, second) for first, second in pairs] == expected
    assert 8 < sum(expected) < 64
