"""Mistral: Llama's mapping under another model_type, proven as every family is."""

from __future__ import annotations

from tests.families.harness import Family, FamilyTests
from tests.oracles import llama_style as oracle


class TestMistral(FamilyTests):
    family = Family(
        folder="mistral",
        configs={
            # hidden_size is no multiple of num_attention_heads
            "untied": {
                "model_type": "mistral",
                "vocab_size": 48,
                "hidden_size": 62,
                "intermediate_size": 100,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "sliding_window": 512,
                "tie_word_embeddings": False,
            },
        },
        oracle=oracle.to_maxtext,
        published={
            "mistral-7b-v0.1": 7_241_732_096,
            "mistral-7b-v0.2": 7_241_732_096,
            "mistral-7b-v0.3": 7_248_023_552,
        },
    )
