"""Mixtral: proven as every family is, and with packed experts."""

from __future__ import annotations

from tests.families.harness import Family, FamilyTests
from tests.families.packed_experts import PackedExpertsTests
from tests.oracles import mixtral as oracle


class TestMixtral(PackedExpertsTests, FamilyTests):
    family = Family(
        folder="mixtral",
        configs={
            "untied-128": {
                "model_type": "mixtral",
                "vocab_size": 96,
                "hidden_size": 80,
                "intermediate_size": 112,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "num_local_experts": 5,
                "num_experts_per_tok": 2,
                "tie_word_embeddings": False,
            },
            "tied-64": {
                "model_type": "mixtral",
                "vocab_size": 72,
                "hidden_size": 192,
                "intermediate_size": 88,
                "num_hidden_layers": 2,
                "num_attention_heads": 3,
                "num_key_value_heads": 1,
                "num_local_experts": 4,
                "num_experts_per_tok": 1,
                "tie_word_embeddings": True,
            },
        },
        oracle=oracle.to_maxtext,
        state_options={"hf_layout": "transformers5"},
        published={
            "mixtral-8x7b": 46_702_792_704,
            "mixtral-8x22b": 140_630_071_296,
            "mixtral-8x22b-v0.1": 140_620_634_112,
        },
    )
