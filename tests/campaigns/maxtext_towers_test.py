from __future__ import annotations

from typing import Any

import numpy as np

from tests.campaigns import maxtext_towers

_SQUARE: dict[str, Any] = {"model_type": "gemma3", "vision_config": {"image_size": 8, "patch_size": 4}}
_PATCHES: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "vision_config": {"in_channels": 3, "temporal_patch_size": 2, "patch_size": 4},
}


def test_a_square_image_has_its_channels_last_in_maxtext() -> None:
    pixels = maxtext_towers.make_pixels(_SQUARE, seed=1)
    turned = maxtext_towers.maxtext_pixels(_SQUARE, pixels)
    assert (pixels.shape, turned.shape) == ((1, 3, 8, 8), (1, 8, 8, 3))
    assert turned[0, 5, 6, 2] == pixels[0, 2, 5, 6]


def test_llama_4_takes_tiles_with_their_channels_first() -> None:
    config = {**_SQUARE, "model_type": "llama4"}
    pixels = maxtext_towers.make_pixels(config, seed=1)
    tiles = maxtext_towers.maxtext_pixels(config, pixels)
    assert tiles.shape == (1, 1, 3, 8, 8)
    assert np.array_equal(tiles[0], pixels)


def test_patches_keep_their_order_in_memory() -> None:
    pixels = maxtext_towers.make_pixels(_PATCHES, seed=1)
    whole = maxtext_towers.maxtext_pixels(_PATCHES, pixels)
    assert (pixels.shape, whole.shape) == ((24, 96), (1, 3, 2, 16, 24))
    assert np.array_equal(whole.ravel(), pixels.ravel())
