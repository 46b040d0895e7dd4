from __future__ import annotations

from typing import Any

import pytest

from validators import quantization
from validators.quantization import FLOAT8, INT8, MXFP4, PACKED, Scheme, Weights

DEEPSEEK = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
GPT_OSS = {
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
    "quant_method": "mxfp4",
}


def groups(*weights: dict[str, Any], format: str = "float-quantized", **more: Any) -> dict[str, Any]:
    """A compressed-tensors config with a group for each way to store weights."""
    named = {
        f"group_{i}": {"targets": ["Linear"], "weights": each, "input_activations": {"num_bits": 8, "dynamic": True}}
        for i, each in enumerate(weights)
    }
    return {"quant_method": "compressed-tensors", "format": format, "config_groups": named, **more}


KIMI = groups(
    {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True, "dynamic": False},
    format="pack-quantized",
    ignore=["lm_head", "re:.*self_attn.*"],
    kv_cache_scheme=None,
    quantization_status="compressed",
)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DEEPSEEK, Scheme("fp8", (Weights(FLOAT8, 8, (128, 128)),))),
        (DEEPSEEK | {"scale_fmt": "ue8m0"}, Scheme("fp8", (Weights(FLOAT8, 8, (128, 128)),))),
        ({"quant_method": "fp8"}, Scheme("fp8", (Weights(FLOAT8, 8, (128, 128)),))),
        (DEEPSEEK | {"weight_block_size": None}, Scheme("fp8", (Weights(FLOAT8, 8, (0, 0)),))),
        (GPT_OSS, Scheme("mxfp4", (Weights(MXFP4, 4, (1, 32)),))),
        (KIMI, Scheme("compressed-tensors", (Weights(PACKED, 4, (1, 32), whole_groups=True),))),
        (
            groups({"type": "float", "strategy": "channel"}, {"type": "float", "strategy": "tensor"}),
            Scheme("compressed-tensors", (Weights(FLOAT8, 8, (1, 0)), Weights(FLOAT8, 8, (0, 0)))),
        ),
        (
            groups({"type": "int", "strategy": "channel", "symmetric": False}, format="int-quantized"),
            Scheme("compressed-tensors", (Weights(INT8, 8, (1, 0), symmetric=False),)),
        ),
        (
            groups({"type": "float", "strategy": "block", "block_structure": [64, 32]}),
            Scheme("compressed-tensors", (Weights(FLOAT8, 8, (64, 32)),)),
        ),
        (groups({"type": "float", "group_size": -1}), Scheme("compressed-tensors", (Weights(FLOAT8, 8, (1, 0)),))),
    ],
)
def test_a_published_config_is_understood(config: dict[str, Any], expected: Scheme) -> None:
    assert list(quantization.check({"quantization_config": config})) == []
    assert quantization.read({"quantization_config": config}) == expected


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}])
def test_a_config_that_announces_nothing_is_of_plain_weights(config: dict[str, Any]) -> None:
    assert list(quantization.check(config)) == []
    assert quantization.read(config) is None


@pytest.mark.parametrize(
    ("config", "field", "known"),
    [
        ("fp8", "quantization_config", "an object"),
        ({"quant_method": "bitsandbytes"}, "quantization_config.quant_method", "compressed-tensors, fp8, mxfp4"),
        (DEEPSEEK | {"expert_dtype": "fp4"}, "quantization_config.expert_dtype", "fp8"),
        (DEEPSEEK | {"dequantize": True}, "quantization_config.dequantize", "false"),
        (GPT_OSS | {"group": 16}, "quantization_config.group", "quant_method"),
        (KIMI | {"quantization_status": "calibration"}, "quantization_config.quantization_status", "compressed"),
        (KIMI | {"config_groups": {}}, "quantization_config.config_groups", "a group of modules"),
        (
            groups({"type": "float", "strategy": "block"}),
            "quantization_config.config_groups.group_0.weights.block_structure",
            "two positive integers",
        ),
        (
            groups({"type": "int", "strategy": "group", "group_size": 0}, format="pack-quantized"),
            "quantization_config.config_groups.group_0.weights.group_size",
            "a positive integer",
        ),
        (
            groups({"type": "int", "strategy": "channel", "symmetric": False}, format="pack-quantized"),
            "quantization_config.config_groups.group_0.weights.symmetric",
            "true",
        ),
        (groups({"type": "float", "num_bits": 4}), "quantization_config.config_groups.group_0.weights.num_bits", "8"),
        (groups({"type": "int", "strategy": "channel"}), "quantization_config.format", "int-quantized, pack-quantized"),
        (groups({"strategy": "token"}), "quantization_config.config_groups.group_0.weights.strategy", "channel, group"),
    ],
)
def test_what_is_not_decoded_is_refused_with_its_field_and_what_is_known(config: Any, field: str, known: str) -> None:
    (found,) = quantization.check({"quantization_config": config})
    assert (found.id, found.subject) == ("CONFIG_FIELD_INVALID", field)
    assert known in found.reason


def test_plain_weights_need_no_such_field() -> None:
    assert quantization.without({"a": 1, "quantization_config": DEEPSEEK, "compression_config": {}}) == {"a": 1}
