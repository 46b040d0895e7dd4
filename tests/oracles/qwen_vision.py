"""The tower of Qwen's models that see, between Hugging Face and MaxText, element by element.

No value changes, and layers are never stacked. The files keep queries, keys and values of a layer in one array, thirds
of its rows; MaxText keeps [in, heads, head_dim] for each. A patch is [out, channel, frame, row, column] in the files
and [frame, row, column, channel, out] in MaxText.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracles.arrays import ROOT, Array, Arrays, heads_first, heads_last, heads_of, turned

_HERE = "model.visual."


def tower(tensors: Mapping[str, Array], config: Mapping[str, Any], encoder: str, projector: str) -> Arrays:
    """The leaves of the tower and of what leads from it to the decoder.

    Args:
        tensors: of the files.
        config: the vision_config.
        encoder: the name of MaxText's class, with its number.
        projector: as encoder.
    """
    there = f"{ROOT}vision_encoder.{encoder}."
    leaves = {
        there + "patch_embed.proj.kernel": _pixels_first(tensors[_HERE + "patch_embed.proj.weight"]),
        there + "patch_embed.proj.bias": tensors[_HERE + "patch_embed.proj.bias"],
        there + "pos_embed_interpolate.pos_embed": tensors[_HERE + "pos_embed.weight"],
    }
    for layer in range(config["depth"]):
        block = _layer(tensors, f"{_HERE}blocks.{layer}.", config["num_heads"])
        leaves |= {f"{there}blocks_{layer}.{name}": values for name, values in block.items()}
    for number, _ in enumerate(config.get("deepstack_visual_indexes", ())):
        leaves |= _merger(tensors, f"{_HERE}deepstack_merger_list.{number}.", f"{there}merger_{number}.")
    return leaves | _merger(tensors, _HERE + "merger.", f"{ROOT}vision_encoder.{projector}.merger.")


def _layer(tensors: Mapping[str, Array], prefix: str, heads: int) -> Arrays:
    leaves = {
        "attn.attn.out.kernel": heads_first(tensors[prefix + "attn.proj.weight"], heads),
        "attn.attn.out.bias": tensors[prefix + "attn.proj.bias"],
        "mlp.kernel": turned(tensors[prefix + "mlp.linear_fc1.weight"]),
        "mlp.bias": tensors[prefix + "mlp.linear_fc1.bias"],
        "mlp_out.kernel": turned(tensors[prefix + "mlp.linear_fc2.weight"]),
        "mlp_out.bias": tensors[prefix + "mlp.linear_fc2.bias"],
    }
    kernels, biases = tensors[prefix + "attn.qkv.weight"], tensors[prefix + "attn.qkv.bias"]
    third = kernels.shape[0] // 3
    for number, name in enumerate(("query", "key", "value")):
        first = number * third
        leaves[f"attn.attn.{name}.kernel"] = heads_last(kernels[first : first + third], heads)
        leaves[f"attn.attn.{name}.bias"] = heads_of(biases[first : first + third], heads)
    for number in (1, 2):
        leaves[f"ln{number}.scale"] = tensors[f"{prefix}norm{number}.weight"]
        leaves[f"ln{number}.bias"] = tensors[f"{prefix}norm{number}.bias"]
    return leaves


def _merger(tensors: Mapping[str, Array], here: str, there: str) -> Arrays:
    return {
        there + "ln_q.scale": tensors[here + "norm.weight"],
        there + "ln_q.bias": tensors[here + "norm.bias"],
        there + "mlp_0.kernel": turned(tensors[here + "linear_fc1.weight"]),
        there + "mlp_0.bias": tensors[here + "linear_fc1.bias"],
        there + "mlp_2.kernel": turned(tensors[here + "linear_fc2.weight"]),
        there + "mlp_2.bias": tensors[here + "linear_fc2.bias"],
    }


def _pixels_first(patches: Array) -> Array:
    """[out, channel, frame, row, column] to [frame, row, column, channel, out]."""
    width, channels, frames, rows, columns = patches.shape
    out = np.empty((frames, rows, columns, channels, width), patches.dtype)
    for frame in range(frames):
        for row in range(rows):
            for column in range(columns):
                for channel in range(channels):
                    out[frame, row, column, channel] = patches[:, channel, frame, row, column]
    return out
