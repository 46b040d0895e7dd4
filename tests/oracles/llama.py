"""Llama and Mistral between Hugging Face and MaxText, element by element.

Hugging Face keeps projections as [out, in] with the rows of a head in two halves (rotary pair r is rows r and
r + d/2). MaxText keeps [in, heads, head_dim] (the output projection: [heads, head_dim, in]) with, if it is asked to,
the rotary pair r at 2r and 2r + 1, puts the layer axis of a stacked leaf at position 1, and multiplies the query by
head_dim ** -0.5 before it is stored. Its decoder blocks `llama2` and `mistral` have no biases, so a model whose biases
are zero can be kept without them, and no other one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
Exactness = Literal["invertible", "as_requested"]

_ROOT = "params.params."
_NORMS = (
    ("input_layernorm.weight", "pre_self_attention_layer_norm.scale"),
    ("post_attention_layernorm.weight", "post_self_attention_layer_norm.scale"),
)
_MLP = (
    ("mlp.gate_proj.weight", "mlp.wi_0.kernel"),
    ("mlp.up_proj.weight", "mlp.wi_1.kernel"),
    ("mlp.down_proj.weight", "mlp.wo.kernel"),
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The numbers of a config.json that shapes depend on."""

    layers: int
    vocabulary: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    tied: bool
    attention_bias: bool
    mlp_bias: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Sizes:
        """Reads them, with the defaults that transformers gives to missing or null keys."""
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            mlp=config["intermediate_size"],
            tied=bool(config.get("tie_word_embeddings")),
            attention_bias=bool(config.get("attention_bias")),
            mlp_bias=bool(config.get("mlp_bias")),
        )


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a MaxText checkpoint is written.

    Attributes:
        scan: whether layers are stacked.
        interleaved: whether the members of a rotary pair are neighbours.
        save_dtype: name of the dtype of the checkpoint.
        exactness: "invertible" keeps the multiplied query in float32 unless the factor is a power of two,
            "as_requested" rounds it to `save_dtype` as MaxText's own tool does.
    """

    scan: bool = True
    interleaved: bool = False
    save_dtype: str = "bfloat16"
    exactness: Exactness = "invertible"


def biases(sizes: Sizes) -> dict[str, int]:
    """Names within a layer, and lengths, of the biases that a Hugging Face checkpoint has."""
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    found: dict[str, int] = {}
    if sizes.attention_bias:
        found |= {"self_attn.q_proj.bias": queries, "self_attn.k_proj.bias": keys, "self_attn.v_proj.bias": keys}
        found["self_attn.o_proj.bias"] = sizes.hidden
    if sizes.mlp_bias:
        found |= {"mlp.gate_proj.bias": sizes.mlp, "mlp.up_proj.bias": sizes.mlp, "mlp.down_proj.bias": sizes.hidden}
    return found


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy dtype with this name, bfloat16 included."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def to_maxtext(tensors: Mapping[str, Array], config: Mapping[str, Any], variant: Variant) -> Arrays:
    """The MaxText leaves, by dotted path, that hold a Hugging Face checkpoint.

    Args:
        tensors: every tensor of the checkpoint by name, in any float dtype.
        config: the contents of its config.json.
        variant: how to write.

    Raises:
        ValueError: a bias is not zero.
    """
    for name, values in tensors.items():
        if name.endswith(".bias") and np.any(values != 0):
            raise ValueError(f"{name} is not zero, and MaxText has no place for it")
    sizes = Sizes.of(config)
    save = dtype_of(variant.save_dtype)
    rounded = {name: values.astype(save) for name, values in tensors.items()}
    query_dtype = _query_dtype(sizes, variant)
    leaves: Arrays = {
        _ROOT + "token_embedder.embedding": _copy_rows(rounded["model.embed_tokens.weight"], sizes.vocabulary),
        _ROOT + "decoder.decoder_norm.scale": rounded["model.norm.weight"].copy(),
    }
    if not sizes.tied:
        leaves[_ROOT + "decoder.logits_dense.kernel"] = _rows_to_columns(rounded["lm_head.weight"])
    for layer in range(sizes.layers):
        for name, values in _layer_to_maxtext(rounded, layer, sizes, variant, query_dtype).items():
            _put_layer(leaves, name, values, layer, sizes, variant)
    return leaves


def to_hf(
    leaves: Mapping[str, Array], config: Mapping[str, Any], variant: Variant, dtypes: Mapping[str, str] | str
) -> Arrays:
    """The Hugging Face tensors that MaxText leaves hold.

    Args:
        leaves: every leaf under `params` by dotted path, as `variant` says.
        config: the contents of the config.json to go with them.
        variant: how the leaves were written; its dtypes are not looked at, the leaves have their own.
        dtypes: name of the dtype to write, for all tensors or for each.
    """
    sizes = Sizes.of(config)
    exact: Arrays = {
        "model.embed_tokens.weight": _copy_rows(leaves[_ROOT + "token_embedder.embedding"], sizes.vocabulary),
        "model.norm.weight": leaves[_ROOT + "decoder.decoder_norm.scale"],
    }
    if not sizes.tied:
        exact["lm_head.weight"] = _rows_to_columns(leaves[_ROOT + "decoder.logits_dense.kernel"])
    for layer in range(sizes.layers):
        for name, values in _layer_to_hf(leaves, layer, sizes, variant).items():
            exact[f"model.layers.{layer}.{name}"] = values
    return {
        name: values.astype(dtype_of(dtypes if isinstance(dtypes, str) else dtypes[name]))
        for name, values in exact.items()
    }


def _query_dtype(sizes: Sizes, variant: Variant) -> np.dtype[Any]:
    root = math.isqrt(sizes.head_dim)
    factor_is_power_of_two = root * root == sizes.head_dim and root & (root - 1) == 0
    if variant.exactness == "invertible" and not factor_is_power_of_two:
        return np.dtype(np.float32)
    return dtype_of(variant.save_dtype)


def _factor(sizes: Sizes) -> np.float32:
    return np.float32(sizes.head_dim**-0.5)


def _place_in_head(row: int, sizes: Sizes, interleaved: bool) -> int:
    """Where row `row` of a head in halves lies in MaxText's head."""
    if not interleaved:
        return row
    half = sizes.head_dim // 2
    if row < half:
        return 2 * row
    return 2 * (row - half) + 1


def _copy_rows(matrix: Array, rows: int) -> Array:
    out = np.empty_like(matrix)
    for row in range(rows):
        out[row] = matrix[row]
    return out


def _rows_to_columns(matrix: Array) -> Array:
    out = np.empty((matrix.shape[1], matrix.shape[0]), matrix.dtype)
    for row in range(matrix.shape[0]):
        out[:, row] = matrix[row]
    return out


def _heads_from_rows(matrix: Array, heads: int, sizes: Sizes, rotary: bool) -> Array:
    """[heads * head_dim, in] to [in, heads, head_dim]."""
    out = np.empty((sizes.hidden, heads, sizes.head_dim), matrix.dtype)
    for head in range(heads):
        for row in range(sizes.head_dim):
            place = _place_in_head(row, sizes, rotary)
            out[:, head, place] = matrix[head * sizes.head_dim + row]
    return out


def _rows_from_heads(kernel: Array, heads: int, sizes: Sizes, rotary: bool) -> Array:
    """[in, heads, head_dim] to [heads * head_dim, in]."""
    out = np.empty((heads * sizes.head_dim, sizes.hidden), kernel.dtype)
    for head in range(heads):
        for row in range(sizes.head_dim):
            place = _place_in_head(row, sizes, rotary)
            out[head * sizes.head_dim + row] = kernel[:, head, place]
    return out


def _output_to_heads(matrix: Array, sizes: Sizes) -> Array:
    """[in, heads * head_dim] to [heads, head_dim, in]."""
    out = np.empty((sizes.heads, sizes.head_dim, sizes.hidden), matrix.dtype)
    for head in range(sizes.heads):
        for column in range(sizes.head_dim):
            out[head, column] = matrix[:, head * sizes.head_dim + column]
    return out


def _output_from_heads(kernel: Array, sizes: Sizes) -> Array:
    """[heads, head_dim, in] to [in, heads * head_dim]."""
    out = np.empty((sizes.hidden, sizes.heads * sizes.head_dim), kernel.dtype)
    for head in range(sizes.heads):
        for column in range(sizes.head_dim):
            out[:, head * sizes.head_dim + column] = kernel[head, column]
    return out


def _projections(sizes: Sizes, variant: Variant) -> tuple[tuple[str, str, int, bool], ...]:
    return (
        ("q_proj", "query", sizes.heads, variant.interleaved),
        ("k_proj", "key", sizes.kv_heads, variant.interleaved),
        ("v_proj", "value", sizes.kv_heads, False),
    )


def _layer_to_maxtext(
    tensors: Mapping[str, Array], layer: int, sizes: Sizes, variant: Variant, query_dtype: np.dtype[Any]
) -> Arrays:
    prefix = f"model.layers.{layer}."
    out: Arrays = {}
    for theirs, ours, heads, rotary in _projections(sizes, variant):
        matrix = tensors[f"{prefix}self_attn.{theirs}.weight"]
        out[f"self_attention.{ours}.kernel"] = _heads_from_rows(matrix, heads, sizes, rotary)
    query = out["self_attention.query.kernel"]
    out["self_attention.query.kernel"] = (query.astype(np.float32) * _factor(sizes)).astype(query_dtype)
    out["self_attention.out.kernel"] = _output_to_heads(tensors[prefix + "self_attn.o_proj.weight"], sizes)
    for theirs, ours in _MLP:
        out[ours] = _rows_to_columns(tensors[prefix + theirs])
    for theirs, ours in _NORMS:
        out[ours] = tensors[prefix + theirs]
    return out


def _put_layer(leaves: Arrays, name: str, values: Array, layer: int, sizes: Sizes, variant: Variant) -> None:
    if not variant.scan:
        leaves[f"{_ROOT}decoder.layers_{layer}.{name}"] = values.copy()
        return
    path = f"{_ROOT}decoder.layers.{name}"
    if path not in leaves:
        leaves[path] = np.empty((values.shape[0], sizes.layers, *values.shape[1:]), values.dtype)
    for first in range(values.shape[0]):
        leaves[path][first, layer] = values[first]


def _get_layer(leaves: Mapping[str, Array], name: str, layer: int, variant: Variant) -> Array:
    if not variant.scan:
        return leaves[f"{_ROOT}decoder.layers_{layer}.{name}"]
    stacked = leaves[f"{_ROOT}decoder.layers.{name}"]
    out = np.empty((stacked.shape[0], *stacked.shape[2:]), stacked.dtype)
    for first in range(stacked.shape[0]):
        out[first] = stacked[first, layer]
    return out


def _layer_to_hf(leaves: Mapping[str, Array], layer: int, sizes: Sizes, variant: Variant) -> Arrays:
    out: Arrays = {}
    for theirs, ours, heads, rotary in _projections(sizes, variant):
        kernel = _get_layer(leaves, f"self_attention.{ours}.kernel", layer, variant)
        out[f"self_attn.{theirs}.weight"] = _rows_from_heads(kernel, heads, sizes, rotary)
    out["self_attn.q_proj.weight"] = out["self_attn.q_proj.weight"].astype(np.float32) / _factor(sizes)
    out["self_attn.o_proj.weight"] = _output_from_heads(
        _get_layer(leaves, "self_attention.out.kernel", layer, variant), sizes
    )
    for theirs, ours in _MLP:
        out[theirs] = _rows_to_columns(_get_layer(leaves, ours, layer, variant))
    for theirs, ours in _NORMS:
        out[theirs] = _get_layer(leaves, ours, layer, variant)
    for name, width in biases(sizes).items():
        out[name] = np.zeros(width, np.float32)
    return out
