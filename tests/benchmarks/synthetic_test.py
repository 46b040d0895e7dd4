"""The model that benchmarks convert."""

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from converters.benchmarking import synthetic


def _bits(folder: Path) -> dict[str, np.ndarray]:
    """The stored bits of every tensor, read by the format's own library."""
    out = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "numpy") as file:
            out.update({name: file.get_tensor(name).view(np.uint16) for name in file.keys()})
    return out


def test_scale_1_is_the_model_of_the_targets() -> None:
    size = synthetic.scaled(1)
    assert (size.layers, size.width, size.inner, size.vocabulary) == (16, 2048, 8192, 128256)
    assert (size.heads, size.kv_heads) == (32, 8)
    assert f"{size.nbytes / 1e9:.1f}" == "3.0"


@pytest.mark.parametrize("scale", [0.004, 0.02, 0.1, 0.25, 0.5, 4])
def test_bytes_grow_with_the_scale(scale: float) -> None:
    whole = synthetic.scaled(1).nbytes
    assert synthetic.scaled(scale).nbytes == pytest.approx(scale * whole, rel=0.35 if scale < 0.1 else 0.05)


@pytest.mark.parametrize("scale", [0.25, 4])
def test_a_larger_model_has_more_layers_of_the_same_width(scale: float) -> None:
    size = synthetic.scaled(scale)
    assert (size.layers, size.width, size.vocabulary) == (16 * scale, 2048, 128256 * scale)


def test_the_files_hold_the_tensors_that_the_config_implies(tmp_path: Path) -> None:
    size = synthetic.scaled(0.0005)
    synthetic.make(tmp_path / "hf", size)
    config = json.loads((tmp_path / "hf" / "config.json").read_text("utf-8"))
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text("utf-8"))
    bits = _bits(tmp_path / "hf")
    assert len(set(index["weight_map"].values())) > 1
    assert set(index["weight_map"]) == set(bits)
    assert sum(array.nbytes for array in bits.values()) == size.nbytes == index["metadata"]["total_size"]
    assert len(bits) == 9 * config["num_hidden_layers"] + 3
    query = config["num_attention_heads"] * config["head_dim"]
    assert bits["model.layers.1.self_attn.q_proj.weight"].shape == (query, config["hidden_size"])
    assert bits["lm_head.weight"].shape == (config["vocab_size"], config["hidden_size"])


def test_weights_are_finite_random_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    size = synthetic.scaled(0.0005)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthetic.make(tmp_path / name, size, seed)
    first, again, other = (_bits(tmp_path / name) for name in "abc")
    for name, array in first.items():
        assert np.array_equal(array, again[name])
        assert not np.array_equal(array, other[name])
        assert ((array >> 7) & 0xFF).max() < 0xFF
        # Distinct elements must be distinguishable, or a misplaced one would not be seen.
        assert len(np.unique(array)) > min(array.size, 2048) / 2


def test_a_model_is_made_in_bounded_memory(tmp_path: Path) -> None:
    size = synthetic.scaled(0.06)
    tracemalloc.start()
    try:
        synthetic.make(tmp_path / "hf", size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert math.prod(synthetic.tensors(size)[0].shape) * 2 < size.nbytes
    assert peak < 48 << 20 < size.nbytes / 2
