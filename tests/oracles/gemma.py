"""Gemma 1 between Hugging Face and MaxText, element by element.

Norms are stored as 1 + weight; the embedding is multiplied by the root of the hidden size, the query by that of one
over the head dimension. The vocabulary of the published models, 256000, is filled with zeros to 256128. MaxText's own
script for Gemma 1 writes everything in one dtype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tests.oracles.arrays import ROOT, Array, Arrays, Variant, cast, heads_first, heads_last, placed, turned
from tests.oracles.gemma_values import plus_one, times, with_zero_rows


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    rows = 256128 if config["vocab_size"] == 256000 else config["vocab_size"]
    embedding = with_zero_rows(rounded["model.embed_tokens.weight"], rows)
    leaves: Arrays = {
        ROOT + "token_embedder.embedding": times(embedding, math.sqrt(config["hidden_size"]), variant),
        ROOT + "decoder.decoder_norm.scale": plus_one(rounded["model.norm.weight"], _norm_dtype(variant)),
    }
    if not config["tie_word_embeddings"]:
        leaves[ROOT + "decoder.logits_dense.kernel"] = turned(with_zero_rows(rounded["lm_head.weight"], rows))
    layers = [
        _layer(rounded, f"model.layers.{layer}.", config, variant) for layer in range(config["num_hidden_layers"])
    ]
    return leaves | placed(layers, variant.scan)


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any], variant: Variant) -> Arrays:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    attention, mlp, norm = prefix + "self_attn.", prefix + "mlp.", _norm_dtype(variant)
    query = heads_last(tensors[attention + "q_proj.weight"], heads)
    return {
        "pre_self_attention_norm.scale": plus_one(tensors[prefix + "input_layernorm.weight"], norm),
        "pre_ffw_norm.scale": plus_one(tensors[prefix + "post_attention_layernorm.weight"], norm),
        "self_attention.query.kernel": times(query, config["head_dim"] ** -0.5, variant),
        "self_attention.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        "self_attention.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        "self_attention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        "mlp.wi_0.kernel": turned(tensors[mlp + "gate_proj.weight"]),
        "mlp.wi_1.kernel": turned(tensors[mlp + "up_proj.weight"]),
        "mlp.wo.kernel": turned(tensors[mlp + "down_proj.weight"]),
    }


def _norm_dtype(variant: Variant) -> str:
    return variant.save_dtype if variant.exactness == "as_requested" else "float32"
