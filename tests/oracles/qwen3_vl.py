"""Qwen3-VL between Hugging Face and MaxText, element by element.

No value changes: the block divides the query itself, and rotary pairs lie in halves on both sides. Projections are
[out, in] in the files. The experts of a layer are packed, here as transformers 5 saves them: [experts, 2 * width, in],
gates above ups, and [experts, in, width]; MaxText keeps [experts, in, width] for gates and ups, and [experts, width,
in].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracles.arrays import ROOT, Array, Arrays, Variant, cast, heads_first, heads_last, placed, turned
from tests.oracles.qwen_vision import tower


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    top, text = "model.language_model.", config["text_config"]
    leaves: Arrays = {
        ROOT + "token_embedder.embedding": rounded[top + "embed_tokens.weight"],
        ROOT + "decoder.decoder_norm.scale": rounded[top + "norm.weight"],
    }
    if not config["tie_word_embeddings"]:
        leaves[ROOT + "decoder.logits_dense.kernel"] = turned(rounded["lm_head.weight"])
    layers = [_layer(rounded, f"{top}layers.{number}.", text) for number in range(text["num_hidden_layers"])]
    leaves |= placed(layers, variant.scan)
    if variant.options.get("use_multimodal") == "false":
        return leaves
    return leaves | tower(rounded, config["vision_config"], "Qwen3VLVisionEncoder_0", "Qwen3VLVisionProjector_0")


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    here, there = prefix + "self_attn.", "self_attention."
    leaves = {
        "pre_self_attention_layer_norm.scale": tensors[prefix + "input_layernorm.weight"],
        "post_self_attention_layer_norm.scale": tensors[prefix + "post_attention_layernorm.weight"],
        there + "query.kernel": heads_last(tensors[here + "q_proj.weight"], heads),
        there + "key.kernel": heads_last(tensors[here + "k_proj.weight"], kv_heads),
        there + "value.kernel": heads_last(tensors[here + "v_proj.weight"], kv_heads),
        there + "out.kernel": heads_first(tensors[here + "o_proj.weight"], heads),
        there + "query_norm.scale": tensors[here + "q_norm.weight"],
        there + "key_norm.scale": tensors[here + "k_norm.weight"],
    }
    if "num_experts" in config:
        return leaves | _experts(tensors, prefix + "mlp.")
    return leaves | {
        "mlp.wi_0.kernel": turned(tensors[prefix + "mlp.gate_proj.weight"]),
        "mlp.wi_1.kernel": turned(tensors[prefix + "mlp.up_proj.weight"]),
        "mlp.wo.kernel": turned(tensors[prefix + "mlp.down_proj.weight"]),
    }


def _experts(tensors: Mapping[str, Array], prefix: str) -> Arrays:
    both, down = tensors[prefix + "experts.gate_up_proj"], tensors[prefix + "experts.down_proj"]
    experts, doubled, inner = both.shape
    width = doubled // 2
    gates = np.empty((experts, inner, width), both.dtype)
    ups = np.empty((experts, inner, width), both.dtype)
    outs = np.empty((experts, width, inner), down.dtype)
    for expert in range(experts):
        gates[expert] = turned(both[expert, :width])
        ups[expert] = turned(both[expert, width:])
        outs[expert] = turned(down[expert])
    return {
        "moe_block.gate.kernel": turned(tensors[prefix + "gate.weight"]),
        "moe_block.wi_0": gates,
        "moe_block.wi_1": ups,
        "moe_block.wo": outs,
    }
