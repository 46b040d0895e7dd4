"""DeepSeek 3.2 between Hugging Face and MaxText, element by element.

All that DeepSeek 3 has is where DeepSeek 3 has it (tests/oracles/deepseek.py). Each layer, an MTP layer included, has
an indexer besides. Hugging Face: wq_b [heads * length, compressed query], wk [length, in], the scale and the bias of a
LayerNorm over a key [length], weights_proj [heads, in]. MaxText, in the attention of the layer: wq_b [compressed query,
heads, length], wk [in, length], k_norm's scale and bias, weights_proj [in, heads]. A head begins with its rotated part,
whose pairs lie in halves on both sides, so no element of a head changes its place.

Norms, the indexer's weights_proj and the router bias are in the dtype that the files have them in, unless a run asks
for the bits of MaxText's own tool, which has one dtype for everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracles import deepseek
from tests.oracles.arrays import ROOT, Array, Arrays, Variant, dtype_of, heads_last, placed, turned

_OWN_DTYPE = ("norm.weight", "k_norm.bias", "weights_proj.weight", "e_score_correction_bias")


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint."""
    rounded = _cast(tensors, variant)
    leaves = deepseek.arranged(rounded, config, variant)
    first, count = config["first_k_dense_replace"], config["num_hidden_layers"]
    indexers = [_indexer(rounded, layer, config) for layer in range(count)]
    leaves |= placed(indexers[:first], variant.scan, ROOT + "decoder.dense_layers")
    leaves |= placed(indexers[first:], variant.scan, ROOT + "decoder.moe_layers")
    further = config.get("num_nextn_predict_layers", 0) if variant.options.get("mtp") == "true" else 0
    for number in range(further):
        inner = f"{ROOT}mtp_block.mtp_layer_{number + 1}.mtp_{number + 1}_transformer_layer."
        leaves |= {inner + name: values for name, values in _indexer(rounded, count + number, config).items()}
    return leaves


def _indexer(tensors: Mapping[str, Array], layer: int, config: Mapping[str, Any]) -> Arrays:
    theirs, ours = f"model.layers.{layer}.self_attn.indexer.", "self_attention.indexer."
    return {
        ours + "wq_b.kernel": heads_last(tensors[theirs + "wq_b.weight"], config["index_n_heads"]),
        ours + "wk.kernel": turned(tensors[theirs + "wk.weight"]),
        ours + "k_norm.scale": tensors[theirs + "k_norm.weight"],
        ours + "k_norm.bias": tensors[theirs + "k_norm.bias"],
        ours + "weights_proj.kernel": turned(tensors[theirs + "weights_proj.weight"]),
    }


def _cast(tensors: Mapping[str, Array], variant: Variant) -> Arrays:
    keeps = variant.exactness == "invertible"
    with np.errstate(over="ignore"):
        return {
            name: values if keeps and name.endswith(_OWN_DTYPE) else values.astype(dtype_of(variant.save_dtype))
            for name, values in tensors.items()
        }
