"""The checkpoints that other tests convert are what they say they are."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests import checkpoints
from tests.oracles import llama

DTYPES = ("bfloat16", "float16", "float32")


@pytest.mark.parametrize("name", checkpoints.CONFIGS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_transformers_writes_every_bit_in_several_files(tmp_path: Path, name: str, dtype: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    config = checkpoints.CONFIGS[name]
    tensors = checkpoints.element_coded_llama(config, dtype, seed=1)
    checkpoints.save_with_transformers(tmp_path, config, tensors, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path), tensors) == []
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype


@pytest.mark.parametrize("name", checkpoints.CONFIGS)
def test_transformers_loads_what_is_written_without_it(tmp_path: Path, name: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = checkpoints.CONFIGS[name]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=2)
    checkpoints.write_safetensors(tmp_path, tensors, config, shard_bytes=40_000)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    loaded = {
        key: values.view(torch.uint16).numpy().view(tensors["model.norm.weight"].dtype)
        for key, values in model.state_dict().items()
        if key in tensors
    }
    assert checkpoints.differing(loaded, tensors) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_finite_distinct_and_of_every_kind(dtype: str) -> None:
    tensors = checkpoints.element_coded_llama(checkpoints.CONFIGS["odd_ten"], dtype, seed=3)
    tiny = np.finfo(np.float32).tiny if dtype != "float16" else np.finfo(np.float16).tiny
    for values in tensors.values():
        wide = values.astype(np.float64)
        assert np.isfinite(wide).all()
        assert np.signbit(wide[wide == 0]).any()
        assert not np.signbit(wide[wide == 0]).all()
        assert (np.abs(wide[wide != 0]) < tiny).any()
    for (_, one), (_, other) in itertools.combinations(tensors.items(), 2):
        assert one.shape != other.shape or one.tobytes() != other.tobytes()


def test_float32_values_stay_finite_in_bfloat16() -> None:
    tensors = checkpoints.element_coded_llama(checkpoints.CONFIGS["odd_six"], "float32", seed=4)
    assert all(np.isfinite(values.astype(llama.dtype_of("bfloat16"))).all() for values in tensors.values())


def test_the_seed_alone_decides_the_values() -> None:
    config = checkpoints.CONFIGS["tied"]
    one, same, other = (checkpoints.element_coded_llama(config, "bfloat16", seed) for seed in (5, 5, 6))
    assert checkpoints.differing(one, same) == []
    assert len(checkpoints.differing(one, other)) == len(one)


@pytest.mark.parametrize("shard_bytes", [None, 1, 5_000, 10**9])
def test_every_split_into_files_is_read_back(tmp_path: Path, shard_bytes: int | None) -> None:
    config = checkpoints.CONFIGS["odd_six"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=7)
    checkpoints.write_safetensors(tmp_path, tensors, config, shard_bytes)
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path), tensors) == []
    index = tmp_path / "model.safetensors.index.json"
    assert index.exists() == (shard_bytes is not None)
    if shard_bytes is not None:
        written = json.loads(index.read_text())
        assert written["weight_map"].keys() == tensors.keys()
        assert written["metadata"]["total_size"] == sum(values.nbytes for values in tensors.values())


def test_a_difference_in_the_sign_of_zero_is_found() -> None:
    expected = {"a": np.array([0.0, 1.0], np.float32)}
    assert checkpoints.differing({"a": np.array([-0.0, 1.0], np.float32)}, expected) == [
        "a: 1 of 2 elements differ, the first at [0]"
    ]
