"""Llama and Mistral between Hugging Face and MaxText, element by element; no biases, rotary pairs in halves.

Projections are [out, in] in the files and [in, heads, head_dim] in MaxText (the output projection: [heads, head_dim,
in]). The query kernel holds 1/sqrt(head_dim), multiplied in float32. tests/oracles/llama.py knows the other order of
rotary pairs too, and models with biases.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracles.arrays import (
    Array,
    Arrays,
    Variant,
    cast,
    dtype_of,
    heads_first,
    heads_last,
    outer,
    placed,
    turned,
)


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    leaves = outer(rounded, config)
    layers = [_layer(rounded, f"model.layers.{i}.", config, variant) for i in range(config["num_hidden_layers"])]
    return leaves | placed(layers, variant.scan)


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any], variant: Variant) -> Arrays:
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    query = heads_last(tensors[attention + "q_proj.weight"], heads)
    return {
        "pre_self_attention_layer_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_self_attention_layer_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "self_attention.query.kernel": _scaled(query, variant),
        "self_attention.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        "self_attention.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        "self_attention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        "mlp.wi_0.kernel": turned(tensors[mlp + "gate_proj.weight"]),
        "mlp.wi_1.kernel": turned(tensors[mlp + "up_proj.weight"]),
        "mlp.wo.kernel": turned(tensors[mlp + "down_proj.weight"]),
    }


def _scaled(query: Array, variant: Variant) -> Array:
    """Divided by sqrt(head_dim); kept in float32 where the factor is no power of two and the way back needs it."""
    head_dim = query.shape[-1]
    root = math.isqrt(head_dim)
    exact = root * root == head_dim and root & (root - 1) == 0
    name = "float32" if variant.exactness == "invertible" and not exact else variant.save_dtype
    return (query.astype(np.float32) * np.float32(head_dim**-0.5)).astype(dtype_of(name))
