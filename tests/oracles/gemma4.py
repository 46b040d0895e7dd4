"""Gemma 4, 26B and 31B, between Hugging Face and MaxText, element by element.

Hugging Face keeps projections as [out, in]. Every sixth layer has full attention, with a head dim of its own and no
values; the others slide. A layer has four norms, a norm of a query head and of a key head, and a scalar. Where experts
are routed, they stand beside the MLP: a router with a scale for what it reads and one for each expert, experts packed
as [experts, gate above up, in] and [experts, out, in], and three norms more. MaxText keeps [in, heads, head_dim]
(output projections: [heads, head_dim, in]), experts as [experts, in, out], gate and up apart, and the MLP of such a
model among its experts; everything else as [in, out]. Norms and scales are kept as they are; the embedding is
multiplied by the root of its width. Stacked layers: sliding ones as [..., cycle, place in the cycle, ...], the others
as [..., cycle, ...].

The tower: a patch is projected by [out, number of the patch]; there is a position for each side of an image, [side,
position, width], which MaxText keeps as [position, side, width]; layers are never stacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.oracles.arrays import ROOT, Array, Arrays, Variant, cast, heads_first, heads_last, stacked, turned
from tests.oracles.gemma_values import times

_CYCLE = 6
_TOWER = "vision_encoder.Gemma4VisionEncoderLayer_0."


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    text, decoder = config["text_config"], "model.language_model."
    embedding = rounded[decoder + "embed_tokens.weight"]
    leaves: Arrays = {
        ROOT + "token_embedder.embedding": times(embedding, float(np.sqrt(np.float32(embedding.shape[1]))), variant),
        ROOT + "decoder.decoder_norm.scale": rounded[decoder + "norm.weight"],
    }
    if not text.get("tie_word_embeddings", True):
        leaves[ROOT + "decoder.logits_dense.kernel"] = turned(rounded["lm_head.weight"])
    layers = [_layer(rounded, f"{decoder}layers.{number}.", text) for number in range(text["num_hidden_layers"])]
    leaves |= _placed(layers, variant.scan)
    if variant.options.get("use_multimodal") != "false":
        leaves |= _tower(rounded, config["vision_config"])
    return leaves


def _placed(layers: Sequence[Arrays], scan: bool) -> Arrays:
    if not scan:
        return {
            f"{ROOT}decoder.layers_{n}.{name}": leaf for n, layer in enumerate(layers) for name, leaf in layer.items()
        }
    cycles = [layers[first : first + _CYCLE] for first in range(0, len(layers), _CYCLE)]
    blocks = ROOT + "decoder.scanned_blocks."
    found: Arrays = {}
    for name in layers[0]:
        sliding = [stacked([layer[name] for layer in cycle[:-1]]) for cycle in cycles]
        found[f"{blocks}local_layers.{name}"] = stacked(sliding)
    for name in layers[_CYCLE - 1]:
        found[f"{blocks}global_layer.{name}"] = stacked([cycle[-1][name] for cycle in cycles])
    return found


def _layer(tensors: Mapping[str, Array], prefix: str, text: Mapping[str, Any]) -> Arrays:
    attention, heads = prefix + "self_attn.", text["num_attention_heads"]
    head_dim = tensors[attention + "q_norm.weight"].shape[0]
    keys = tensors[attention + "k_proj.weight"]
    leaves = {
        "layer_scalar": tensors[prefix + "layer_scalar"],
        "self_attention.query.kernel": heads_last(tensors[attention + "q_proj.weight"], heads),
        "self_attention.key.kernel": heads_last(keys, keys.shape[0] // head_dim),
        "self_attention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        "self_attention.query_norm.scale": tensors[attention + "q_norm.weight"],
        "self_attention.key_norm.scale": tensors[attention + "k_norm.weight"],
        "pre_self_attention_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_self_attention_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "pre_ffw_norm.scale": tensors[prefix + "pre_feedforward_layernorm.weight"],
        "post_ffw_norm.scale": tensors[prefix + "post_feedforward_layernorm.weight"],
    }
    if attention + "v_proj.weight" in tensors:
        values = tensors[attention + "v_proj.weight"]
        leaves["self_attention.value.kernel"] = heads_last(values, values.shape[0] // head_dim)
    if not text.get("enable_moe_block"):
        return leaves | _mlp(tensors, prefix + "mlp.", ".weight", "mlp.")
    return (
        leaves | _mlp(tensors, prefix + "mlp.", ".weight", "mlp.moe_block.shared_experts.") | _routed(tensors, prefix)
    )


def _mlp(tensors: Mapping[str, Array], theirs: str, end: str, ours: str) -> Arrays:
    return {
        ours + "wi_0.kernel": turned(tensors[f"{theirs}gate_proj{end}"]),
        ours + "wi_1.kernel": turned(tensors[f"{theirs}up_proj{end}"]),
        ours + "wo.kernel": turned(tensors[f"{theirs}down_proj{end}"]),
    }


def _routed(tensors: Mapping[str, Array], prefix: str) -> Arrays:
    block = "mlp.moe_block.MoeBlock_0."
    both, down = tensors[prefix + "experts.gate_up_proj"], tensors[prefix + "experts.down_proj"]
    half = both.shape[1] // 2
    return {
        block + "gate.kernel": turned(tensors[prefix + "router.proj.weight"]),
        block + "per_expert_scale": tensors[prefix + "router.per_expert_scale"],
        block + "wi_0": stacked([turned(expert[:half]) for expert in both], axis=0),
        block + "wi_1": stacked([turned(expert[half:]) for expert in both], axis=0),
        block + "wo": stacked([turned(expert) for expert in down], axis=0),
        "mlp.pre_forward_scale_2": tensors[prefix + "router.scale"],
        "mlp.pre_feedforward_layernorm_2.scale": tensors[prefix + "pre_feedforward_layernorm_2.weight"],
        "mlp.post_feedforward_layernorm_1.scale": tensors[prefix + "post_feedforward_layernorm_1.weight"],
        "mlp.post_feedforward_layernorm_2.scale": tensors[prefix + "post_feedforward_layernorm_2.weight"],
    }


def _tower(tensors: Mapping[str, Array], vision: Mapping[str, Any]) -> Arrays:
    theirs, ours = "model.vision_tower.", ROOT + _TOWER
    leaves = {
        ours + "vision_entry.input_projection.kernel": turned(tensors[theirs + "patch_embedder.input_proj.weight"]),
        ours + "vision_entry.pos_emb_param": stacked(
            list(tensors[theirs + "patch_embedder.position_embedding_table"]), axis=1
        ),
        ROOT + "vision_encoder.Gemma4VisionProjector_0.projection.kernel": turned(
            tensors["model.embed_vision.embedding_projection.weight"]
        ),
    }
    if vision.get("standardize"):
        leaves |= {ours + name: tensors[theirs + name] for name in ("std_bias", "std_scale")}
    for number in range(vision["num_hidden_layers"]):
        layer = _tower_layer(tensors, f"{theirs}encoder.layers.{number}.", vision["num_attention_heads"])
        leaves |= {f"{ours}layer_{number}.{name}": values for name, values in layer.items()}
    return leaves


def _tower_layer(tensors: Mapping[str, Array], prefix: str, heads: int) -> Arrays:
    attention = prefix + "self_attn."
    return {
        "attention.query.kernel": heads_last(tensors[attention + "q_proj.linear.weight"], heads),
        "attention.key.kernel": heads_last(tensors[attention + "k_proj.linear.weight"], heads),
        "attention.value.kernel": heads_last(tensors[attention + "v_proj.linear.weight"], heads),
        "attention.out.kernel": heads_first(tensors[attention + "o_proj.linear.weight"], heads),
        "attention.query_norm.scale": tensors[attention + "q_norm.weight"],
        "attention.key_norm.scale": tensors[attention + "k_norm.weight"],
        "pre_attention_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_attention_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        "pre_ffw_norm.scale": tensors[prefix + "pre_feedforward_layernorm.weight"],
        "post_ffw_norm.scale": tensors[prefix + "post_feedforward_layernorm.weight"],
        **_mlp(tensors, prefix + "mlp.", ".linear.weight", "mlp."),
    }
