from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.engine import hf_names
from converters.formats.base import TensorInfo


def _usual(directory: Path, *names: str) -> Mapping[str, str]:
    return hf_names.usual_names({name: TensorInfo(name, (2, 2), "float32") for name in names}, directory)[0]


def test_names_of_a_whole_model_stay(tmp_path: Path) -> None:
    assert _usual(tmp_path, "model.embed_tokens.weight", "model.norm.weight") == {}
    assert _usual(tmp_path, "language_model.model.embed_tokens.weight", "language_model.model.norm.weight") == {}


def test_names_of_a_draft_stay(tmp_path: Path) -> None:
    assert _usual(tmp_path, "embed_tokens.weight", "fc.weight", "layers.0.mlp.up_proj.weight", "norm.weight") == {}


def test_names_of_an_adapter_stay(tmp_path: Path) -> None:
    assert _usual(tmp_path, "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight") == {}


def test_a_lead_that_only_some_names_have_stays(tmp_path: Path) -> None:
    assert _usual(tmp_path, "module.lm_head.weight", "model.norm.weight") == {}


def test_the_text_part_of_a_base_model_gets_the_lead_that_the_vision_part_gets(tmp_path: Path) -> None:
    names = ("language_model.embed_tokens.weight", "language_model.norm.weight", "vision_tower.norm.weight")
    assert _usual(tmp_path, *names) == {name: f"model.{name}" for name in names}
