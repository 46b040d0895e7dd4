"""Llama 4 between Hugging Face and MaxText, element by element.

No value changes: MaxText's block divides the query itself, and rotary pairs are neighbours on both sides. Projections
are [out, in] in the files; but the experts of a layer are [experts, in, 2 * width], gates before ups, and
[experts, width, in], so that MaxText takes halves of the first as they are. Every `interleave_moe_layer_step`-th layer
has experts and a shared expert beside them, the others one wide MLP.

Stacked, MaxText's layers are cycles of four: `layers_{j}` holds Hugging Face's layers j, j + 4 and so on, the cycle at
axis 1, behind the experts too.

The tower is never stacked. A patch is a row of channel, row and column on both sides.
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
    placed,
    turned,
)


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    leaves = _decoder(rounded, config["text_config"], variant)
    if variant.options.get("use_multimodal") == "false":
        return leaves
    return leaves | _tower(rounded, config["vision_config"])


def _decoder(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    top = "language_model."
    leaves: Arrays = {
        ROOT + "token_embedder.embedding": tensors[top + "model.embed_tokens.weight"],
        ROOT + "decoder.decoder_norm.scale": tensors[top + "model.norm.weight"],
        ROOT + "decoder.logits_dense.kernel": turned(tensors[top + "lm_head.weight"]),
    }
    layers = []
    for number in range(config["num_hidden_layers"]):
        prefix = f"{top}model.layers.{number}."
        has_experts = (number + 1) % config["interleave_moe_layer_step"] == 0
        width = _experts(tensors, prefix) if has_experts else _mlp(tensors, prefix + "feed_forward.", "mlp.")
        layers.append(_attention(tensors, prefix, config) | width)
    if not variant.scan:
        return leaves | placed(layers, scan=False)
    for member in range(4):
        leaves |= placed(layers[member::4], scan=True, prefix=f"{ROOT}decoder.layers.layers_{member}")
    return leaves


def _attention(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    return {
        "pre_self_attention_layer_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_self_attention_layer_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "self_attention.query.kernel": heads_last(tensors[prefix + "self_attn.q_proj.weight"], heads),
        "self_attention.key.kernel": heads_last(tensors[prefix + "self_attn.k_proj.weight"], kv_heads),
        "self_attention.value.kernel": heads_last(tensors[prefix + "self_attn.v_proj.weight"], kv_heads),
        "self_attention.out.kernel": heads_first(tensors[prefix + "self_attn.o_proj.weight"], heads),
    }


def _mlp(tensors: Mapping[str, Array], here: str, there: str) -> Arrays:
    return {
        there + "wi_0.kernel": turned(tensors[here + "gate_proj.weight"]),
        there + "wi_1.kernel": turned(tensors[here + "up_proj.weight"]),
        there + "wo.kernel": turned(tensors[here + "down_proj.weight"]),
    }


def _experts(tensors: Mapping[str, Array], prefix: str) -> Arrays:
    here, there = prefix + "feed_forward.", "Llama4MoEBlock_0."
    both = tensors[here + "experts.gate_up_proj"]
    experts, inner, doubled = both.shape
    gates = np.empty((experts, inner, doubled // 2), both.dtype)
    ups = np.empty_like(gates)
    for column in range(doubled // 2):
        gates[:, :, column] = both[:, :, column]
        ups[:, :, column] = both[:, :, doubled // 2 + column]
    return {
        there + "MoeBlock_0.gate.kernel": turned(tensors[here + "router.weight"]),
        there + "MoeBlock_0.wi_0": gates,
        there + "MoeBlock_0.wi_1": ups,
        there + "MoeBlock_0.wo": tensors[here + "experts.down_proj"],
        **_mlp(tensors, here + "shared_expert.", there + "shared_experts."),
    }


def _tower(tensors: Mapping[str, Array], config: Mapping[str, Any]) -> Arrays:
    there, here = ROOT + "vision_encoder.Llama4VisionModel_0.", "vision_model."
    leaves = {
        there + "class_embedding": tensors[here + "class_embedding"],
        there + "positional_embedding_vlm": tensors[here + "positional_embedding_vlm"],
        there + "Llama4UnfoldConvolution_0.vit_unfold_linear.kernel": turned(
            tensors[here + "patch_embedding.linear.weight"]
        ),
        ROOT + "vision_encoder.Llama4MultiModalProjector_0.vit_multi_modal_projector.kernel": turned(
            tensors["multi_modal_projector.linear_1.weight"]
        ),
    }
    for name in ("layernorm_pre", "layernorm_post"):
        leaves[f"{there}{name}.scale"] = tensors[f"{here}{name}.weight"]
        leaves[f"{there}{name}.bias"] = tensors[f"{here}{name}.bias"]
    for number in (1, 2):
        adapter = f"Llama4VisionPixelShuffleMLP_0.pixel_shuffle_mlp.vit_pixel_shuffle_mlp_fc{number}.kernel"
        leaves[there + adapter] = turned(tensors[f"{here}vision_adapter.mlp.fc{number}.weight"])
    for layer in range(config["num_hidden_layers"]):
        block = _vision_layer(tensors, f"{here}model.layers.{layer}.", config["num_attention_heads"])
        leaves |= {f"{there}Llama4VisionEncoder_0.layers_{layer}.{name}": values for name, values in block.items()}
    return leaves


def _vision_layer(tensors: Mapping[str, Array], prefix: str, heads: int) -> Arrays:
    leaves = {
        "self_attention_vision.out.kernel": heads_first(tensors[prefix + "self_attn.o_proj.weight"], heads),
        "self_attention_vision.out.bias": tensors[prefix + "self_attn.o_proj.bias"],
    }
    for name, projection in {"query": "q_proj", "key": "k_proj", "value": "v_proj"}.items():
        here, there = f"{prefix}self_attn.{projection}.", f"self_attention_vision.{name}."
        leaves[there + "kernel"] = heads_last(tensors[here + "weight"], heads)
        leaves[there + "bias"] = heads_of(tensors[here + "bias"], heads)
    for name, norm in {
        "input_layer_norm": "input_layernorm",
        "post_attention_layer_norm": "post_attention_layernorm",
    }.items():
        leaves[name + ".scale"] = tensors[f"{prefix}{norm}.weight"]
        leaves[name + ".bias"] = tensors[f"{prefix}{norm}.bias"]
    for number in (1, 2):
        there = f"Llama4VisionMLP_0.vit_encoder_layer_mlp_fc{number}."
        leaves[there + "kernel"] = turned(tensors[f"{prefix}mlp.fc{number}.weight"])
        leaves[there + "bias"] = tensors[f"{prefix}mlp.fc{number}.bias"]
    return leaves
