"""Qwen 3, dense: proven as every family is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import checkpoints
from tests.end_to_end.running import recast
from tests.families.harness import Family, FamilyTests, save, to_hf, to_maxtext
from tests.oracles import qwen3 as oracle
from tests.oracles.arrays import Variant


class TestQwen3(FamilyTests):
    family = Family(
        folder="qwen3",
        configs={
            "untied-128": {
                "model_type": "qwen3",
                "vocab_size": 96,
                "hidden_size": 84,
                "intermediate_size": 112,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
                "tie_word_embeddings": False,
            },
            "tied": {
                "model_type": "qwen3",
                "vocab_size": 72,
                "hidden_size": 60,
                "intermediate_size": 88,
                "num_hidden_layers": 4,
                "num_attention_heads": 7,
                "num_key_value_heads": 1,
                "head_dim": 10,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
                "tie_word_embeddings": True,
            },
        },
        oracle=oracle.to_maxtext,
        published={
            "qwen3-0.6b": 596_049_920,
            "qwen3-1.7b": 1_720_574_976,
            "qwen3-4b": 4_022_468_096,
            "qwen3-4b-thinking-2507": 4_022_468_096,
            "qwen3-8b": 8_190_735_360,
            "qwen3-14b": 14_768_307_200,
            "qwen3-32b": 32_762_123_264,
        },
    )


def test_a_tied_head_that_the_publisher_keeps_in_the_files_comes_back(tmp_path: Path) -> None:
    saved = save(TestQwen3.family, "tied", tmp_path / "saved")
    tensors = {**saved.tensors, "lm_head.weight": saved.tensors["model.embed_tokens.weight"]}
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, saved.config)
    to_maxtext(source, tmp_path / "mt", Variant())
    to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), tensors) == []
    assert recast("verify", str(tmp_path / "mt"), str(tmp_path / "back"), level="full").code == 0
    assert recast("convert", str(source), str(tmp_path / "again"), to="hf").code == 0
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "again"), tensors) == []


def test_a_config_without_head_dim_is_refused(tmp_path: Path) -> None:
    saved = save(TestQwen3.family, "tied", tmp_path / "saved")
    config = {key: value for key, value in saved.config.items() if key != "head_dim"}
    source = checkpoints.write_safetensors(tmp_path / "hf", saved.tensors, config)
    outcome = recast("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt")
    assert outcome.code == 2
    assert "head_dim" in outcome.text


@pytest.mark.parametrize(("value", "code"), [(0.0, 0), (1.0, 2)])
def test_biases_are_carried_as_long_as_they_are_zero(value: float, code: int, tmp_path: Path) -> None:
    saved = save(TestQwen3.family, "tied", tmp_path / "saved")
    tensors = dict(saved.tensors)
    for name, values in saved.tensors.items():
        if name.endswith("_proj.weight") and "self_attn" in name:
            tensors[name.replace("weight", "bias")] = np.full(values.shape[0], value, values.dtype)
    config = {**saved.config, "attention_bias": True}
    source = checkpoints.write_safetensors(tmp_path / "hf", tensors, config)
    outcome = recast("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt")
    assert outcome.code == code
    if code == 0:
        to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), tensors) == []
    else:
        assert "q_proj.bias" in outcome.text


@pytest.mark.parametrize(("first", "code"), [(3, 2), (4, 0)])
def test_a_window_that_slides_in_some_layers_is_refused(first: int, code: int, tmp_path: Path) -> None:
    saved = save(TestQwen3.family, "tied", tmp_path / "saved")
    config = {**saved.config, "use_sliding_window": True, "sliding_window": 32, "max_window_layers": first}
    source = checkpoints.write_safetensors(tmp_path / "hf", saved.tensors, config)
    outcome = recast("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt")
    assert outcome.code == code
    assert ("use_sliding_window is true" in outcome.text) == (code == 2)
