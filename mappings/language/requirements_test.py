"""Requirements: what is said of a config that does not satisfy one, and requirements of each layer."""

import pytest

from mappings.language.errors import MappingErrors
from mappings.language.testing import family_of

FAMILY = """name: "toy"
config_root: "" config_root: "text"
let {{ name: "kinds" value: "layer_types ?? null" }}
let {{ name: "experts" value: "num_experts ?? num_local_experts ?? 1" }}
atom {{ name: "l" size: "layers" index: true }}
atom {{ name: "h" size: "heads" }}
atom {{ name: "d" is: "p r" }} atom {{ name: "p" size: "2" }} atom {{ name: "r" size: "head_dim // 2" }}
tensor {{ id: "q" axes: "l h d" }}
require {{ {require} }}
"""
CONFIG = {"layers": 4, "heads": 3, "text": {"head_dim": 10}}


def refused(require: str, **fields: object) -> str:
    with pytest.raises(MappingErrors) as error:
        family_of(FAMILY.format(require=require), {**CONFIG, **fields})
    (issue,) = error.value.issues
    assert (issue.kind, issue.location) == ("require", "family.textproto:9")
    return issue.text


@pytest.mark.parametrize(
    ("that", "fields", "found"),
    [
        ("step == 1", {"step": 2}, "the config has step = 2"),
        ("(method ?? 'a') == 'a'", {"method": "b"}, "the config has method = 'b'"),
        ("step == 1 && stride == 1", {"step": 1, "stride": 4}, "the config has step = 1, stride = 4"),
        ("only == null", {"only": [1, 2]}, "the config has only = [1, 2]"),
        ("experts < 2", {"num_local_experts": 3}, "the config has num_local_experts = 3"),
        ("size(h) % 2 == 0", {}, "the config has heads = 3"),
        ("size(d) % 4 == 0", {}, "the config has head_dim = 10"),
        ("vision.size == 1", {"vision": {"size": 7}}, "the config has vision.size = 7"),
        ("(vision ?? null) == null || vision.size == 1", {"vision": {"size": 7}}, "the config has vision.size = 7"),
        ("(theta ?? 0) != 0", {}, "the config has no theta"),
        ("(theta ?? base ?? 0) != 0", {}, "the config has no theta and no base"),
        ("len(text_) < 9", {"text_": "x" * 99}, "the config has text_ = '" + "x" * 56 + "..."),
    ],
)
def test_the_values_of_the_fields_that_it_reads_are_shown(that: str, fields: dict[str, object], found: str) -> None:
    assert refused(f'that: "{that}" say: "wrong"', **fields) == f"wrong ({found})"


def test_one_of_each_layer_names_the_first_layer_for_which_it_does_not_hold() -> None:
    require = """each: "l" that: "kinds == null || kinds[l] == (l % 2 == 0 ? 'a' : 'b')" say: "a and b take turns" """
    family_of(FAMILY.format(require=require), CONFIG)
    family_of(FAMILY.format(require=require), {**CONFIG, "layer_types": ["a", "b", "a", "b"]})
    said = refused(require, layer_types=["a", "b", "b", "a"])
    assert said == "a and b take turns (the config has layer_types[2] = 'b')"


def test_one_of_each_value_of_an_unknown_atom_is_an_error() -> None:
    with pytest.raises(MappingErrors, match="no atom named 'layer'"):
        family_of(FAMILY.format(require='each: "layer" that: "layer < 3" say: "wrong"'), CONFIG)
