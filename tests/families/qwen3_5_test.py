"""Qwen3.5 with experts: proven as every family is, with packed experts, the MTP layer and the tower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file, save_file

from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.loader import load_family
from tests import checkpoints
from tests.end_to_end.running import restored
from tests.families import harness, qwen_mtp
from tests.families.harness import Family, FamilyTests, Saved
from tests.oracles import qwen3_5 as oracle
from tests.oracles.arrays import Arrays, Variant

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_5_moe",
    "text_config": {
        "model_type": "qwen3_5_moe_text",
        "vocab_size": 56,
        "hidden_size": 40,
        "num_hidden_layers": 8,
        "num_attention_heads": 14,
        "num_key_value_heads": 7,
        "head_dim": 16,
        "linear_num_key_heads": 4,
        "linear_key_head_dim": 6,
        "linear_num_value_heads": 12,
        "linear_value_head_dim": 11,
        "linear_conv_kernel_dim": 4,
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 18,
    },
    "vision_config": {
        "depth": 3,
        "hidden_size": 24,
        "intermediate_size": 36,
        "num_heads": 4,
        "in_channels": 3,
        "patch_size": 5,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": 40,
        "num_position_embeddings": 49,
    },
}


class TestQwen35(FamilyTests):
    family = Family(
        folder="qwen3_5",
        configs={"untied": CONFIG},
        oracle=oracle.to_maxtext,
        published={"qwen3.5-35b-a3b": 35_107_181_936, "qwen3.5-397b-a17b": 396_802_360_816},
        auto_class="AutoModelForImageTextToText",
        own_dtypes=dict.fromkeys(oracle.OWN_DTYPE, "float32"),
        square=("patch_embed.proj.kernel", "merger.mlp_0.kernel"),
    )

    def test_the_files_of_transformers_have_the_names_and_shapes_of_the_layout(self, saved: Saved) -> None:
        layout = harness.layout_of("qwen3_5", "hf", saved.config, {"experts": "apart"})
        assert {name: values.shape for name, values in saved.tensors.items()} == harness.header_of(layout)

    @pytest.mark.parametrize("multimodal", ["true", "false"])
    def test_published_files_with_packed_experts_and_the_mtp_layer_come_back_whole(
        self, saved: Saved, multimodal: str, tmp_path: Path
    ) -> None:
        published = _published(saved, tmp_path / "hf")
        variant = Variant(options={"use_multimodal": multimodal})
        harness.to_maxtext(tmp_path / "hf", tmp_path / "mt", variant)
        expected = oracle.to_maxtext(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        harness.to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), published) == []

    def test_the_published_files_have_the_names_and_shapes_of_the_layout_and_transformers_reads_them_whole(
        self, saved: Saved, tmp_path: Path
    ) -> None:
        published = _published(saved, tmp_path / "hf")
        layout = harness.layout_of("qwen3_5", "hf", saved.config, {"mtp": "true"})
        assert {name: values.shape for name, values in published.items()} == harness.header_of(layout)
        _, said = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "hf", output_loading_info=True)
        assert {kind: list(left) for kind, left in said.items() if left} == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention_bias", True),
        ("decoder_sparse_step", 2),
        ("mlp_only_layers", [1]),
        ("attn_output_gate", False),
        ("mtp_use_dedicated_embeddings", True),
        ("linear_num_value_heads", 10),
        ("full_attention_interval", 1),
        ("layer_types", ["linear_attention", "full_attention"]),
        ("num_experts_per_tok", 6),
    ],
)
def test_a_decoder_that_maxtext_has_not_is_refused_with_its_field(field: str, value: object) -> None:
    with pytest.raises(MappingErrors, match=field):
        bind_family(load_family("qwen3_5"), {**CONFIG, "text_config": {**CONFIG["text_config"], field: value}})


@pytest.mark.parametrize(
    ("field", "value"), [("deepstack_visual_indexes", [1]), ("num_heads", 5), ("out_hidden_size", 48)]
)
def test_a_tower_that_maxtext_has_not_is_refused_with_its_field(field: str, value: object) -> None:
    with pytest.raises(MappingErrors, match=field):
        bind_family(load_family("qwen3_5"), {**CONFIG, "vision_config": {**CONFIG["vision_config"], field: value}})


def _published(saved: Saved, directory: Path) -> Arrays:
    """The same checkpoint as the publisher would have written it: the experts of a layer packed, and the MTP layer."""
    text = saved.config["text_config"]
    tensors = {name: values for name, values in saved.tensors.items() if ".experts." not in name}
    for layer in range(text["num_hidden_layers"]):
        tensors |= _packed(saved.tensors, f"model.language_model.layers.{layer}.mlp.experts.", text["num_experts"])
    tensors |= qwen_mtp.tensors(text, packed=True)
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({**saved.config, "dtype": "bfloat16"}), encoding="utf-8")
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    assert load_file(directory / "model.safetensors").keys() == tensors.keys()
    return tensors


def _packed(tensors: Arrays, prefix: str, count: int) -> Arrays:
    both, down = [], []
    for expert in range(count):
        gate, up = (tensors[f"{prefix}{expert}.{name}_proj.weight"] for name in ("gate", "up"))
        both.append(np.concatenate([gate, up]))
        down.append(tensors[f"{prefix}{expert}.down_proj.weight"])
    return {prefix + "gate_up_proj": np.stack(both), prefix + "down_proj": np.stack(down)}
