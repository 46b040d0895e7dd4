"""Tests of what a checkpoint must share with the model that it is named after, where experts and parts make it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mappings import catalog
from validators import hf_config


def _config(name: str) -> dict[str, Any]:
    manifest = catalog.find(name)
    assert manifest is not None
    return dict(manifest.config)


def _mismatches(name: str, config: Mapping[str, Any]) -> list[str]:
    manifest = catalog.find(name)
    assert manifest is not None
    found = hf_config.compare_with_manifest(config, manifest)
    assert {diagnostic.id for diagnostic in found} <= {"MODEL_NAME_MISMATCH"}
    return [diagnostic.subject for diagnostic in found]


@pytest.mark.parametrize(
    ("name", "field", "value", "named"),
    [
        ("qwen3-30b-a3b", "num_experts", 64, "num_experts"),
        ("qwen3-30b-a3b", "moe_intermediate_size", 512, "moe_intermediate_size"),
        ("mixtral-8x7b", "num_local_experts", 16, "num_experts"),
        ("gpt-oss-20b", "num_local_experts", 128, "num_experts"),
        ("deepseek3-671b", "n_routed_experts", 128, "n_routed_experts"),
        ("qwen3-next-80b-a3b", "shared_expert_intermediate_size", 1024, "shared_expert_intermediate_size"),
        ("qwen3-next-80b-a3b", "partial_rotary_factor", 0.5, "rope_parameters"),
    ],
)
def test_experts_and_their_sizes_must_be_those_of_the_name(name: str, field: str, value: object, named: str) -> None:
    assert _mismatches(name, _config(name) | {field: value}) == [named]


def test_the_number_of_experts_is_the_same_in_every_spelling() -> None:
    config = _config("qwen3-30b-a3b")
    config["num_local_experts"] = config.pop("num_experts")
    assert _mismatches("qwen3-30b-a3b", config) == []


def test_the_rotated_part_of_a_head_is_the_same_in_both_spellings() -> None:
    config = _config("qwen3-next-80b-a3b")
    part, theta = config.pop("partial_rotary_factor"), config.pop("rope_theta")
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": part}
    assert _mismatches("qwen3-next-80b-a3b", config) == []


def test_a_part_that_is_the_whole_head_need_not_be_said() -> None:
    assert _mismatches("llama3-8b", _config("llama3-8b") | {"partial_rotary_factor": 1.0}) == []


def test_the_language_part_of_a_config_is_compared_too() -> None:
    assert _mismatches("gemma3-4b", _config("gemma3-4b")) == []
    found = _mismatches("gemma3-4b", _config("gemma3-12b"))
    assert {"hidden_size", "intermediate_size", "num_hidden_layers"} <= set(found)


def test_what_only_the_checkpoint_says_is_no_mismatch() -> None:
    """transformers writes the defaults that a published text_config leaves out."""
    config = _config("gemma3-4b")
    text = {**config["text_config"], "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256}
    text |= {"vocab_size": 262208, "rope_theta": 1000000.0}
    assert _mismatches("gemma3-4b", config | {"text_config": text}) == []


def test_the_rotary_embedding_of_the_language_part_is_compared() -> None:
    config = _config("gemma3-4b")
    text = {**config["text_config"], "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    assert _mismatches("gemma3-4b", config | {"text_config": text}) == ["rope_parameters"]


def test_every_published_model_matches_its_own_name() -> None:
    for manifest in catalog.manifests():
        assert hf_config.compare_with_manifest(manifest.config, manifest) == [], manifest.name
