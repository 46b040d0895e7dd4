"""Gemma 3, with and without the tower: proven as every family is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mappings import catalog
from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.loader import load_family
from tests import checkpoints
from tests.end_to_end.running import restored
from tests.families import harness
from tests.families.harness import Family, FamilyTests, Saved
from tests.oracles import gemma3 as oracle
from tests.oracles.arrays import Variant


class TestGemma3(FamilyTests):
    family = Family(
        folder="gemma3",
        configs={
            # Two cycles of six, and two layers after them; a head of its own.
            "remainder": {
                "model_type": "gemma3_text",
                "vocab_size": 72,
                "hidden_size": 60,
                "intermediate_size": 88,
                "num_hidden_layers": 14,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "head_dim": 10,
                "query_pre_attn_scalar": 10,
                "sliding_window": 4,
                "tie_word_embeddings": False,
            },
        },
        oracle=oracle.to_maxtext,
        published={"gemma3-270m": 268_098_176, "gemma3-1b": 999_885_952},
    )

    def test_the_published_models_are_those_of_the_manifests(self) -> None:
        assert _published(vision=False) == set(self.family.published)


VISION: dict[str, Any] = {
    "model_type": "gemma3",
    "tie_word_embeddings": True,
    "mm_tokens_per_image": 4,
    "text_config": {
        "model_type": "gemma3_text",
        "vocab_size": 52,
        "hidden_size": 40,
        "intermediate_size": 30,
        "num_hidden_layers": 8,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "head_dim": 14,
        "query_pre_attn_scalar": 14,
        "sliding_window": 4,
    },
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 24,
        "image_size": 20,
        "intermediate_size": 36,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "patch_size": 5,
        "vision_use_head": False,
    },
}


class TestGemma3Vision(FamilyTests):
    family = Family(
        folder="gemma3",
        configs={"tower": VISION},
        oracle=oracle.to_maxtext,
        published={"gemma3-4b": 4_300_079_472, "gemma3-12b": 12_187_325_040, "gemma3-27b": 27_432_406_640},
        auto_class="AutoModelForImageTextToText",
        state_options={"hf_layout": "transformers5"},
        square=("vision_encoder.Gemma3VisionEncoderLayer_0.embedding.kernel",),
    )

    def test_the_published_models_are_those_of_the_manifests(self) -> None:
        assert _published(vision=True) == set(self.family.published)

    def test_the_files_of_transformers_have_the_names_and_shapes_of_the_layout(self, saved: Saved) -> None:
        layout = harness.layout_of("gemma3", "hf", saved.config, {"tower": "flat"})
        assert {name: values.shape for name, values in saved.tensors.items()} == harness.header_of(layout)

    @pytest.mark.parametrize("scan", [True, False])
    def test_without_use_multimodal_the_decoder_alone_goes_there_and_the_tower_is_kept_for_the_way_back(
        self, saved: Saved, scan: bool, tmp_path: Path
    ) -> None:
        variant = Variant(scan=scan, options={"use_multimodal": "false"})
        harness.to_maxtext(saved.directory, tmp_path / "mt", variant)
        expected = oracle.to_maxtext(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        harness.to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), saved.tensors) == []

    @pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
    def test_rows_that_no_token_has_are_cut_and_kept_and_come_back(self, dtype: str, tmp_path: Path) -> None:
        saved = _with_more_rows(self.family, tmp_path / "hf", dtype)
        variant = Variant(save_dtype=dtype)
        harness.to_maxtext(saved.directory, tmp_path / "mt", variant)
        expected = oracle.to_maxtext(saved.tensors, saved.config, variant)
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        harness.to_hf(tmp_path / "mt", tmp_path / "back")
        assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), saved.tensors) == []

    def test_rows_that_were_not_kept_come_back_as_zeros_as_maxtexts_own_tool_makes_them(self, tmp_path: Path) -> None:
        saved = _with_more_rows(self.family, tmp_path / "hf", "bfloat16")
        harness.to_maxtext(saved.directory, tmp_path / "mt", Variant(exactness="as_requested"))
        assert not (tmp_path / "mt" / "recast" / "kept").exists()
        harness.to_hf(tmp_path / "mt", tmp_path / "back")
        rows = checkpoints.read_safetensors(tmp_path / "back")["language_model.model.embed_tokens.weight"]
        assert rows.shape == (262208, 5)
        assert np.any(rows[:262144])
        assert not np.any(rows[262144:])


def _with_more_rows(family: Family, directory: Path, dtype: str) -> Saved:
    """A checkpoint with as many rows as the published ones, of which 64 belong to no token."""
    text = VISION["text_config"] | {"vocab_size": 262208, "num_hidden_layers": 1, "hidden_size": 5}
    rows = dataclasses.replace(family, configs={"rows": VISION | {"text_config": text}})
    return harness.save(rows, "rows", directory, dtype)


def _published(vision: bool) -> set[str]:
    """The manifests with, or without, a tower."""
    found = [manifest for manifest in catalog.manifests() if manifest.family == "gemma3"]
    return {manifest.name for manifest in found if ("vision_config" in manifest.config) == vision}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config": {"sliding_window_pattern": 4}}, "sliding_window_pattern must be 6"),
        ({"text_config": {"layer_types": ["full_attention"] * 8}}, "every sixth layer"),
        ({"text_config": {"layer_types": ["sliding_attention"] * 5 + ["full_attention"]}}, "an entry for each layer"),
        ({"text_config": {"attention_bias": True}}, "attention_bias must be false"),
        ({"text_config": {"num_attention_heads": 6, "num_key_value_heads": 4}}, "a multiple of num_key_value_heads"),
        ({"vision_config": {"vision_use_head": True}}, "vision_use_head must be false"),
        ({"vision_config": {"num_attention_heads": 5}}, "hidden_size must be a multiple"),
    ],
)
def test_a_config_that_the_block_cannot_hold_is_refused(change: dict[str, dict[str, Any]], message: str) -> None:
    config = {**VISION, **{key: {**VISION[key], **values} for key, values in change.items()}}
    with pytest.raises(MappingErrors, match=message):
        bind_family(load_family("gemma3"), config)
