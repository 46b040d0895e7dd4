"""Gemma 3 between Hugging Face and MaxText, element by element.

Stacked, MaxText's layers are cycles of six: `layers_{j}` holds Hugging Face's layers j, j + 6 and so on. The layers
after the last whole cycle are `layers_remainder/layers_{r}`, each for itself. Norms, those of queries and keys too,
are stored as 1 + weight. The embedding is multiplied by the root of the hidden size, rounded to bfloat16 first.
MaxText's block divides the query itself. The 64 rows that 262208 has more than 262144 are cut.

The tower's files are those of transformers since 5.8, without `vision_model` in the names. Its norms are kept as they
are, but for the one before the projection; its layers are not stacked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracles.arrays import (
    ROOT,
    Array,
    Arrays,
    Variant,
    cast,
    dtype_of,
    heads_first,
    heads_last,
    heads_of,
    placed,
    turned,
)
from tests.oracles.gemma_values import plus_one, times


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    if "vision_config" not in config:
        return _decoder(rounded, config, variant, "model.", "lm_head.weight")
    text = {"tie_word_embeddings": config["tie_word_embeddings"], **config["text_config"]}
    leaves = _decoder(rounded, text, variant, "language_model.model.", "language_model.lm_head.weight")
    if variant.options.get("use_multimodal") == "false":
        return leaves
    return leaves | _tower(rounded, config["vision_config"]) | _projector(rounded)


def _decoder(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant, top: str, head: str) -> Arrays:
    root = float(dtype_of("bfloat16").type(math.sqrt(config["hidden_size"])))
    rows = 262144 if config["vocab_size"] == 262208 else config["vocab_size"]
    leaves: Arrays = {
        ROOT + "token_embedder.embedding": times(tensors[top + "embed_tokens.weight"][:rows], root, variant),
        ROOT + "decoder.decoder_norm.scale": plus_one(tensors[top + "norm.weight"]),
    }
    if not config["tie_word_embeddings"]:
        leaves[ROOT + "decoder.logits_dense.kernel"] = turned(tensors[head][:rows])
    layers = [_layer(tensors, f"{top}layers.{layer}.", config) for layer in range(config["num_hidden_layers"])]
    if not variant.scan:
        return leaves | placed(layers, scan=False)
    remaining = len(layers) % 6
    whole = len(layers) - remaining
    for member in range(6 if whole else 0):
        leaves |= placed(layers[member:whole:6], scan=True, prefix=f"{ROOT}decoder.layers.layers_{member}")
    return leaves | placed(layers[whole:], scan=False, prefix=f"{ROOT}decoder.layers_remainder.layers")


def _tower(tensors: Mapping[str, Array], config: Mapping[str, Any]) -> Arrays:
    there, here = ROOT + "vision_encoder.Gemma3VisionEncoderLayer_0.", "vision_tower."
    positions = tensors[here + "embeddings.position_embedding.weight"]
    leaves = {
        there + "embedding.kernel": _pixels_first(tensors[here + "embeddings.patch_embedding.weight"]),
        there + "embedding.bias": tensors[here + "embeddings.patch_embedding.bias"],
        there + "pos_embedding": positions.reshape(1, *positions.shape),
        there + "Transformer.encoder_norm.scale": tensors[here + "post_layernorm.weight"],
        there + "Transformer.encoder_norm.bias": tensors[here + "post_layernorm.bias"],
    }
    for layer in range(config["num_hidden_layers"]):
        block = _vision_layer(tensors, f"{here}encoder.layers.{layer}.", config["num_attention_heads"])
        leaves |= {f"{there}Transformer.encoderblock_{layer}.{name}": values for name, values in block.items()}
    return leaves


def _vision_layer(tensors: Mapping[str, Array], prefix: str, heads: int) -> Arrays:
    attention = "MultiHeadDotProductAttention_0."
    leaves = {
        attention + "out.kernel": heads_first(tensors[prefix + "self_attn.out_proj.weight"], heads),
        attention + "out.bias": tensors[prefix + "self_attn.out_proj.bias"],
    }
    for name, projection in {"query": "q_proj", "key": "k_proj", "value": "v_proj"}.items():
        leaves[f"{attention}{name}.kernel"] = heads_last(tensors[f"{prefix}self_attn.{projection}.weight"], heads)
        leaves[f"{attention}{name}.bias"] = heads_of(tensors[f"{prefix}self_attn.{projection}.bias"], heads)
    for number in (0, 1):
        leaves[f"LayerNorm_{number}.scale"] = tensors[f"{prefix}layer_norm{number + 1}.weight"]
        leaves[f"LayerNorm_{number}.bias"] = tensors[f"{prefix}layer_norm{number + 1}.bias"]
        leaves[f"MlpBlockViT_0.Dense_{number}.kernel"] = turned(tensors[f"{prefix}mlp.fc{number + 1}.weight"])
        leaves[f"MlpBlockViT_0.Dense_{number}.bias"] = tensors[f"{prefix}mlp.fc{number + 1}.bias"]
    return leaves


def _projector(tensors: Mapping[str, Array]) -> Arrays:
    there, here = ROOT + "vision_encoder.VisionEmbedder_0.", "multi_modal_projector."
    return {
        there + "mm_input_projection.w": tensors[here + "mm_input_projection_weight"],
        there + "mm_soft_embedding_norm.scale": plus_one(tensors[here + "mm_soft_emb_norm.weight"]),
    }


def _pixels_first(patches: Array) -> Array:
    """[out, channel, row, column] to [row, column, channel, out]."""
    width, channels, rows, columns = patches.shape
    out = np.empty((rows, columns, channels, width), patches.dtype)
    for row in range(rows):
        for column in range(columns):
            for channel in range(channels):
                out[row, column, channel] = patches[:, channel, row, column]
    return out


def _layer(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    attention, mlp = prefix + "self_attn.", prefix + "mlp."
    return {
        "pre_self_attention_norm.scale": plus_one(tensors[prefix + "input_layernorm.weight"]),
        "post_self_attention_norm.scale": plus_one(tensors[prefix + "post_attention_layernorm.weight"]),
        "pre_ffw_norm.scale": plus_one(tensors[prefix + "pre_feedforward_layernorm.weight"]),
        "post_ffw_norm.scale": plus_one(tensors[prefix + "post_feedforward_layernorm.weight"]),
        "self_attention.query_norm.scale": plus_one(tensors[attention + "q_norm.weight"]),
        "self_attention.key_norm.scale": plus_one(tensors[attention + "k_norm.weight"]),
        "self_attention.query.kernel": heads_last(tensors[attention + "q_proj.weight"], heads),
        "self_attention.key.kernel": heads_last(tensors[attention + "k_proj.weight"], kv_heads),
        "self_attention.value.kernel": heads_last(tensors[attention + "v_proj.weight"], kv_heads),
        "self_attention.out.kernel": heads_first(tensors[attention + "o_proj.weight"], heads),
        "mlp.wi_0.kernel": turned(tensors[mlp + "gate_proj.weight"]),
        "mlp.wi_1.kernel": turned(tensors[mlp + "up_proj.weight"]),
        "mlp.wo.kernel": turned(tensors[mlp + "down_proj.weight"]),
    }
