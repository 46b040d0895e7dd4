from __future__ import annotations

from typing import Any

import pytest

from mappings import catalog
from tests.campaigns.maxtext_keys import BLOCKS, maxtext_keys, without_fused

_GEMMA2: dict[str, Any] = {
    "model_type": "gemma2",
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256000,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}


def test_a_pair_of_layers_is_one_and_rows_are_added_as_the_block_has_them() -> None:
    keys = maxtext_keys(_GEMMA2, "gemma2-2b")
    assert (keys["base_num_decoder_layers"], keys["vocab_size"]) == (3, 256128)


def test_the_head_dimension_is_the_configs_or_the_quotient() -> None:
    assert maxtext_keys(_GEMMA2, "gemma2-2b")["head_dim"] == 12
    assert maxtext_keys({**_GEMMA2, "head_dim": 20}, "gemma2-2b")["head_dim"] == 20


def test_a_null_field_decides_nothing_but_where_the_block_says_what_null_means() -> None:
    keys = maxtext_keys({**_GEMMA2, "final_logit_softcapping": None, "q_lora_rank": None}, "gemma2-2b")
    assert not {"final_logits_soft_cap", "q_lora_rank"} & keys.keys()
    deepseek = {**_GEMMA2, "model_type": "deepseek_v2", "q_lora_rank": None}
    assert maxtext_keys(deepseek, "deepseek2-16b")["q_lora_rank"] == 0


def test_a_field_can_decide_two_keys() -> None:
    keys = maxtext_keys({**_GEMMA2, "model_type": "mixtral"}, "mixtral-8x7b")
    assert (keys["base_mlp_dim"], keys["base_moe_mlp_dim"]) == (72, 72)


def test_each_kind_of_layer_has_its_own_theta() -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    keys = maxtext_keys({**_GEMMA2, "model_type": "gemma3_text", "rope_parameters": rope}, "gemma3-4b")
    found = (keys["rope_max_timescale"], keys["local_rope_max_timescale"], keys["rope_linear_scaling_factor"])
    assert found == (1_000_000, 10_000, 8.0)


def test_sizes_of_text_and_tower_are_taken_apart() -> None:
    tower = {"hidden_size": 24, "patch_size": 5, "num_hidden_layers": 3}
    config = {"model_type": "gemma3", "text_config": {**_GEMMA2, "model_type": "gemma3_text"}, "vision_config": tower}
    keys = maxtext_keys(config, "gemma3-4b")
    assert (keys["base_emb_dim"], keys["hidden_size_for_vit"]) == (48, 24)
    assert (keys["base_num_decoder_layers"], keys["num_hidden_layers_for_vit"]) == (6, 3)
    assert keys["patch_size_for_vit"] == keys["conv_stride_for_vit"] == 5
    assert keys["use_multimodal"] is True


def test_whether_the_head_is_tied_the_top_of_the_config_says() -> None:
    text = {**_GEMMA2, "model_type": "qwen3_vl_text", "tie_word_embeddings": True}
    config = {"model_type": "qwen3_vl", "tie_word_embeddings": False, "text_config": text}
    assert maxtext_keys(config, "qwen3-vl-4b")["logits_via_embedding"] is False


def test_what_maxtext_has_no_key_for_takes_the_size_that_maxtext_gives_it() -> None:
    text = {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 18}
    assert without_fused({"model_type": "qwen3_next", **text})["shared_expert_intermediate_size"] == 24
    nested = without_fused({"model_type": "qwen3_5_moe", "text_config": text})
    assert nested["text_config"]["shared_expert_intermediate_size"] == 24


@pytest.mark.parametrize(
    ("rope", "name"),
    [({"rope_type": "yarn", "factor": 4.0}, "qwen3-8b"), ({"rope_type": "llama3", "factor": 8.0}, "llama3.1-8b")],
)
def test_a_rotary_embedding_that_the_block_does_not_apply_is_refused(rope: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match="MaxText"):
        maxtext_keys({**_GEMMA2, "model_type": "qwen3", "rope_parameters": rope}, name)


def test_every_block_is_of_a_model_type_that_recast_serves() -> None:
    assert BLOCKS.keys() <= catalog.known_model_types().keys()
