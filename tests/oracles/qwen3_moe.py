"""Qwen 3 with experts between Hugging Face and MaxText, element by element.

Projections are [out, in] in the files, [in, heads, head_dim] in MaxText (the output projection: [heads, head_dim, in]);
the norms of query and key heads are kept as they are. Rotary pairs lie in halves on both sides, and MaxText divides by
the root of head_dim itself, so no value changes. MaxText keeps the experts of each kind in one array, [experts, in,
out], with the layers of a scan at axis 1 like everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.oracles.arrays import (
    Array,
    Arrays,
    Variant,
    cast,
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
    layers = [_layer(rounded, f"model.layers.{layer}.", config) for layer in range(config["num_hidden_layers"])]
    return leaves | placed(layers, variant.scan)


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    return {
        "pre_self_attention_layer_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_self_attention_layer_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "self_attention.query.kernel": heads_last(tensors[attention + "q_proj.weight"], heads),
        "self_attention.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        "self_attention.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        "self_attention.query_norm.scale": tensors[attention + "q_norm.weight"],
        "self_attention.key_norm.scale": tensors[attention + "k_norm.weight"],
        "self_attention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        "moe_block.gate.kernel": turned(tensors[mlp + "gate.weight"]),
        "moe_block.wi_0": _experts(tensors, mlp, "gate_proj", config),
        "moe_block.wi_1": _experts(tensors, mlp, "up_proj", config),
        "moe_block.wo": _experts(tensors, mlp, "down_proj", config),
    }


def _experts(tensors: Mapping[str, Array], prefix: str, name: str, config: Mapping[str, Any]) -> Array:
    count = config["num_experts"]
    return stacked([turned(tensors[f"{prefix}experts.{expert}.{name}.weight"]) for expert in range(count)], axis=0)
