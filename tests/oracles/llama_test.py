"""The oracle's own promises, on values small enough to be checked by eye."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests import checkpoints
from tests.oracles import llama

QUERY = "params.params.decoder.layers.self_attention.query.kernel"


def _variants() -> list[llama.Variant]:
    return [llama.Variant(scan, interleaved) for scan in (True, False) for interleaved in (True, False)]


@pytest.mark.parametrize("variant", _variants(), ids=str)
@pytest.mark.parametrize("name", checkpoints.CONFIGS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_way_back_gives_every_bit_where_no_bits_fall_off(name: str, variant: llama.Variant, dtype: str) -> None:
    config = checkpoints.CONFIGS[name]
    tensors = checkpoints.with_zero_biases(checkpoints.element_coded_llama(config, dtype, seed=1))
    leaves = llama.to_maxtext(tensors, config, llama.Variant(variant.scan, variant.interleaved, "float32"))
    assert checkpoints.differing(llama.to_hf(leaves, config, variant, dtype), tensors) == []


def test_each_element_of_one_query_lies_where_the_format_says() -> None:
    config = {**checkpoints.CONFIGS["odd_six"], "head_dim": 4, "num_attention_heads": 3}
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=2)
    weight = tensors["model.layers.1.self_attn.q_proj.weight"]
    kernel = llama.to_maxtext(tensors, config, llama.Variant(interleaved=True, save_dtype="float32"))[QUERY]
    assert kernel.shape == (45, 5, 3, 4)
    for head in range(3):
        for theirs, ours in ((0, 0), (2, 1), (1, 2), (3, 3)):
            expected = weight[head * 4 + theirs, 7].astype(np.float32) * np.float32(0.5)
            assert kernel[7, 1, head, ours] == expected


def test_the_query_is_kept_in_float32_only_where_the_factor_is_inexact() -> None:
    for head_dim in (1, 4, 16, 64, 256, 2, 6, 8, 10, 32, 100, 128):
        config = {**checkpoints.CONFIGS["odd_six"], "head_dim": head_dim, "num_attention_heads": 1}
        exact = math.log2(head_dim) in (0, 2, 4, 6, 8)
        tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=3)
        for variant, dtype in (
            (llama.Variant(), "bfloat16" if exact else "float32"),
            (llama.Variant(exactness="as_requested"), "bfloat16"),
        ):
            leaves = llama.to_maxtext(tensors, {**config, "num_key_value_heads": 1}, variant)
            assert {path: leaf.dtype.name for path, leaf in leaves.items() if leaf.dtype != "bfloat16"} == (
                {QUERY: "float32"} if dtype == "float32" else {}
            )


def test_a_bias_that_is_not_zero_is_refused() -> None:
    config = checkpoints.CONFIGS["biased"]
    tensors = checkpoints.with_zero_biases(checkpoints.element_coded_llama(config, "bfloat16", seed=1))
    assert not [path for path in llama.to_maxtext(tensors, config, llama.Variant()) if "bias" in path]
    for name in llama.biases(llama.Sizes.of(config)):
        full_name = f"model.layers.1.{name}"
        changed = tensors[full_name].copy()
        changed[-1] = 1
        with pytest.raises(ValueError, match=full_name):
            llama.to_maxtext({**tensors, full_name: changed}, config, llama.Variant())


def test_values_are_rounded_to_the_save_dtype_before_they_are_multiplied() -> None:
    config = checkpoints.CONFIGS["grouped"]
    tensors = checkpoints.element_coded_llama(config, "float32", seed=4)
    rounded = {name: values.astype(llama.dtype_of("bfloat16")) for name, values in tensors.items()}
    variant = llama.Variant()
    assert (
        checkpoints.differing(llama.to_maxtext(tensors, config, variant), llama.to_maxtext(rounded, config, variant))
        == []
    )


def test_rounding_the_multiplied_query_loses_bits_that_float32_keeps() -> None:
    config = checkpoints.CONFIGS["grouped"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=5)
    problems = {
        exactness: checkpoints.differing(
            llama.to_hf(
                llama.to_maxtext(tensors, config, llama.Variant(exactness=exactness)),
                config,
                llama.Variant(),
                "bfloat16",
            ),
            tensors,
        )
        for exactness in ("invertible", "as_requested")
    }
    assert problems["invertible"] == []
    assert [line.split(":")[0] for line in problems["as_requested"]] == [
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(3)
    ]


def test_a_power_of_two_loses_bits_of_the_very_smallest_values_alone() -> None:
    config = checkpoints.CONFIGS["tied"]
    tensors = checkpoints.element_coded_llama(config, "bfloat16", seed=6)
    back = llama.to_hf(llama.to_maxtext(tensors, config, llama.Variant()), config, llama.Variant(), "bfloat16")
    name = "model.layers.0.self_attn.q_proj.weight"
    lost = back[name].view(np.uint16) != tensors[name].view(np.uint16)
    eight_smallest_normals = 8 * np.finfo(np.float32).tiny
    assert lost.any()
    assert (np.abs(tensors[name][lost].astype(np.float32)) < eight_smallest_normals).all()
