"""Qwen3.5 with experts between Hugging Face and MaxText, element by element.

Three layers of a cycle of four have linear attention, the last one full attention. No value changes. The files keep the
projections of linear attention apart: queries, keys and values one after the other, each by head, in one array, gates,
b and a in arrays of their own. MaxText has two arrays, whose columns go by key head: for each, the head's query, its
key, the values of its value heads and their gates; and for each, b of its value heads, then a.

Full attention keeps [in, heads, head_dim] for queries, whose heads hold a gate behind the query, for keys and values,
but a plain matrix for its output. The taps of the convolution come first in MaxText.

Experts are one array of each kind, [experts, in, out]. The files here are those that transformers saves, with three
arrays for each expert. A_log and the norm of linear attention keep the dtype of the files, unless a run asks for the
bits of MaxText's own tool, which has one dtype for everything.

Stacked layers are `layer_0`, `layer_1` and so on by place in the cycle, each stacked at axis 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.oracles.arrays import ROOT, Array, Arrays, Variant, cast, heads_last, placed, stacked, turned
from tests.oracles.qwen3_next import others, taps_first
from tests.oracles.qwen_vision import tower

OWN_DTYPE = ("linear_attn.A_log", "linear_attn.norm.weight")


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = cast(tensors, variant.save_dtype)
    if variant.exactness == "invertible":
        rounded |= {name: values for name, values in tensors.items() if name.endswith(OWN_DTYPE)}
    top, text = "model.language_model.", config["text_config"]
    leaves: Arrays = {
        ROOT + "token_embedder.embedding": rounded[top + "embed_tokens.weight"],
        ROOT + "decoder.decoder_norm.scale": rounded[top + "norm.weight"],
    }
    if not config.get("tie_word_embeddings"):
        leaves[ROOT + "decoder.logits_dense.kernel"] = turned(rounded["lm_head.weight"])
    cycle, layers = 4, []
    for number in range(text["num_hidden_layers"]):
        prefix = f"{top}layers.{number}."
        is_full = number % cycle == cycle - 1
        attention = _full(rounded, prefix, text) if is_full else _linear(rounded, prefix, text)
        layers.append(attention | others(rounded, prefix, text))
    if variant.scan:
        for place in range(cycle):
            leaves |= placed(layers[place::cycle], True, f"{ROOT}decoder.layers.layer_{place}")
    else:
        leaves |= placed(layers, scan=False)
    if variant.options.get("use_multimodal") == "false":
        return leaves
    return leaves | tower(rounded, config["vision_config"], "Qwen3_5MoeVisionEncoder_0", "Qwen3_5MoeVisionProjector_0")


def _full(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    here, there = prefix + "self_attn.", "attention.attention."
    kv_heads = config["num_key_value_heads"]
    return {
        there + "query.kernel": heads_last(tensors[here + "q_proj.weight"], config["num_attention_heads"]),
        there + "key.kernel": heads_last(tensors[here + "k_proj.weight"], kv_heads),
        there + "value.kernel": heads_last(tensors[here + "v_proj.weight"], kv_heads),
        there + "out.kernel": turned(tensors[here + "o_proj.weight"]),
        there + "query_norm.scale": tensors[here + "q_norm.weight"],
        there + "key_norm.scale": tensors[here + "k_norm.weight"],
    }


def _linear(tensors: Mapping[str, Array], prefix: str, config: Mapping[str, Any]) -> Arrays:
    here = prefix + "linear_attn."
    return {
        "attention.in_proj_qkvz.kernel": _fused(
            tensors[here + "in_proj_qkv.weight"], tensors[here + "in_proj_z.weight"], config
        ),
        "attention.in_proj_ba.kernel": _by_key_head(
            [tensors[here + "in_proj_b.weight"], tensors[here + "in_proj_a.weight"]], config["linear_num_key_heads"]
        ),
        "attention.conv1d.kernel": taps_first(tensors[here + "conv1d.weight"]),
        "attention.A_log": tensors[here + "A_log"],
        "attention.dt_bias": tensors[here + "dt_bias"],
        "attention.norm.rms_norm.scale": tensors[here + "norm.weight"],
        "attention.out_proj.kernel": turned(tensors[here + "out_proj.weight"]),
    }


def _fused(projections: Array, gates: Array, config: Mapping[str, Any]) -> Array:
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    parts = [projections[:keys], projections[keys : 2 * keys], projections[2 * keys :], gates]
    return _by_key_head(parts, config["linear_num_key_heads"])


def _by_key_head(parts: list[Array], heads: int) -> Array:
    """Matrices [heads * rows, in] as one [in, heads * all rows]: head by head, what each has of it."""
    columns = []
    for head in range(heads):
        for part in parts:
            rows = part.shape[0] // heads
            columns += [part[head * rows + row] for row in range(rows)]
    return stacked(columns, axis=1)
