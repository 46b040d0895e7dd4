"""DeepSeek 2: proven as every family is."""

from __future__ import annotations

import pytest

from mappings.language.errors import MappingErrors
from tests.families.harness import Config, Family, FamilyTests, layout_of
from tests.oracles import deepseek as oracle

_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 40.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 4096,
}
_LITE: Config = {
    "model_type": "deepseek_v2",
    "vocab_size": 96,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 6,
    "first_k_dense_replace": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "n_routed_experts": 7,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "greedy",
    "rope_parameters": _YARN,
    "tie_word_embeddings": False,
}
_LARGE: Config = {
    **_LITE,
    "vocab_size": 72,
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "first_k_dense_replace": 2,
    "q_lora_rank": 26,
    "v_head_dim": 10,
    "n_routed_experts": 6,
    "n_group": 2,
    "topk_method": "group_limited_greedy",
    "tie_word_embeddings": True,
}


class TestDeepseek2(FamilyTests):
    family = Family(
        folder="deepseek2",
        configs={"lite": _LITE, "compressed-queries-tied": _LARGE},
        oracle=oracle.to_maxtext,
        published={"deepseek2-16b": 15_706_484_224, "deepseek2-236b": 235_741_434_880},
        state_options={"hf_layout": "transformers5"},
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topk_method": "noaux_tc"}, "topk_method"),
        ({"scoring_func": "sigmoid"}, "scoring_func"),
        ({"first_k_dense_replace": -1}, "first_k_dense_replace"),
    ],
)
def test_a_config_that_maxtext_cannot_hold_is_refused(changes: Config, message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("deepseek2", "maxtext", {**_LITE, **changes})
