"""Mixtral between Hugging Face and MaxText, element by element.

Attention and norms are Mistral's: projections are [out, in] in the files and [in, heads, head_dim] in MaxText (the
output projection: [heads, head_dim, in]), rotary pairs lie in halves on both sides, and the query kernel holds
1/sqrt(head_dim), multiplied in float32. Of the experts, w1 is the gate (wi_0), w3 the other input (wi_1) and w2 the
output (wo); MaxText keeps each kind in one array, [experts, in, out], with the layers of a scan at axis 1.
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
    stacked,
    turned,
)


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    leaves = outer(rounded, config)
    layers = [_layer(rounded, f"model.layers.{i}.", config, variant) for i in range(config["num_hidden_layers"])]
    return leaves | placed(layers, variant.scan)


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any], variant: Variant) -> Arrays:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    attention, experts = prefix + "self_attn.", prefix + "block_sparse_moe."
    query = heads_last(tensors[attention + "q_proj.weight"], heads)
    return {
        "pre_self_attention_layer_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_self_attention_layer_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "self_attention.query.kernel": _scaled(query, variant),
        "self_attention.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        "self_attention.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        "self_attention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        "MoeBlock_0.gate.kernel": turned(tensors[experts + "gate.weight"]),
        "MoeBlock_0.wi_0": _experts(tensors, experts, "w1", config),
        "MoeBlock_0.wi_1": _experts(tensors, experts, "w3", config),
        "MoeBlock_0.wo": _experts(tensors, experts, "w2", config),
    }


def _experts(tensors: Mapping[str, Array], prefix: str, name: str, config: Mapping[str, Any]) -> Array:
    count = config["num_local_experts"]
    return stacked([turned(tensors[f"{prefix}experts.{expert}.{name}.weight"]) for expert in range(count)], axis=0)


def _scaled(query: Array, variant: Variant) -> Array:
    head_dim = query.shape[-1]
    root = math.isqrt(head_dim)
    factor_is_power_of_two = root * root == head_dim and root & (root - 1) == 0
    stays_float32 = variant.exactness == "invertible" and not factor_is_power_of_two
    dtype = np.dtype(np.float32) if stays_float32 else dtype_of(variant.save_dtype)
    return (query.astype(np.float32) * np.float32(head_dim**-0.5)).astype(dtype)
