"""Qwen3-VL, dense and with experts: proven as every family is, with both ways to pack the experts, and the tower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers

from converters.engine import convert
from converters.engine.request import ConversionRequest
from mappings import catalog
from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.loader import load_family
from reporting.report import Report
from tests import checkpoints
from tests.end_to_end.running import restored
from tests.families import harness
from tests.families.harness import Family, FamilyTests, Saved
from tests.oracles import qwen3_vl as oracle
from tests.oracles.arrays import Arrays, Variant

_TEXT: dict[str, Any] = {
    "vocab_size": 56,
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 14,
    "num_key_value_heads": 7,
    "head_dim": 16,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 5000000,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    },
}
_VISION: dict[str, Any] = {
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
    "deepstack_visual_indexes": [0, 2],
}
DENSE: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "tie_word_embeddings": True,
    "text_config": {**_TEXT, "model_type": "qwen3_vl_text", "intermediate_size": 26},
    "vision_config": _VISION,
}
EXPERTS: dict[str, Any] = {
    "model_type": "qwen3_vl_moe",
    "tie_word_embeddings": False,
    "text_config": {
        **_TEXT,
        "model_type": "qwen3_vl_moe_text",
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 24,
    },
    "vision_config": _VISION,
}
_SQUARE = ("patch_embed.proj.kernel", "mlp_0.kernel")


class TestQwen3Vl(FamilyTests):
    family = Family(
        folder="qwen3_vl",
        configs={"tied": DENSE},
        oracle=oracle.to_maxtext,
        published={
            "qwen3-vl-2b": 2_127_532_032,
            "qwen3-vl-4b": 4_437_815_808,
            "qwen3-vl-8b": 8_767_123_696,
            "qwen3-vl-32b": 33_357_390_064,
        },
        auto_class="AutoModelForImageTextToText",
        square=_SQUARE,
    )

    def test_the_published_models_are_those_of_the_manifests(self) -> None:
        assert _published("qwen3_vl") == set(self.family.published)

    @pytest.mark.parametrize("scan", [True, False])
    def test_without_use_multimodal_the_decoder_alone_goes_there_and_the_kept_tower_comes_back_too(
        self, saved: Saved, scan: bool, tmp_path: Path
    ) -> None:
        variant = Variant(scan=scan, options={"use_multimodal": "false"})
        harness.to_maxtext(saved.directory, tmp_path / "mt", variant)
        expected = oracle.to_maxtext(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        harness.to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), saved.tensors) == []


class TestQwen3VlMoe(FamilyTests):
    family = Family(
        folder="qwen3_vl",
        configs={"untied": EXPERTS},
        oracle=oracle.to_maxtext,
        published={"qwen3-vl-30b-a3b": 31_070_754_032, "qwen3-vl-235b-a22b": 235_670_022_896},
        auto_class="AutoModelForImageTextToText",
        state_options={"hf_layout": "transformers5"},
        square=_SQUARE,
    )

    def test_the_published_models_are_those_of_the_manifests(self) -> None:
        assert _published("qwen3_vl_moe") == set(self.family.published)

    def test_the_files_of_transformers_have_the_names_and_shapes_of_the_layout(self, saved: Saved) -> None:
        layout = harness.layout_of("qwen3_vl", "hf", saved.config, {"hf_layout": "transformers5"})
        assert {name: values.shape for name, values in saved.tensors.items()} == harness.header_of(layout)

    def test_experts_as_the_publisher_packs_them_are_written_if_asked_for_and_read_by_transformers_and_here(
        self, saved: Saved, tmp_path: Path
    ) -> None:
        harness.to_maxtext(saved.directory, tmp_path / "mt", Variant())
        asked = {"hf_layout": "hub"}
        request = ConversionRequest(tmp_path / "mt", tmp_path / "hub", "maxtext", "hf", "auto", target_options=asked)
        convert.run(request, Report("back"))
        published = _turned_experts(saved.tensors)
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "hub"), published) == []
        model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "hub")
        model.save_pretrained(tmp_path / "in memory", save_original_format=False)
        loaded = checkpoints.read_safetensors(tmp_path / "in memory")
        assert checkpoints.differing(loaded, saved.tensors) == []
        harness.to_maxtext(tmp_path / "hub", tmp_path / "again", Variant())
        assert checkpoints.differing(restored(tmp_path / "again"), restored(tmp_path / "mt")) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("attention_bias", True),
        ("decoder_sparse_step", 2),
        ("mlp_only_layers", [1]),
        ("num_key_value_heads", 4),
        ("head_dim", 15),
        ("num_experts_per_tok", 6),
    ],
)
def test_a_decoder_that_maxtext_has_not_is_refused_with_its_field(field: str, value: object) -> None:
    with pytest.raises(MappingErrors, match=field):
        bind_family(load_family("qwen3_vl"), {**EXPERTS, "text_config": {**EXPERTS["text_config"], field: value}})


@pytest.mark.parametrize(("field", "value"), [("num_heads", 5), ("out_hidden_size", 48)])
def test_a_tower_that_maxtext_has_not_is_refused_with_its_field(field: str, value: object) -> None:
    with pytest.raises(MappingErrors, match=field):
        bind_family(load_family("qwen3_vl"), {**DENSE, "vision_config": {**_VISION, field: value}})


def _published(model_type: str) -> set[str]:
    found = [manifest for manifest in catalog.manifests() if manifest.family == "qwen3_vl"]
    return {manifest.name for manifest in found if manifest.config["model_type"] == model_type}


def _turned_experts(tensors: Arrays) -> Arrays:
    """The experts as (in, out), as the published files have them, from those that transformers 5 saves."""
    return {name: values.transpose(0, 2, 1) if ".experts." in name else values for name, values in tensors.items()}
