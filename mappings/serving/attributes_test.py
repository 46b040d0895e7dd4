"""What configs state, in all their spellings."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format

from mappings.serving import attributes
from recast_proto import compatibility_pb2


def _value(sources: str, config: dict[str, Any], family: str = "llama") -> Any:
    field = text_format.Parse(f'attribute: "x" {sources}', compatibility_pb2.ConfigField())
    return attributes.value_of(field, config, family)


def test_the_first_place_that_has_a_value_counts() -> None:
    both = 'source { path: "a.b" } source { path: "c" }'
    assert _value(both, {"a": {"b": 1}, "c": 2}) == 1
    assert _value(both, {"a": {"b": None}, "c": 2}) == 2
    assert _value(both, {"a": 3, "c": 0}) == 0
    assert _value(both, {"c": None}) is None


def test_a_path_is_looked_up_where_the_family_keeps_its_config() -> None:
    config = {"hidden_size": 1, "text_config": {"hidden_size": 2}}
    assert _value('source { path: "hidden_size" }', config, "llama") == 2
    assert _value('source { path: "hidden_size" }', config, "gemma3") == 1


def test_a_family_that_is_not_there_keeps_its_config_at_the_top() -> None:
    config = {"text_config": {"hidden_size": 2}, "vocab_size": 3}
    assert _value('source { path: "vocab_size" }', config, "marsupial") == 3
    assert _value('source { path: "hidden_size" }', config, "marsupial") is None


@pytest.mark.parametrize(
    ("of", "by", "expected"), [(64, 4, 16), (64, 5, None), (64, 0, None), (64, True, None), ("64", 4, None)]
)
def test_a_quotient_is_a_value_where_it_divides(of: Any, by: Any, expected: int | None) -> None:
    assert _value('source { quotient { of: "a" by: "b" } }', {"a": of, "b": by}) == expected


def test_what_readers_assume_may_hold_for_some_families_alone() -> None:
    sources = """source { path: "a" } source { json: "4" family: "gemma3" } source { json: '"none"' }"""
    assert _value(sources, {}, "gemma3") == 4
    assert _value(sources, {}, "llama") == "none"
    assert _value(sources, {"a": 5}, "gemma3") == 5


def test_a_reading_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(attributes.UnknownReadingError, match="no reading 'tea_leaves'; known are: activation, attn"):
        _value('source { reading: "tea_leaves" }', {})


@pytest.mark.parametrize(
    ("config", "family", "expected"),
    [
        ({"hidden_act": "silu"}, "llama", "silu"),
        ({"hidden_activation": "gelu_pytorch_tanh", "hidden_act": "gelu"}, "gemma2", "gelu_pytorch_tanh"),
        ({"hidden_act": "gelu"}, "gemma", "gelu_pytorch_tanh"),
        ({"hidden_act": "gelu"}, "llama", "gelu"),
        ({}, "llama", None),
    ],
)
def test_the_activation_has_two_names(config: dict[str, Any], family: str, expected: str | None) -> None:
    assert _value('source { reading: "activation" }', config, family) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"sliding_window": 4096}, 4096),
        ({"sliding_window": 4096, "use_sliding_window": True}, 4096),
        ({"sliding_window": 4096, "use_sliding_window": False}, attributes.NULL),
        ({}, None),
    ],
)
def test_a_window_that_is_switched_off_is_as_null(config: dict[str, Any], expected: object) -> None:
    assert _value('source { reading: "sliding_window" }', config) == expected


@pytest.mark.parametrize(
    ("config", "expected"), [({"a": 7}, 7), ({"a": None}, attributes.NULL), ({}, 5), ({"a": None, "b": 6}, 6)]
)
def test_a_null_is_not_what_a_config_without_the_key_means(config: dict[str, Any], expected: object) -> None:
    assert _value('source { path: "a" } source { path: "b" } source { json: "5" }', config) == expected


def test_a_null_is_nothing_where_nothing_is_assumed_or_a_source_says_so() -> None:
    assert _value('source { path: "a" } source { json: "5" family: "gemma3" }', {"a": None}, "llama") is None
    assert _value('source { path: "a" null_is_absent: true } source { json: "5" }', {"a": None}) == 5


def test_an_assumption_may_hold_for_a_model_type_or_beside_no_other_key_alone() -> None:
    sources = 'source { path: "a" } source { json: "5" model_type: "x" } source { json: "6" unless: "b" }'
    assert _value(sources, {"model_type": "x"}) == 5
    assert _value(sources, {"model_type": ["x"]}) == 6
    assert _value(sources, {"b": {}}) is None


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "gemma4", "llama4", "olmo3", "qwen2", "qwen3_next"])
@pytest.mark.parametrize("wrong", [0, -1, True, "6", [], {}, 10**9, 2.5])
def test_kinds_of_layers_cannot_be_derived_from_what_is_no_number(family: str, wrong: object) -> None:
    for reading in ("layer_types", "moe_layers", "no_rope_layers"):
        assert _value(f'source {{ reading: "{reading}" }}', {"num_hidden_layers": wrong}, family) is None
    assert _value('source { reading: "layer_types" }', {"num_hidden_layers": 8}, family) is not None


@pytest.mark.parametrize(
    "config",
    [{"torch_dtype": "bfloat16"}, {"dtype": "torch.bfloat16"}, {"dtype": "bfloat16", "torch_dtype": "float16"}],
)
def test_the_dtype_has_two_keys(config: dict[str, Any]) -> None:
    assert _value('source { reading: "dtype" }', config) == "bfloat16"


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": {"type": "yarn", "factor": 4.0}, "rope_theta": 7.0},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 7.0}},
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 7.0, "partial_rotary_factor": 1}},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 7.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3.0},
            }
        },
        {"partial_rotary_factor": 1, "rope_scaling": {"type": "yarn", "factor": 4.0, "beta_fast": None}},
    ],
)
def test_scaling_is_read_in_the_spellings_of_both_versions(config: dict[str, Any]) -> None:
    assert _value('source { reading: "rope_parameters" }', config) == {"factor": 4.0}


def test_a_part_of_a_head_that_is_rotated_belongs_to_the_scaling() -> None:
    both = ({"partial_rotary_factor": 0.25}, {"rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 1.0}})
    assert [_value('source { reading: "rope_parameters" }', config) for config in both] == [
        {"partial_rotary_factor": 0.25}
    ] * 2


@pytest.mark.parametrize("config", [{}, {"rope_scaling": None, "rope_theta": 5.0}, {"rope_parameters": {"type": "x"}}])
def test_no_parameters_are_no_value(config: dict[str, Any]) -> None:
    assert _value('source { reading: "rope_parameters" }', config) is None


def test_scaling_that_is_no_object_is_a_value_that_nothing_equals() -> None:
    assert _value('source { reading: "rope_parameters" }', {"rope_scaling": "yarn"}) == "yarn"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"x": 1, "y": {"z": 2}}, (1, "")),
        ({"y": {"z": 2}}, (2, "y.z")),
        ({"a": 6, "b": 3}, (2, "a / b")),
        ({}, (7, "left out, which means so")),
    ],
)
def test_a_value_comes_with_the_place_where_it_is_stated(config: dict[str, Any], expected: tuple[int, str]) -> None:
    sources = 'source { path: "x" } source { path: "y.z" } source { quotient { of: "a" by: "b" } } source { json: "7" }'
    field = text_format.Parse(f'attribute: "x" {sources}', compatibility_pb2.ConfigField())
    assert attributes.stated(field, config, "llama") == expected


def test_a_config_that_states_nothing_has_no_place_for_it() -> None:
    field = text_format.Parse('attribute: "x" source { path: "x" }', compatibility_pb2.ConfigField())
    assert attributes.stated(field, {}, "llama") == (None, "")


def test_a_path_with_a_leading_dot_is_looked_up_at_the_top_alone() -> None:
    config = {"model_type": "gemma4", "text_config": {"model_type": "gemma4_text"}}
    assert _value('source { path: "model_type" }', config, "gemma4") == "gemma4_text"
    assert _value('source { path: ".model_type" }', config, "gemma4") == "gemma4"
    assert _value('source { path: ".model_type" }', {"text_config": {"model_type": "gemma4_text"}}, "gemma4") is None
    assert _value('source { path: ".text_config.model_type" }', config, "qwen3_vl") == "gemma4_text"
