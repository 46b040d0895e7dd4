"""What oracles are written with: plain loops over rows, heads and layers, each stated once.

Nothing here knows of the mappings, nor of a family more than what most name alike outside of layers. Hugging Face's
torch.nn.Linear keeps [out, in]; a MaxText kernel keeps [in, heads, head_dim], the output projection [heads, head_dim,
in], any other projection [in, out].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
Exactness = Literal["invertible", "as_requested"]

ROOT = "params.params."


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a MaxText checkpoint is written.

    Attributes:
        scan: whether layers are stacked.
        save_dtype: name of the dtype of the checkpoint.
        exactness: "invertible" keeps what the way back needs in float32, "as_requested" rounds everything to
            `save_dtype`, or to the dtype that MaxText's own tool writes.
        options: layout options of the family, as flags give them.
    """

    scan: bool = True
    save_dtype: str = "bfloat16"
    exactness: Exactness = "invertible"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def dtype_of(name: str) -> np.dtype[Any]:
    """The NumPy dtype with this name, bfloat16 included."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def cast(tensors: Mapping[str, Array], dtype: str) -> Arrays:
    """All tensors in one dtype; what is beyond its range becomes infinite."""
    with np.errstate(over="ignore"):
        return {name: values.astype(dtype_of(dtype)) for name, values in tensors.items()}


def turned(matrix: Array) -> Array:
    """[out, in] to [in, out], and back."""
    out = np.empty((matrix.shape[1], matrix.shape[0]), matrix.dtype)
    for row in range(matrix.shape[0]):
        out[:, row] = matrix[row]
    return out


def heads_last(matrix: Array, heads: int) -> Array:
    """[heads * head_dim, in] to [in, heads, head_dim]."""
    head_dim = matrix.shape[0] // heads
    out = np.empty((matrix.shape[1], heads, head_dim), matrix.dtype)
    for head in range(heads):
        for row in range(head_dim):
            out[:, head, row] = matrix[head * head_dim + row]
    return out


def heads_first(matrix: Array, heads: int) -> Array:
    """[out, heads * head_dim] to [heads, head_dim, out]: an output projection."""
    head_dim = matrix.shape[1] // heads
    out = np.empty((heads, head_dim, matrix.shape[0]), matrix.dtype)
    for head in range(heads):
        for column in range(head_dim):
            out[head, column] = matrix[:, head * head_dim + column]
    return out


def heads_of(vector: Array, heads: int) -> Array:
    """[heads * head_dim] to [heads, head_dim]: a bias."""
    head_dim = vector.shape[0] // heads
    out = np.empty((heads, head_dim), vector.dtype)
    for head in range(heads):
        for element in range(head_dim):
            out[head, element] = vector[head * head_dim + element]
    return out


def stacked(layers: Sequence[Array], axis: int = 1) -> Array:
    """Arrays of one shape as one, the layer at `axis`."""
    first = layers[0]
    out = np.empty((*first.shape[:axis], len(layers), *first.shape[axis:]), first.dtype)
    of_layers = np.moveaxis(out, axis, 0)  # the same memory
    for number, values in enumerate(layers):
        of_layers[number] = values
    return out


def outer(tensors: Mapping[str, Array], config: Mapping[str, Any]) -> Arrays:
    """The leaves outside of layers that most decoders have: embedding, last norm, and a head that is not tied."""
    leaves: Arrays = {
        ROOT + "token_embedder.embedding": tensors["model.embed_tokens.weight"],
        ROOT + "decoder.decoder_norm.scale": tensors["model.norm.weight"],
    }
    if not config.get("tie_word_embeddings"):
        leaves[ROOT + "decoder.logits_dense.kernel"] = turned(tensors["lm_head.weight"])
    return leaves


def placed(layers: Sequence[Mapping[str, Array]], scan: bool, prefix: str = f"{ROOT}decoder.layers") -> Arrays:
    """Layers of one kind where MaxText's decoder has them: stacked at axis 1 below `prefix`, or one after another.

    Args:
        layers: the leaves of each layer by their path in it.
        scan: whether they are stacked.
        prefix: the path of the stack; without stacking, `_0`, `_1` and so on follow it.
    """
    if scan:
        return {f"{prefix}.{name}": stacked([layer[name] for layer in layers]) for name in layers[0]}
    return {
        f"{prefix}_{number}.{name}": values for number, layer in enumerate(layers) for name, values in layer.items()
    }
