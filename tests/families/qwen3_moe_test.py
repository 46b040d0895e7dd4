"""Qwen 3 with experts: proven as every family is, and with packed experts."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mappings.language.errors import MappingErrors
from reporting.diagnostics import Diagnostic, RecastError
from reporting.report import StepFailed
from tests import checkpoints
from tests.families import harness
from tests.families.harness import Family, FamilyTests
from tests.families.packed_experts import PackedExpertsTests
from tests.oracles import qwen3_moe as oracle
from tests.oracles.arrays import Array, Variant


class TestQwen3Moe(PackedExpertsTests, FamilyTests):
    family = Family(
        folder="qwen3_moe",
        configs={
            "untied-128": {
                "model_type": "qwen3_moe",
                "vocab_size": 96,
                "hidden_size": 80,
                "intermediate_size": 100,
                "moe_intermediate_size": 48,
                "num_hidden_layers": 3,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 128,
                "num_experts": 7,
                "num_experts_per_tok": 3,
                "tie_word_embeddings": False,
            },
            "tied": {
                "model_type": "qwen3_moe",
                "vocab_size": 72,
                "hidden_size": 60,
                "intermediate_size": 52,
                "moe_intermediate_size": 36,
                "num_hidden_layers": 4,
                "num_attention_heads": 7,
                "num_key_value_heads": 1,
                "head_dim": 10,
                "num_experts": 5,
                "num_experts_per_tok": 2,
                "tie_word_embeddings": True,
            },
        },
        oracle=oracle.to_maxtext,
        state_options={"hf_layout": "transformers5"},
        published={
            "qwen3-30b-a3b": 30_532_122_624,
            "qwen3-30b-a3b-base": 30_532_122_624,
            "qwen3-235b-a22b": 235_093_634_560,
            "qwen3-235b-a22b-2504": 235_093_634_560,
            "qwen3-480b-a35b": 480_154_875_392,
        },
    )


CONFIG = TestQwen3Moe.family.configs["untied-128"]
BIASES = tuple(f"self_attn.{name}_proj.bias" for name in "qkvo")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("decoder_sparse_step", 2),
        ("mlp_only_layers", [1]),
        ("use_sliding_window", True),
        ("num_experts_per_tok", 8),
    ],
)
def test_a_variant_that_maxtext_has_not_is_refused_with_its_field(field: str, value: object) -> None:
    harness.layout_of("qwen3_moe", "hf", CONFIG)
    with pytest.raises(MappingErrors, match=field):
        harness.layout_of("qwen3_moe", "hf", {**CONFIG, field: value})


def test_the_two_spellings_of_the_number_of_experts_mean_the_same() -> None:
    newer = {name: value for name, value in CONFIG.items() if name != "num_experts"} | {"num_local_experts": 7}
    expected = harness.header_of(harness.layout_of("qwen3_moe", "hf", CONFIG))
    assert harness.header_of(harness.layout_of("qwen3_moe", "hf", newer)) == expected


def test_attention_biases_must_be_zero_and_come_back_so(tmp_path: Path) -> None:
    config = {**CONFIG, "attention_bias": True}
    family = dataclasses.replace(TestQwen3Moe.family, configs={"biased": config})
    saved = harness.save(family, "biased", tmp_path / "hf")
    found = _refused(saved.directory, tmp_path / "refused")
    assert {diagnostic.id for diagnostic in found} == {"TENSOR_NOT_ZERO"}
    biases = {f"model.layers.{layer}.{name}" for layer in range(3) for name in BIASES}
    assert {diagnostic.subject for diagnostic in found} == biases
    _rewrite(saved.directory, lambda name, values: np.zeros_like(values) if name.endswith(BIASES) else values)
    tensors = checkpoints.read_safetensors(saved.directory)
    harness.to_maxtext(saved.directory, tmp_path / "mt", Variant())
    harness.to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), tensors) == []


@pytest.mark.parametrize("number", [6, 8])
def test_a_number_of_experts_that_the_files_do_not_have_is_refused(
    number: int, checkpoint: Path, tmp_path: Path
) -> None:
    file = checkpoint / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"num_local_experts": number}), encoding="utf-8")
    found = _refused(checkpoint, tmp_path / "mt")
    assert any("experts." in diagnostic.subject for diagnostic in found), found


def test_experts_that_are_there_packed_and_apart_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.experts.down_proj"
    save_file({name: np.ones((7, 80, 48), np.float32)}, checkpoint / "more.safetensors", {"format": "pt"})
    index_file = checkpoint / "model.safetensors.index.json"
    index = json.loads(index_file.read_text(encoding="utf-8"))
    index["weight_map"][name] = "more.safetensors"
    index_file.write_text(json.dumps(index), encoding="utf-8")
    found = _refused(checkpoint, tmp_path / "mt")
    assert [(diagnostic.id, diagnostic.subject) for diagnostic in found] == [("DUPLICATE_TENSOR", name)]


@pytest.fixture
def checkpoint(good: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(good, tmp_path / "damaged"))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that converts."""
    return harness.save(TestQwen3Moe.family, "untied-128", tmp_path_factory.mktemp("good") / "hf").directory


def _refused(source: Path, out: Path) -> tuple[Diagnostic, ...]:
    with pytest.raises(StepFailed) as caught:
        harness.to_maxtext(source, out, Variant())
    assert not (out / "DONE").exists()
    assert isinstance(caught.value.__cause__, RecastError)
    return tuple(caught.value.__cause__.diagnostics)


def _rewrite(directory: Path, change: Callable[[str, Array], Array]) -> None:
    for file in directory.glob("*.safetensors"):
        tensors: dict[str, Any] = {name: change(name, values) for name, values in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
