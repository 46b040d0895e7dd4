"""Gemma 1: proven as every family is."""

from __future__ import annotations

from tests.families.harness import Family, FamilyTests
from tests.oracles import gemma as oracle


class TestGemma(FamilyTests):
    family = Family(
        folder="gemma",
        configs={
            # A query whose factor is inexact in bfloat16.
            "inexact": {
                "model_type": "gemma",
                "vocab_size": 96,
                "hidden_size": 84,
                "intermediate_size": 112,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "tie_word_embeddings": True,
            },
            # The published vocabulary, which MaxText fills up, and a query whose factor is a power of two.
            "vocabulary": {
                "model_type": "gemma",
                "vocab_size": 256000,
                "hidden_size": 6,
                "intermediate_size": 10,
                "num_hidden_layers": 5,
                "num_attention_heads": 3,
                "num_key_value_heads": 1,
                "head_dim": 4,
                "tie_word_embeddings": False,
            },
        },
        oracle=oracle.to_maxtext,
        published={"gemma-2b": 2_506_172_416, "gemma-7b": 8_537_680_896},
    )
