"""Tests of the rotary embedding's spellings."""

from __future__ import annotations

from typing import Any

import pytest

from reporting.diagnostics import Diagnostic
from validators.rope import RopeView, carried, check_rope, rope_view, spellings, transformers4_view

SCALED = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
V4 = {"rope_theta": 500000.0, "rope_scaling": {**SCALED, "rope_type": "llama3"}}
V5 = {"rope_parameters": {**SCALED, "rope_type": "llama3", "rope_theta": 500000.0}}
KNOWN = ("default", "llama3")


def _found(config: dict[str, Any]) -> list[tuple[str, str]]:
    return [(diagnostic.id, diagnostic.subject) for diagnostic in check_rope(config, KNOWN)]


def _one(config: dict[str, Any]) -> Diagnostic:
    (diagnostic,) = check_rope(config, KNOWN)
    return diagnostic


@pytest.mark.parametrize(
    "config",
    [
        V4,
        V5,
        V4 | V5,
        V4 | {"rope_scaling": {**SCALED, "type": "llama3"}},
        V4 | {"rope_scaling": {**SCALED, "type": "llama3", "rope_type": "llama3"}},
        V5 | {"rope_scaling": None},
        V5 | {"rope_theta": 500000},
    ],
)
def test_every_spelling_of_a_scaled_embedding_means_the_same(config: dict[str, Any]) -> None:
    assert check_rope(config, KNOWN) == []
    assert rope_view(config) == RopeView(500000.0, "llama3", SCALED)


@pytest.mark.parametrize(
    ("config", "theta"),
    [
        ({}, 10000.0),
        ({"rope_scaling": None}, 10000.0),
        ({"rope_scaling": {}}, 10000.0),
        ({"rope_theta": 1000000.0, "rope_scaling": None}, 1000000.0),
        ({"rope_theta": 500000}, 500000.0),
        ({"rope_parameters": {"rope_theta": 500000.0}}, 500000.0),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "rope_theta": 500000}, 500000.0),
        ({"rope_scaling": {"rope_type": "default"}}, 10000.0),
    ],
)
def test_every_spelling_of_a_plain_embedding_is_understood(config: dict[str, Any], theta: float) -> None:
    assert check_rope(config, KNOWN) == []
    assert rope_view(config) == RopeView(theta, "default", {})


def test_transformers_4_does_not_see_the_newer_spelling() -> None:
    assert transformers4_view(V5) == RopeView(10000.0, "default", {})
    assert transformers4_view(V4) == rope_view(V4)
    assert transformers4_view({"rope_scaling": {"rope_type": "default", "rope_theta": 5e5}}).theta == 10000.0


def test_both_spellings_of_a_scaled_embedding() -> None:
    assert spellings(rope_view(V5)) == V4 | V5


def test_both_spellings_of_a_plain_embedding() -> None:
    assert spellings(RopeView(5e5, "default", {})) == {
        "rope_theta": 5e5,
        "rope_scaling": None,
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"},
    }


@pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", ["yarn", "linear", "dynamic", "longrope", "Llama3", ""])
def test_an_unknown_type_is_named_with_the_known_ones(section: str, kind: str) -> None:
    diagnostic = _one({section: {"rope_type": kind, **SCALED}})
    assert (diagnostic.id, diagnostic.subject) == ("UNKNOWN_ROPE_TYPE", f"{section}.rope_type")
    assert f"'{kind}'" in diagnostic.reason
    assert "default, llama3" in diagnostic.reason


def test_an_unknown_type_is_found_under_its_old_name() -> None:
    assert _found({"rope_scaling": {"type": "yarn", "factor": 2.0}}) == [("UNKNOWN_ROPE_TYPE", "rope_scaling.type")]


def test_no_type_is_unknown_where_none_is_known() -> None:
    assert check_rope({"rope_scaling": {"type": "yarn", "factor": 2.0}}, ()) == []


def test_two_thetas_that_differ_are_both_named() -> None:
    diagnostic = _one({"rope_theta": 10000.0, "rope_parameters": {"rope_theta": 500000.0}})
    assert diagnostic.id == "CONFIG_FIELD_INVALID"
    assert "rope_theta is 10000.0" in diagnostic.reason
    assert "rope_parameters.rope_theta is 500000.0" in diagnostic.reason


def test_two_types_that_differ_are_a_fault() -> None:
    config = V4 | {"rope_parameters": {**SCALED, "rope_type": "default", "rope_theta": 500000.0}}
    assert _found(config) == [("CONFIG_FIELD_INVALID", "rope_scaling.rope_type")]


def test_two_names_of_one_type_that_differ_are_a_fault() -> None:
    config = {"rope_scaling": {**SCALED, "type": "default", "rope_type": "llama3"}}
    assert _found(config) == [("CONFIG_FIELD_INVALID", "rope_scaling.rope_type")]


def test_parameters_that_differ_are_each_a_fault() -> None:
    parameters = {**V5["rope_parameters"], "factor": 32.0, "low_freq_factor": 2.0}
    found = _found(V4 | {"rope_parameters": parameters})
    assert found == [
        ("CONFIG_FIELD_INVALID", "rope_scaling.factor"),
        ("CONFIG_FIELD_INVALID", "rope_scaling.low_freq_factor"),
    ]


@pytest.mark.parametrize("key", SCALED)
def test_a_parameter_that_the_type_needs_is_named(key: str) -> None:
    scaling = {name: value for name, value in V4["rope_scaling"].items() if name != key}  # type: ignore[attr-defined]
    assert _found({"rope_scaling": scaling}) == [("CONFIG_FIELD_MISSING", f"rope_scaling.{key}")]


def test_parameters_without_a_type_are_a_fault() -> None:
    assert _found({"rope_scaling": {"factor": 2.0}}) == [("CONFIG_FIELD_MISSING", "rope_scaling.rope_type")]


@pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("value", ["llama3", 8.0, [], True])
def test_a_section_must_be_an_object(section: str, value: object) -> None:
    assert _found({section: value}) == [("CONFIG_FIELD_INVALID", section)]


@pytest.mark.parametrize("value", ["10000", 0, -1.0, True, [10000.0]])
def test_theta_must_be_a_positive_number(value: object) -> None:
    assert _found({"rope_theta": value}) == [("CONFIG_FIELD_INVALID", "rope_theta")]
    assert _found({"rope_parameters": {"rope_theta": value}}) == [
        ("CONFIG_FIELD_INVALID", "rope_parameters.rope_theta")
    ]


def test_a_type_must_be_a_text() -> None:
    assert _found({"rope_scaling": {"rope_type": 3}}) == [("CONFIG_FIELD_INVALID", "rope_scaling.rope_type")]


def test_a_parameter_must_be_a_number() -> None:
    config = {"rope_scaling": {**SCALED, "rope_type": "llama3", "factor": "8"}}
    assert _found(config) == [("CONFIG_FIELD_INVALID", "rope_scaling.factor")]


def test_an_embedding_per_kind_of_layer_is_refused() -> None:
    config = {"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}}
    assert _found(config) == [
        ("CONFIG_FIELD_INVALID", "rope_parameters.full_attention"),
        ("CONFIG_FIELD_INVALID", "rope_parameters.sliding_attention"),
    ]


BY_KIND = {
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
    }
}
BY_KIND_V4 = {"rope_theta": 1000000.0, "rope_scaling": None, "rope_local_base_freq": 10000.0}


@pytest.mark.parametrize("config", [BY_KIND, BY_KIND_V4, BY_KIND | BY_KIND_V4])
def test_an_embedding_per_kind_of_layer_is_understood_where_a_family_has_it(config: dict[str, Any]) -> None:
    assert check_rope(config, KNOWN, by_kind=True) == []
    assert rope_view(config) == RopeView(1000000.0, "default", {})


def test_an_embedding_per_kind_of_layer_is_carried_beside_the_keys_of_version_4() -> None:
    assert carried(BY_KIND) == BY_KIND_V4


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ({"rope_theta": 5.0}, "rope_parameters.full_attention.rope_theta"),
        ({"rope_local_base_freq": 5.0}, "rope_parameters.sliding_attention.rope_theta"),
    ],
)
def test_the_older_spelling_must_not_contradict_a_kind_of_layer(change: dict[str, Any], subject: str) -> None:
    (found,) = check_rope(BY_KIND | change, KNOWN, by_kind=True)
    assert (found.id, found.subject) == ("CONFIG_FIELD_INVALID", subject)


def test_a_fault_in_one_kind_of_layer_is_named_with_its_place() -> None:
    section = {**BY_KIND["rope_parameters"], "full_attention": {"rope_type": "odd", "rope_theta": -1}}
    (found,) = check_rope({"rope_parameters": section}, KNOWN, by_kind=True)
    assert found.subject == "rope_parameters.full_attention.rope_theta"


def test_a_kind_of_layer_that_nobody_knows_is_refused() -> None:
    section = {**BY_KIND["rope_parameters"], "other": {}}
    assert {found.id for found in check_rope({"rope_parameters": section}, KNOWN, by_kind=True)} == {
        "CONFIG_FIELD_INVALID"
    }
