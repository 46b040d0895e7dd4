"""Layers that predict further tokens (MTP), as the files of DeepSeek have them behind the last layer of the decoder.

transformers neither reads nor writes such a layer, so tests add one to what it saved.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.end_to_end.running import Arrays


def count_layer(directory: Path) -> None:
    """Lets the config of a checkpoint count one MTP layer, as those of published files do."""
    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("num_mtp_layers", None)
    config["num_nextn_predict_layers"] = 1
    path.write_text(json.dumps(config), encoding="utf-8")


def layer(tensors: Arrays, other: Arrays, layers: int) -> Arrays:
    """The tensors of an MTP layer.

    Args:
        tensors: of the checkpoint that gets it; the layer has copies of its embedding and of its head.
        other: of another checkpoint of the same config, which the layer's random values are taken from.
        layers: how many the decoder has.
    """
    last, added = f"model.layers.{layers - 1}.", f"model.layers.{layers}."
    embed = tensors["model.embed_tokens.weight"]
    found = {added + name.removeprefix(last): values for name, values in other.items() if name.startswith(last)}
    found[added + "enorm.weight"] = other["model.norm.weight"]
    found[added + "hnorm.weight"] = other["model.layers.0.input_layernorm.weight"]
    found[added + "shared_head.norm.weight"] = other["model.layers.1.input_layernorm.weight"]
    found[added + "eh_proj.weight"] = other["model.embed_tokens.weight"][: 2 * embed.shape[1]].T
    found[added + "embed_tokens.weight"] = embed
    found[added + "shared_head.head.weight"] = tensors["lm_head.weight"]
    return {name: np.ascontiguousarray(values) for name, values in found.items()}


def add(tensors: Arrays, directory: Path) -> None:
    """Adds tensors to a checkpoint, in a file of their own."""
    file = "model-mtp.safetensors"
    save_file(tensors, directory / file, {"format": "pt"})
    path = directory / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"] |= dict.fromkeys(tensors, file)
    index["metadata"]["total_size"] += sum(values.nbytes for values in tensors.values())
    path.write_text(json.dumps(index), encoding="utf-8")
