import math
from typing import Any

import numpy as np

from converters.engine import binding, checks
from converters.engine.memory_checkpoint import MemorySource

CONFIG: dict[str, Any] = {
    "num_hidden_layers": 2,
    "vocab_size": 20,
    "hidden_size": 12,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}


def _checked(config: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    family = binding.family_for("llama", config)
    source = binding.layout_for(family, "llama", "hf", {})
    target = binding.layout_for(family, "llama", "maxtext", {})
    checkpoint = MemorySource(arrays)
    found = checks.check(binding.compose(source, target, checkpoint.tensors), checkpoint)
    return [(d.id, d.subject) for d in found]


def _arrays(config: dict[str, Any]) -> dict[str, np.ndarray]:
    family = binding.family_for("llama", config)
    layout = binding.layout_for(family, "llama", "hf", {})
    return {
        name: np.arange(1, 1 + math.prod(array.shape), dtype=np.float32).reshape(array.shape)
        for name, array in layout.arrays.items()
    }


def test_a_tie_that_holds_is_accepted() -> None:
    arrays = _arrays(CONFIG | {"tie_word_embeddings": True})
    assert _checked(CONFIG | {"tie_word_embeddings": True}, arrays) == []


def test_a_tie_that_differs_in_one_bit_is_refused() -> None:
    arrays = _arrays(CONFIG | {"tie_word_embeddings": True})
    arrays["lm_head.weight"][13, 7] += 1
    found = _checked(CONFIG | {"tie_word_embeddings": True}, arrays)
    assert found == [("TIE_DOES_NOT_HOLD", "lm_head.weight")]


def test_negative_zero_differs_from_zero_in_a_tie() -> None:
    arrays = _arrays(CONFIG | {"tie_word_embeddings": True})
    arrays["lm_head.weight"][0, 0] = 0.0
    arrays["model.embed_tokens.weight"][0, 0] = -0.0
    assert len(_checked(CONFIG | {"tie_word_embeddings": True}, arrays)) == 1


def test_a_bias_that_would_be_dropped_must_be_zero() -> None:
    config = CONFIG | {"attention_bias": True}
    arrays = _arrays(config)
    for name in arrays:
        if name.endswith(".bias"):
            arrays[name][:] = 0
    assert _checked(config, arrays) == []
    arrays["model.layers.1.self_attn.k_proj.bias"][5] = 1e-30
    assert _checked(config, arrays) == [("TENSOR_NOT_ZERO", "model.layers.1.self_attn.k_proj.bias")]
