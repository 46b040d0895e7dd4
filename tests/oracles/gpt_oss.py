"""GPT-OSS between Hugging Face and MaxText, element by element.

Hugging Face keeps projections of the attention and the router as [out, in], all with biases, and the experts packed as
[experts, in, out] with the columns of the gate at even and those of the up projection at odd places. MaxText keeps
[in, heads, head_dim] (the output projection: [heads, head_dim, in]), biases as [heads, head_dim], gate and up
projection apart, experts as [experts, in, out]. Every second layer is of the same kind; stacked layers are two stacks.
Rotary pairs lie in halves on both sides, and MaxText divides by the root of head_dim itself, so no value changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracles.arrays import (
    ROOT,
    Array,
    Arrays,
    Variant,
    cast,
    heads_first,
    heads_last,
    heads_of,
    outer,
    placed,
    turned,
)


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    leaves = outer(rounded, config)
    layers = [_layer(rounded, f"model.layers.{layer}.", config) for layer in range(config["num_hidden_layers"])]
    if not variant.scan:
        return leaves | placed(layers, scan=False)
    leaves |= placed(layers[0::2], scan=True, prefix=ROOT + "decoder.layers.layers_0")
    return leaves | placed(layers[1::2], scan=True, prefix=ROOT + "decoder.layers.layers_1")


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    heads = config["num_attention_heads"]
    kv_heads = config["num_key_value_heads"]
    attention, experts = prefix + "self_attn.", prefix + "mlp.experts."
    leaves = {
        "pre_self_attention_layer_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_self_attention_layer_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "GptOssAttention.query.kernel": heads_last(tensors[attention + "q_proj.weight"], heads),
        "GptOssAttention.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        "GptOssAttention.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        "GptOssAttention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        "GptOssAttention.sinks": tensors[attention + "sinks"],
        "GptOssMlp.gate.kernel": turned(tensors[prefix + "mlp.router.weight"]),
        "GptOssMlp.gate.bias": tensors[prefix + "mlp.router.bias"],
        "GptOssMlp.wi_0": every_second(tensors[experts + "gate_up_proj"], 0),
        "GptOssMlp.wi_1": every_second(tensors[experts + "gate_up_proj"], 1),
        "GptOssMlp.wi_0_bias": every_second(tensors[experts + "gate_up_proj_bias"], 0),
        "GptOssMlp.wi_1_bias": every_second(tensors[experts + "gate_up_proj_bias"], 1),
        "GptOssMlp.wo": tensors[experts + "down_proj"],
        "GptOssMlp.wo_bias": tensors[experts + "down_proj_bias"],
    }
    if config.get("attention_bias", True):
        leaves |= {
            "GptOssAttention.query.bias": heads_of(tensors[attention + "q_proj.bias"], heads),
            "GptOssAttention.key.bias": heads_of(tensors[attention + "k_proj.bias"], kv_heads),
            "GptOssAttention.value.bias": heads_of(tensors[attention + "v_proj.bias"], kv_heads),
            "GptOssAttention.out.bias": tensors[attention + "o_proj.bias"],
        }
    return leaves


def every_second(values: Array, first: int) -> Array:
    """The columns first, first + 2, first + 4 and so on."""
    width = values.shape[-1] // 2
    out = np.empty((*values.shape[:-1], width), values.dtype)
    for column in range(width):
        out[..., column] = values[..., 2 * column + first]
    return out
