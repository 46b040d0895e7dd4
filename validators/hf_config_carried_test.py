"""Tests of the config.json that is written beside converted weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mappings import catalog
from validators import hf_config


def _published(name: str) -> dict[str, Any]:
    manifest = catalog.find(name)
    assert manifest is not None
    return dict(manifest.config)


LLAMA31 = _published("llama3.1-8b")
PLAIN = {key: value for key, value in LLAMA31.items() if not key.startswith("rope_")}
V5 = {
    **{key: value for key, value in PLAIN.items() if key != "torch_dtype"},
    "rope_parameters": {**LLAMA31["rope_scaling"], "rope_theta": 500000.0},
    "dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (LLAMA31, "bfloat16"),
        (LLAMA31 | {"torch_dtype": "float16", "dtype": "float16"}, "float16"),
        ({**PLAIN, "torch_dtype": None}, "float32"),
        (LLAMA31 | V5, "bfloat16"),
        ({"model_type": "llama"}, "float32"),
        (PLAIN | {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}, "bfloat16"),
    ],
)
def test_a_config_that_both_versions_read_stays_as_it_is(config: dict[str, Any], dtype: str) -> None:
    carried = hf_config.carried_config(config, dtype=dtype)
    assert json.dumps(carried) == json.dumps(config)


def test_a_config_in_the_newer_spelling_gets_the_older_one_too() -> None:
    carried = hf_config.carried_config(V5, dtype="bfloat16")
    assert {key: carried[key] for key in carried if key not in V5} == {
        "rope_theta": 500000.0,
        "rope_scaling": LLAMA31["rope_scaling"],
        "torch_dtype": "bfloat16",
    }
    assert {key: carried[key] for key in V5} == V5


def test_a_plain_embedding_in_the_newer_spelling_gets_the_older_one_too() -> None:
    config = PLAIN | {"rope_parameters": {"rope_theta": 500000, "rope_type": "default"}}
    carried = hf_config.carried_config(config, dtype="bfloat16")
    assert carried["rope_theta"] == 500000
    assert carried["rope_scaling"] is None
    assert carried["rope_parameters"] == config["rope_parameters"]


def test_theta_inside_rope_scaling_is_moved_to_where_version_4_looks() -> None:
    config = PLAIN | {"rope_scaling": {"rope_type": "default", "rope_theta": 500000.0}}
    carried = hf_config.carried_config(config, dtype="bfloat16")
    assert (carried["rope_theta"], carried["rope_scaling"]) == (500000.0, None)


def test_another_dtype_is_written_in_both_spellings() -> None:
    carried = hf_config.carried_config(LLAMA31, dtype="float32")
    assert (carried["torch_dtype"], carried["dtype"]) == ("float32", "float32")
    assert carried["rope_scaling"] == LLAMA31["rope_scaling"]
    assert carried["rope_parameters"] == V5["rope_parameters"]


def test_no_key_is_added_for_what_the_config_does_not_speak_of() -> None:
    config = {"model_type": "llama", "torch_dtype": "float16"}
    carried = hf_config.carried_config(config, dtype="float32")
    assert carried == {"model_type": "llama", "torch_dtype": "float32", "dtype": "float32"}


def test_the_order_of_keys_stays_and_new_ones_stand_beside_their_kin() -> None:
    config = {"model_type": "llama", "dtype": "bfloat16", "rope_parameters": V5["rope_parameters"], "vocab_size": 8}
    assert list(hf_config.carried_config(config, dtype="bfloat16")) == [
        "model_type",
        "dtype",
        "torch_dtype",
        "rope_parameters",
        "rope_theta",
        "rope_scaling",
        "vocab_size",
    ]


@pytest.mark.parametrize("config", [LLAMA31, V5, PLAIN | {"rope_parameters": {"rope_theta": 5e5}}])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_carried_config_is_good_means_the_same_and_is_carried_unchanged(config: dict[str, Any], dtype: str) -> None:
    carried = hf_config.carried_config(config, dtype=dtype)
    assert hf_config.check_config(carried) == []
    assert hf_config.rope_view(carried) == hf_config.rope_view(config)
    assert hf_config.dtype_of(carried) == dtype
    assert hf_config.carried_config(carried, dtype=dtype) == carried


def test_a_config_is_not_changed_in_place() -> None:
    config = json.loads(json.dumps(V5))
    hf_config.carried_config(config, dtype="float32")
    assert config == V5


def test_the_text_of_an_unchanged_config_is_that_of_its_file(tmp_path: Path) -> None:
    content = json.dumps(LLAMA31, indent=7).replace("\n", "\r\n") + "\n\n"
    (tmp_path / "config.json").write_bytes(content.encode())
    config = hf_config.load(tmp_path)
    assert hf_config.carried_text(tmp_path, config, dtype="bfloat16") == content


def test_the_text_of_a_changed_config_is_that_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA31))
    text = hf_config.carried_text(tmp_path, LLAMA31, dtype="float32")
    assert json.loads(text) == hf_config.carried_config(LLAMA31, dtype="float32")
    assert text.endswith("\n}\n")


def test_a_file_of_another_content_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(V5))
    assert json.loads(hf_config.carried_text(tmp_path, LLAMA31, dtype="bfloat16")) == LLAMA31


def test_a_config_without_a_folder_has_a_text() -> None:
    assert json.loads(hf_config.carried_text(None, LLAMA31, dtype="bfloat16")) == LLAMA31


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({}, "float32"),
        ({"torch_dtype": None}, "float32"),
        ({"torch_dtype": "torch.float16"}, "float16"),
        ({"dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_the_dtype_of_a_config(config: dict[str, Any], dtype: str) -> None:
    assert hf_config.dtype_of(config) == dtype


def test_experts_in_the_spelling_of_version_5_are_carried_in_that_of_version_4_too() -> None:
    config = {"model_type": "qwen3_moe", "num_hidden_layers": 2, "num_local_experts": 8}
    carried = hf_config.carried_config(config, dtype="bfloat16")
    assert carried == config | {"num_experts": 8}
    assert hf_config.carried_config(carried, dtype="bfloat16") == carried


def test_experts_that_both_versions_read_stay_as_they_are() -> None:
    for config in ({"model_type": "qwen3_moe", "num_experts": 8}, {"model_type": "mixtral", "num_local_experts": 8}):
        assert hf_config.carried_config(config, dtype="bfloat16") == config


def test_the_rotated_part_of_a_head_is_carried_as_a_key_of_version_4() -> None:
    parameters = {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25}
    config = {"model_type": "qwen3_next", "rope_parameters": parameters}
    carried = hf_config.carried_config(config, dtype="bfloat16")
    assert carried == config | {"rope_theta": 10000000.0, "rope_scaling": None, "partial_rotary_factor": 0.25}


def test_the_language_part_of_a_config_is_carried_in_both_spellings() -> None:
    text = {
        "model_type": "gemma3_text",
        "dtype": "bfloat16",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }
    carried = hf_config.carried_config(
        {"model_type": "gemma3", "dtype": "bfloat16", "text_config": text}, dtype="float32"
    )
    assert (carried["dtype"], carried["torch_dtype"]) == ("float32", "float32")
    inner = carried["text_config"]
    assert (inner["dtype"], inner["torch_dtype"]) == ("float32", "float32")
    assert (inner["rope_theta"], inner["rope_scaling"]) == (1e6, None)
    assert inner["rope_parameters"] == text["rope_parameters"]
