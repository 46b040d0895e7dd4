"""Gemma 4, 26B and 31B, with experts and without: proven as every family is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mappings import catalog
from mappings.language.errors import MappingErrors
from tests import checkpoints
from tests.end_to_end.running import restored
from tests.families.harness import (
    Config,
    Family,
    FamilyTests,
    Saved,
    header_of,
    layout_of,
    to_hf,
    to_maxtext,
)
from tests.oracles import gemma4 as oracle
from tests.oracles.arrays import Variant
from validators import hf_config

_TEXT: Config = {
    "model_type": "gemma4_text",
    "vocab_size": 64,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 10,
    "global_head_dim": 14,
    "num_global_key_value_heads": 3,
    "attention_k_eq_v": True,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 64,
    "sliding_window": 4,
    "tie_word_embeddings": True,
}
_ROUTED: Config = {
    **_TEXT,
    "enable_moe_block": True,
    "num_experts": 7,
    "top_k_experts": 3,
    "moe_intermediate_size": 16,
}
_VISION: Config = {
    "model_type": "gemma4_vision",
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 6,
    "patch_size": 4,
    "position_embedding_size": 18,
    "standardize": True,
}


def _with_tower(text: Config, **vision: Any) -> dict[str, Any]:
    return {
        "model_type": "gemma4",
        "text_config": text,
        "vision_config": {**_VISION, **vision},
        "audio_config": None,
        "tie_word_embeddings": text["tie_word_embeddings"],
    }


_UNTIED: Config = {**_TEXT, "num_hidden_layers": 24, "tie_word_embeddings": False}


class TestGemma4(FamilyTests):
    family = Family(
        folder="gemma4",
        configs={"routed": _with_tower(_ROUTED), "dense-untied": _with_tower(_UNTIED, standardize=False)},
        oracle=oracle.to_maxtext,
        published={"gemma4-26b": 25_805_933_872, "gemma4-31b": 31_273_086_512},
        auto_class="AutoModelForImageTextToText",
    )

    @pytest.mark.parametrize("scan", [True, False])
    def test_without_use_multimodal_the_decoder_alone_goes_there_and_the_tower_is_kept_for_the_way_back(
        self, saved: Saved, scan: bool, tmp_path: Path
    ) -> None:
        variant = Variant(scan=scan, options={"use_multimodal": "false"})
        to_maxtext(saved.directory, tmp_path / "mt", variant)
        expected = oracle.to_maxtext(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), saved.tensors) == []


def test_sizes_of_full_attention_are_read_layer_by_layer_too() -> None:
    config = {key: value for key, value in _TEXT.items() if not key.startswith(("global", "num_global"))}
    sizes = {"head_dim": 18, "num_key_value_heads": 2}
    text = {**config, "per_layer_config": {"05": sizes, "11": sizes}}
    header = header_of(layout_of("gemma4", "hf", _with_tower(text)))
    assert header["model.language_model.layers.5.self_attn.k_proj.weight"] == (36, 40)
    assert header["model.language_model.layers.11.self_attn.q_proj.weight"] == (108, 40)
    text = {**config, "num_hidden_layers": 6, "per_layer_config": {"5": sizes}}
    header = header_of(layout_of("gemma4", "hf", _with_tower(text)))
    assert header["model.language_model.layers.5.self_attn.q_norm.weight"] == (18,)


def test_a_published_config_has_a_rotary_embedding_for_each_kind_of_layers() -> None:
    manifest = catalog.find("gemma4-31b")
    assert manifest is not None
    text = manifest.config["text_config"]
    rope = {**text["rope_parameters"], "full_attention": {"rope_type": "longrope", "rope_theta": 1000000.0}}
    found = hf_config.check_config({**manifest.config, "text_config": {**text, "rope_parameters": rope}})
    assert "UNKNOWN_ROPE_TYPE" in {fault.id for fault in found}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10}, "multiple of 6"),
        ({"layer_types": ["sliding_attention"] * 12}, "every sixth layer"),
        ({"layer_types": ["sliding_attention"] * 5 + ["full_attention"]}, "an entry for each layer"),
        ({"attention_k_eq_v": False}, "attention_k_eq_v"),
        ({"hidden_size_per_layer_input": 256}, "hidden_size_per_layer_input"),
        ({"num_kv_shared_layers": 2}, "num_kv_shared_layers"),
        ({"use_double_wide_mlp": True}, "use_double_wide_mlp"),
        ({"attention_bias": True}, "attention_bias"),
        ({"num_global_key_value_heads": 4}, "num_global_key_value_heads"),
        ({"enable_moe_block": True, "num_experts": 2, "top_k_experts": 3, "moe_intermediate_size": 4}, "top_k_experts"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear"}}},
            "rope_parameters.sliding_attention must be of type default",
        ),
    ],
)
def test_a_decoder_that_maxtext_cannot_hold_is_refused(changes: Config, message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("gemma4", "maxtext", _with_tower({**_TEXT, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_clipped_linears": True}, "use_clipped_linears"),
        ({"attention_bias": True}, "vision_config.attention_bias"),
        ({"num_key_value_heads": 2}, "num_key_value_heads"),
    ],
)
def test_a_tower_that_maxtext_cannot_hold_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("gemma4", "maxtext", _with_tower(_TEXT, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"audio_config": {"model_type": "gemma4_audio"}}, "audio_config"), ({"vision_config": None}, "vision_config")],
)
def test_an_audio_tower_and_a_missing_one_for_images_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("gemma4", "maxtext", {**_with_tower(_TEXT), **changes})
