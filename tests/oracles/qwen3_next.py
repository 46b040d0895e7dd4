"""Qwen3-Next between Hugging Face and MaxText, element by element.

Three layers of a cycle of four have linear attention (gated delta nets), the last one full attention. No value changes:
projections are [out, in] in the files and [in, out] in MaxText. Full attention keeps [in, heads, head_dim] for queries,
whose heads hold a gate behind the query, for keys and values, but a plain matrix for its output. The fused projections
of linear attention, whose rows go by key head on both sides, are turned as they are; the taps of the convolution come
first in MaxText. Experts are one array of each kind, [experts, in, out].

Stacked layers: MaxText 0.2.5 keeps `global_layer` (the full attention of each cycle, stacked at axis 1) and
`local_layers` (all others, two axes at 1 and 2: the cycle and the place in it), 0.2.4 `layer_0`, `layer_1` and so on by
place in the cycle, each stacked at axis 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.oracles.arrays import ROOT, Array, Arrays, Variant, cast, heads_last, outer, placed, stacked, turned


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    leaves = outer(rounded, config)
    cycle = config["full_attention_interval"]
    layers = []
    for number in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{number}."
        is_full = number % cycle == cycle - 1
        attention = _full(rounded, prefix, config) if is_full else _linear(rounded, prefix)
        layers.append(attention | others(rounded, prefix, config))
    if not variant.scan:
        return leaves | placed(layers, scan=False)
    cycles = [layers[first : first + cycle] for first in range(0, len(layers), cycle)]
    if variant.options.get("version") == "0.2.4":
        for place in range(cycle):
            leaves |= placed([layers_[place] for layers_ in cycles], True, f"{ROOT}decoder.layers.layer_{place}")
        return leaves
    leaves |= placed([layers_[-1] for layers_ in cycles], True, f"{ROOT}decoder.layers.global_layer")
    return leaves | _nested(cycles)


def _nested(cycles: Sequence[Sequence[Arrays]]) -> Arrays:
    return {
        f"{ROOT}decoder.layers.local_layers.{name}": stacked(
            [stacked([layer[name] for layer in layers[:-1]]) for layers in cycles]
        )
        for name in cycles[0][0]
    }


def _full(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    attention = prefix + "self_attn."
    kv_heads = config["num_key_value_heads"]
    return {
        "attention.attention.query.kernel": heads_last(
            tensors[attention + "q_proj.weight"], config["num_attention_heads"]
        ),
        "attention.attention.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        "attention.attention.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        "attention.attention.out.kernel": turned(tensors[attention + "o_proj.weight"]),
        "attention.attention.query_norm.scale": tensors[attention + "q_norm.weight"],
        "attention.attention.key_norm.scale": tensors[attention + "k_norm.weight"],
    }


def _linear(tensors: Mapping[str, Array], prefix: str) -> Arrays:
    attention = prefix + "linear_attn."
    return {
        "attention.in_proj_qkvz.kernel": turned(tensors[attention + "in_proj_qkvz.weight"]),
        "attention.in_proj_ba.kernel": turned(tensors[attention + "in_proj_ba.weight"]),
        "attention.conv1d.kernel": taps_first(tensors[attention + "conv1d.weight"]),
        "attention.A_log": tensors[attention + "A_log"],
        "attention.dt_bias": tensors[attention + "dt_bias"],
        "attention.norm.rms_norm.scale": tensors[attention + "norm.weight"],
        "attention.out_proj.kernel": turned(tensors[attention + "out_proj.weight"]),
    }


def others(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    """What every layer has beside its attention."""
    mlp = prefix + "mlp."
    return {
        "input_layernorm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_attention_layernorm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "mlp.routed_experts.gate.kernel": turned(tensors[mlp + "gate.weight"]),
        "mlp.routed_experts.wi_0": _experts(tensors, mlp, "gate_proj", config),
        "mlp.routed_experts.wi_1": _experts(tensors, mlp, "up_proj", config),
        "mlp.routed_experts.wo": _experts(tensors, mlp, "down_proj", config),
        "mlp.shared_expert.wi_0.kernel": turned(tensors[mlp + "shared_expert.gate_proj.weight"]),
        "mlp.shared_expert.wi_1.kernel": turned(tensors[mlp + "shared_expert.up_proj.weight"]),
        "mlp.shared_expert.wo.kernel": turned(tensors[mlp + "shared_expert.down_proj.weight"]),
        "mlp.shared_expert_gate.kernel": turned(tensors[mlp + "shared_expert_gate.weight"]),
    }


def _experts(tensors: Mapping[str, Array], prefix: str, name: str, config: Mapping[str, Any]) -> Array:
    count = config["num_experts"]
    return stacked([turned(tensors[f"{prefix}experts.{expert}.{name}.weight"]) for expert in range(count)], axis=0)


def taps_first(convolution: Array) -> Array:
    """[channels, 1, taps] to [taps, 1, channels]."""
    channels, one, taps = convolution.shape
    out = np.empty((taps, one, channels), convolution.dtype)
    for tap in range(taps):
        for channel in range(channels):
            out[tap, 0, channel] = convolution[channel, 0, tap]
    return out
