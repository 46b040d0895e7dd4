"""Llama: proven as every family is; Llama 3.1's order of rotary pairs has tests/end_to_end/llama_test.py."""

from __future__ import annotations

from tests.families.harness import Family, FamilyTests
from tests.oracles import llama_style as oracle


class TestLlama(FamilyTests):
    family = Family(
        folder="llama",
        configs={
            "untied-128": {
                "model_type": "llama",
                "vocab_size": 96,
                "hidden_size": 84,
                "intermediate_size": 112,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "tie_word_embeddings": False,
            },
            "tied": {
                "model_type": "llama",
                "vocab_size": 72,
                "hidden_size": 70,
                "intermediate_size": 88,
                "num_hidden_layers": 4,
                "num_attention_heads": 7,
                "num_key_value_heads": 1,
                "head_dim": 10,
                "tie_word_embeddings": True,
            },
        },
        oracle=oracle.to_maxtext,
        published={
            "llama2-7b": 6_738_415_616,
            "llama2-13b": 13_015_864_320,
            "llama2-70b": 68_976_648_192,
            "llama3-8b": 8_030_261_248,
            "llama3-70b": 70_553_706_496,
            "llama3.1-8b": 8_030_261_248,
            "llama3.1-70b": 70_553_706_496,
            "llama3.1-405b": 405_853_388_800,
            "llama3.2-1b": 1_235_814_400,
            "llama3.2-3b": 3_212_749_824,
            "llama3.3-70b": 70_553_706_496,
        },
    )
