"""DeepSeek 2 and 3 between Hugging Face and MaxText, element by element.

Hugging Face keeps projections as [out, in]. The rows of a query head are those that are not rotated, then those that
are; kv_b_proj has for each head the rows of its key, then those of its value; kv_a_proj_with_mqa has the compressed
rows, then the rotated rows that all heads share. MaxText keeps the same orders: [in, heads, rows of a head], the output
projection as [heads, rows of a head, in], everything else as [in, out], and all experts of a layer in one array, the
expert first. The members of a rotary pair are neighbours on both sides, unless config.json says rope_interleave false:
then Hugging Face has them in halves, and MaxText still as neighbours.

Dense layers and layers with experts are two groups, each counted from 0 and stacked for itself. The router bias of
DeepSeek 3 has a dtype of its own. MaxText 0.2.4 keeps it among the parameters, stacked at axis 1 like them; 0.2.5 in a
collection of its own, stacked at axis 0. Layers that predict further tokens (MTP) follow the last one in the files;
MaxText has them, if at all, in a block beside the decoder, never stacked, and without the copies of embedding and head.
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
    dtype_of,
    heads_first,
    heads_last,
    outer,
    placed,
    stacked,
    turned,
)

_BIAS = "mlp.gate.e_score_correction_bias"
_BLOCK = "DeepSeekMoeBlock_0.MoeBlock_0."
_SHARED = "DeepSeekMoeBlock_0.shared_experts."


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    return arranged(_cast(tensors, variant), config, variant)


def arranged(rounded: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The leaves that hold tensors which are in their final dtypes already."""
    leaves = outer(rounded, config)
    first = config["first_k_dense_replace"]
    count = config["num_hidden_layers"]
    dense = [_dense_layer(rounded, f"model.layers.{layer}.", config) for layer in range(first)]
    sparse = [_sparse_layer(rounded, f"model.layers.{layer}.", config) for layer in range(first, count)]
    leaves |= placed(dense, variant.scan, ROOT + "decoder.dense_layers")
    leaves |= placed(sparse, variant.scan, ROOT + "decoder.moe_layers")
    biases = [rounded[f"model.layers.{layer}.{_BIAS}"] for layer in range(first, count) if _has_bias(rounded, layer)]
    leaves |= _placed_biases(biases, variant)
    further = config.get("num_nextn_predict_layers", 0) if variant.options.get("mtp") == "true" else 0
    for number in range(further):
        leaves |= _mtp_layer(rounded, f"model.layers.{count + number}.", number + 1, config, variant)
    return leaves


def _mtp_layer(
    tensors: Mapping[str, Array], prefix: str, number: int, config: Mapping[str, Any], variant: Variant
) -> Arrays:
    """The layer that predicts one token more than the one before it; embedding and head are those of the model."""
    outer = f"mtp_block.mtp_layer_{number}.mtp_{number}_"
    inner = f"{outer}transformer_layer."
    leaves = {f"{ROOT}{inner}{name}": values for name, values in _sparse_layer(tensors, prefix, config).items()}
    leaves[f"{_bias_root(variant)}{inner}{_BLOCK}gate.bias"] = tensors[prefix + _BIAS]
    return leaves | {
        f"{ROOT}{outer}embedding_norm.scale": tensors[prefix + "enorm.weight"],
        f"{ROOT}{outer}hidden_state_norm.scale": tensors[prefix + "hnorm.weight"],
        f"{ROOT}{outer}projection.kernel": turned(tensors[prefix + "eh_proj.weight"]),
        f"{ROOT}{outer}final_norm.scale": tensors[prefix + "shared_head.norm.weight"],
    }


def _bias_root(variant: Variant) -> str:
    return "params.MoEBiasVar." if variant.options.get("router_bias") == "collection" else ROOT


def _cast(tensors: Mapping[str, Array], variant: Variant) -> Arrays:
    keeps = variant.exactness == "invertible"
    with np.errstate(over="ignore"):
        return {
            name: values if keeps and name.endswith(_BIAS) else values.astype(dtype_of(variant.save_dtype))
            for name, values in tensors.items()
        }


def _has_bias(tensors: Mapping[str, Array], layer: int) -> bool:
    return f"model.layers.{layer}.{_BIAS}" in tensors


def _placed_biases(biases: list[Array], variant: Variant) -> Arrays:
    if not biases:
        return {}
    root = _bias_root(variant)
    if variant.scan:
        axis = 1 if variant.options.get("version") == "0.2.4" else 0
        return {f"{root}decoder.moe_layers.{_BLOCK}gate.bias": stacked(biases, axis=axis)}
    return {f"{root}decoder.moe_layers_{number}.{_BLOCK}gate.bias": values for number, values in enumerate(biases)}


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    attention = prefix + "self_attn."
    heads = config["num_attention_heads"]
    leaves = {
        "pre_self_attention_layer_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_self_attention_layer_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "self_attention.kv_norm.scale": tensors[attention + "kv_a_layernorm.weight"],
        "self_attention.wkv_a.kernel": _neighbours(
            turned(tensors[attention + "kv_a_proj_with_mqa.weight"]), config["kv_lora_rank"], config
        ),
        "self_attention.wkv_b.kernel": heads_last(tensors[attention + "kv_b_proj.weight"], heads),
        "self_attention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
    }
    plain = config["qk_nope_head_dim"]
    if config.get("q_lora_rank") is None:
        queries = heads_last(tensors[attention + "q_proj.weight"], heads)
        return leaves | {"self_attention.query.kernel": _neighbours(queries, plain, config)}
    queries = heads_last(tensors[attention + "q_b_proj.weight"], heads)
    return leaves | {
        "self_attention.wq_a.kernel": turned(tensors[attention + "q_a_proj.weight"]),
        "self_attention.q_norm.scale": tensors[attention + "q_a_layernorm.weight"],
        "self_attention.wq_b.kernel": _neighbours(queries, plain, config),
    }


def _neighbours(values: Array, start: int, config: Mapping[str, Any]) -> Array:
    """With the rotated elements, which begin at `start` of the last axis, in pairs of neighbours."""
    if config.get("rope_interleave", True):
        return values
    half = config["qk_rope_head_dim"] // 2
    out = values.copy()
    for pair in range(half):
        out[..., start + 2 * pair] = values[..., start + pair]
        out[..., start + 2 * pair + 1] = values[..., start + half + pair]
    return out


def _dense_layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    return _layer(tensors, prefix, config) | _mlp(tensors, prefix + "mlp.", "mlp.")


def _sparse_layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    experts = prefix + "mlp.experts."
    count = config["n_routed_experts"]
    leaves = _layer(tensors, prefix, config) | _mlp(tensors, prefix + "mlp.shared_experts.", _SHARED)
    leaves[_BLOCK + "gate.kernel"] = turned(tensors[prefix + "mlp.gate.weight"])
    for theirs, ours in (("gate_proj", "wi_0"), ("up_proj", "wi_1"), ("down_proj", "wo")):
        turned_experts = [turned(tensors[f"{experts}{expert}.{theirs}.weight"]) for expert in range(count)]
        leaves[_BLOCK + ours] = stacked(turned_experts, axis=0)
    return leaves


def _mlp(tensors: Mapping[str, Array], theirs: str, ours: str) -> Arrays:
    return {
        ours + "wi_0.kernel": turned(tensors[theirs + "gate_proj.weight"]),
        ours + "wi_1.kernel": turned(tensors[theirs + "up_proj.weight"]),
        ours + "wo.kernel": turned(tensors[theirs + "down_proj.weight"]),
    }
