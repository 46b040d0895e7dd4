"""Gemma 2 between Hugging Face and MaxText, element by element.

MaxText's layer j holds Hugging Face's layers 2j, as `local`, and 2j + 1, as `global`. Norms are stored as 1 + weight.
The embedding is multiplied by the root of the hidden size; the model divides it out of the logits again, so that a head
of its own stays as it is. MaxText's block does not scale scores: the query is divided by the root of
query_pre_attn_scalar, which is the head dimension in the 2B and 9B, and 144 in the 27B, whose head dimension is 128.
The vocabulary of the published models, 256000, is filled with zeros to 256128.
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
        ROOT + "decoder.decoder_norm.scale": plus_one(rounded["model.norm.weight"]),
    }
    if not config["tie_word_embeddings"]:
        leaves[ROOT + "decoder.logits_dense.kernel"] = turned(with_zero_rows(rounded["lm_head.weight"], rows))
    pairs = []
    for local in range(0, config["num_hidden_layers"], 2):
        pair = _layer(rounded, f"model.layers.{local}.", config, variant, "local")
        pair |= _layer(rounded, f"model.layers.{local + 1}.", config, variant, "global")
        pairs.append(pair)
    return leaves | placed(pairs, variant.scan)


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any], variant: Variant, kind: str) -> Arrays:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    query = heads_last(tensors[attention + "q_proj.weight"], heads)
    return {
        f"pre_self_attention_norm_{kind}.scale": plus_one(tensors[prefix + "input_layernorm.weight"]),
        f"post_self_attention_norm_{kind}.scale": plus_one(tensors[prefix + "post_attention_layernorm.weight"]),
        f"pre_ffw_norm_{kind}.scale": plus_one(tensors[prefix + "pre_feedforward_layernorm.weight"]),
        f"post_ffw_norm_{kind}.scale": plus_one(tensors[prefix + "post_feedforward_layernorm.weight"]),
        f"self_attention_{kind}.query.kernel": times(query, config["query_pre_attn_scalar"] ** -0.5, variant),
        f"self_attention_{kind}.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        f"self_attention_{kind}.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        f"self_attention_{kind}.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        f"mlp_{kind}.wi_0.kernel": turned(tensors[mlp + "gate_proj.weight"]),
        f"mlp_{kind}.wi_1.kernel": turned(tensors[mlp + "up_proj.weight"]),
        f"mlp_{kind}.wo.kernel": turned(tensors[mlp + "down_proj.weight"]),
    }
