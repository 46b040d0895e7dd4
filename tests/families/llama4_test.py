"""Llama 4, experts in every layer or in every second one: proven as every family is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.loader import load_family
from tests import checkpoints
from tests.end_to_end.running import restored
from tests.families import harness
from tests.families.harness import Family, FamilyTests, Saved
from tests.oracles import llama4 as oracle
from tests.oracles.arrays import Variant

VISION: dict[str, Any] = {
    "model_type": "llama4",
    "boi_token_index": 45,
    "eoi_token_index": 46,
    "image_token_index": 47,
    "text_config": {
        "model_type": "llama4_text",
        "vocab_size": 52,
        "hidden_size": 40,
        "intermediate_size": 22,
        "intermediate_size_mlp": 30,
        "num_hidden_layers": 8,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 6,
        "num_local_experts": 3,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "vision_config": {
        "model_type": "llama4_vision_model",
        "hidden_size": 24,
        "image_size": 20,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "patch_size": 5,
        "projector_input_dim": 28,
        "projector_output_dim": 28,
        "vision_output_dim": 28,
    },
}
"""As Maverick: layers with and without experts in turn."""

SCOUT: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 26,
    "num_hidden_layers": 8,
    "num_attention_heads": 10,
    "num_key_value_heads": 5,
    "head_dim": 14,
    "num_local_experts": 6,
    "interleave_moe_layer_step": 1,
}
"""Experts in every layer."""


class TestLlama4(FamilyTests):
    family = Family(
        folder="llama4",
        configs={
            "maverick": VISION,
            "scout": {**VISION, "text_config": {**VISION["text_config"], **SCOUT}},
        },
        oracle=oracle.to_maxtext,
        published={
            "llama4-17b-16e": 108_641_793_536,
            "llama4-17b-16e-instruct": 108_641_793_536,
            "llama4-17b-128e": 401_583_781_376,
        },
        auto_class="AutoModelForImageTextToText",
        square=("vit_pixel_shuffle_mlp_fc2.kernel",),
    )

    @pytest.mark.parametrize("scan", [True, False])
    def test_without_use_multimodal_the_decoder_alone_goes_there_and_the_kept_tower_comes_back_too(
        self, saved: Saved, scan: bool, tmp_path: Path
    ) -> None:
        variant = Variant(scan=scan, options={"use_multimodal": "false"})
        harness.to_maxtext(saved.directory, tmp_path / "mt", variant)
        expected = oracle.to_maxtext(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        harness.to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), saved.tensors) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tie_word_embeddings": True}, "tie_word_embeddings must be false"),
        ({"attention_bias": True}, "attention_bias must be false"),
        ({"interleave_moe_layer_step": 3}, "interleave_moe_layer_step must be 1, 2 or 4"),
        ({"moe_layers": [0, 2, 4, 6]}, "moe_layers must be every"),
        ({"moe_layers": [1, 3]}, "moe_layers must be every"),
        ({"no_rope_layer_interval": 2}, "no_rope_layer_interval must be 4"),
        ({"no_rope_layers": [1, 0, 1, 0, 1, 0, 1, 0]}, "no_rope_layers must be 0 for every fourth"),
        ({"no_rope_layers": [1, 1, 1, 0]}, "no_rope_layers must be 0 for every fourth"),
        ({"layer_types": ["full_attention"] * 8}, "layer_types must be full_attention for every fourth layer"),
        ({"num_hidden_layers": 6, "moe_layers": None}, "num_hidden_layers must be a multiple of 4"),
        ({"num_key_value_heads": 5}, "a multiple of num_key_value_heads"),
        ({"head_dim": 5}, "head_dim must be even"),
        ({"num_experts_per_tok": 4}, "num_experts_per_tok must not be above"),
    ],
)
def test_a_decoder_that_the_block_cannot_hold_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        bind_family(load_family("llama4"), {**VISION, "text_config": {**VISION["text_config"], **change}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size must be a multiple"),
        ({"projector_input_dim": 30}, "projector_input_dim, projector_output_dim and vision_output_dim must be equal"),
        ({"vision_output_dim": 30}, "projector_input_dim, projector_output_dim and vision_output_dim must be equal"),
        ({"multi_modal_projector_bias": True}, "multi_modal_projector_bias must be false"),
    ],
)
def test_a_tower_that_the_block_cannot_hold_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        bind_family(load_family("llama4"), {**VISION, "vision_config": {**VISION["vision_config"], **change}})
