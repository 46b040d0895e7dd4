"""Compares what a converted vision tower makes of an image in MaxText with what it makes of it in Transformers.

As maxtext_logits.py, whose text says how to make the scratch environment, this is run by hand and in two halves:

    python -m tests.campaigns.maxtext_towers HF_DIR --dump=towers.npz
    scratch/bin/python -m tests.campaigns.maxtext_towers HF_DIR OUT/0/items --scan_layers=true --features=towers.npz

The image is random numbers; compared is what the projector hands to the decoder, in float32. The result is one JSON
object on standard output; the exit code is 0 if and only if no number differs by more than --max_diff.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.campaigns import maxtext_logits
from tests.campaigns.maxtext_keys import BLOCKS, maxtext_keys

Values = npt.NDArray[np.float32]

_GRID = (1, 4, 6)
"""Frames, rows and columns of patches, where the model takes images of any shape."""


def takes_patches(config: Mapping[str, Any]) -> bool:
    """Whether the tower is given patches cut out by the processor, as Qwen's are, instead of a square image."""
    return "temporal_patch_size" in config["vision_config"]


def make_pixels(config: Mapping[str, Any], seed: int) -> Values:
    """Returns a random image as transformers takes it: [1, channels, size, size], or [patches, numbers in a patch]."""
    vision = config["vision_config"]
    shape: tuple[int, ...]
    if takes_patches(config):
        numbers = vision["in_channels"] * vision["temporal_patch_size"] * vision["patch_size"] ** 2
        shape = (int(np.prod(_GRID)), numbers)
    else:
        shape = (1, vision.get("num_channels", 3), vision["image_size"], vision["image_size"])
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def maxtext_pixels(config: Mapping[str, Any], pixels: Values) -> Values:
    """Returns the image of `make_pixels` as MaxText takes it.

    That is [1, channels, frames, height, width] for patches, whose order in memory stays; [1, tiles, channels, height,
    width] for Llama 4; [1, height, width, channels] else.
    """
    vision = config["vision_config"]
    if takes_patches(config):
        sides = np.multiply(_GRID, (vision["temporal_patch_size"], vision["patch_size"], vision["patch_size"]))
        return pixels.reshape(1, vision["in_channels"], *sides)
    if config["model_type"] == "llama4":
        return pixels[:, None]
    return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def hf_features(hf_dir: pathlib.Path, pixels: Values) -> Values:
    """Returns what Transformers' projector hands to the decoder: [soft tokens, width]."""
    import torch
    import transformers

    model = transformers.AutoModelForImageTextToText.from_pretrained(
        hf_dir, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    image = torch.from_numpy(pixels)
    with torch.no_grad():
        if takes_patches(maxtext_logits.read_config(hf_dir)):
            found = torch.cat(model.get_image_features(image, torch.tensor([_GRID])).pooler_output)
        elif model.config.model_type == "llama4":
            found = model.multi_modal_projector(model.get_image_features(image).last_hidden_state)
        else:
            found = model.get_image_features(image).pooler_output
    features: Values = found.reshape(-1, found.shape[-1]).float().numpy()
    return features


def maxtext_features(config: Any, pixels: Values) -> Values:
    """Returns what MaxText's projector hands to the decoder: [soft tokens, width]."""
    import jax
    import jax.numpy as jnp
    from flax import linen

    model, mesh = maxtext_logits.load_model(config, "training")
    with jax.set_mesh(mesh), linen.logical_axis_rules(config.logical_axis_rules):
        found, _ = model.vision_encoder(jnp.asarray(pixels), deterministic=True)
    features: Values = np.asarray(found, np.float32).reshape(-1, found.shape[-1])
    return features


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one of the halves and returns the exit code."""
    parser = argparse.ArgumentParser(description="Compares MaxText's vision tower with that of Transformers.")
    parser.add_argument("hf_dir", type=pathlib.Path, help="directory with config.json and safetensors")
    parser.add_argument("items_dir", type=pathlib.Path, nargs="?", help="MaxText's load_parameters_path: .../0/items")
    parser.add_argument("--scan_layers", choices=("true", "false"), help="whether the layers are stacked")
    parser.add_argument("--dump", type=pathlib.Path, help="write Transformers' features to this .npz, and stop")
    parser.add_argument("--features", type=pathlib.Path, help="file written with --dump")
    parser.add_argument("--seed", type=int, default=20261121, help="seed of the image")
    parser.add_argument("--max_diff", type=float, default=1e-4, help="largest difference that passes")
    arguments = parser.parse_args(argv)
    config = maxtext_logits.read_config(arguments.hf_dir)
    pixels = make_pixels(config, arguments.seed)
    if arguments.dump is not None:
        with arguments.dump.open("wb") as file:
            np.savez(file, pixels=pixels, features=hf_features(arguments.hf_dir, pixels))
        return 0
    if None in (arguments.items_dir, arguments.scan_layers, arguments.features):
        parser.error("without --dump, ITEMS_DIR, --scan_layers and --features are needed")
    with np.load(arguments.features) as arrays:
        if not np.array_equal(arrays["pixels"], pixels):
            parser.error(f"{arguments.features} was written for another image")
        reference = arrays["features"]
    os.environ["JAX_PLATFORMS"] = "cpu"
    model_name = BLOCKS[config["model_type"]].model_name
    with contextlib.redirect_stdout(sys.stderr):
        maxtext = maxtext_logits.maxtext_config(
            arguments.items_dir.absolute(),
            model_name,
            arguments.scan_layers == "true",
            len(reference),
            maxtext_keys(config, model_name),
        )
        features = maxtext_features(maxtext, maxtext_pixels(config, pixels))
    same_shape = features.shape == reference.shape
    difference = float(np.abs(features - reference).max()) if same_shape else float("inf")
    result = {
        "passed": bool(difference <= arguments.max_diff),
        "shapes": [list(reference.shape), list(features.shape)],
        "max_abs_diff": difference,
        "max_abs_feature": float(np.abs(reference).max()),
    }
    print(json.dumps(result, indent=2))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
