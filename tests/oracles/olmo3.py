"""OLMo 3 between Hugging Face and MaxText, element by element.

Hugging Face keeps projections as [out, in] and, for each layer, one norm over all query heads, one over all key heads,
one behind attention and one behind the MLP. MaxText keeps [in, heads, head_dim] (the output projection: [heads,
head_dim, in]), the norms as they are, everything else as [in, out]. Layers repeat in fours, of which the last has full
attention; stacked layers are four stacks, each of every fourth layer. Rotary pairs lie in halves on both sides, and
MaxText divides by the root of head_dim itself, so no value changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.oracles.arrays import ROOT, Array, Arrays, Variant, cast, heads_first, heads_last, outer, placed, turned


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    leaves = outer(rounded, config)
    layers = [_layer(rounded, f"model.layers.{layer}.", config) for layer in range(config["num_hidden_layers"])]
    if not variant.scan:
        return leaves | placed(layers, scan=False)
    for place in range(4):
        leaves |= placed(layers[place::4], scan=True, prefix=f"{ROOT}decoder.layers.layers_{place}")
    return leaves


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    return {
        "attention.query.kernel": heads_last(tensors[attention + "q_proj.weight"], heads),
        "attention.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        "attention.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        "attention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        "attention.query_norm.scale": tensors[attention + "q_norm.weight"],
        "attention.key_norm.scale": tensors[attention + "k_norm.weight"],
        "mlp.wi_0.kernel": turned(tensors[mlp + "gate_proj.weight"]),
        "mlp.wi_1.kernel": turned(tensors[mlp + "up_proj.weight"]),
        "mlp.wo.kernel": turned(tensors[mlp + "down_proj.weight"]),
        "post_self_attention_layer_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "post_mlp_layer_norm.scale": tensors[prefix + "post_feedforward_layernorm.weight"],
    }
