"""Qwen3-Next: proven as every family is, with both of MaxText's ways to stack it, packed experts and the MTP layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from mappings.language.errors import MappingErrors
from tests import checkpoints
from tests.end_to_end.running import restored
from tests.families import harness, qwen_mtp
from tests.families.harness import Family, FamilyTests
from tests.families.packed_experts import PackedExpertsTests
from tests.oracles import qwen3_next as oracle
from tests.oracles.arrays import Variant


class TestQwen3Next(PackedExpertsTests, FamilyTests):
    family = Family(
        folder="qwen3_next",
        configs={
            "untied": {
                "model_type": "qwen3_next",
                "vocab_size": 56,
                "hidden_size": 40,
                "intermediate_size": 100,
                "num_hidden_layers": 8,
                "full_attention_interval": 4,
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
                "shared_expert_intermediate_size": 16,
                "tie_word_embeddings": False,
            },
            "tied": {
                "model_type": "qwen3_next",
                "vocab_size": 72,
                "hidden_size": 48,
                "intermediate_size": 100,
                "num_hidden_layers": 6,
                "full_attention_interval": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": 8,
                "linear_num_key_heads": 2,
                "linear_key_head_dim": 10,
                "linear_num_value_heads": 4,
                "linear_value_head_dim": 14,
                "linear_conv_kernel_dim": 5,
                "num_experts": 4,
                "num_experts_per_tok": 1,
                "moe_intermediate_size": 32,
                "shared_expert_intermediate_size": 24,
                "tie_word_embeddings": True,
            },
        },
        oracle=oracle.to_maxtext,
        state_options={"hf_layout": "transformers5"},
        targets={"": {}, "0.2.4": {"version": "0.2.4"}},
        published={"qwen3-next-80b-a3b": 79_674_391_296},
    )


CONFIG = TestQwen3Next.family.configs["untied"]


class TestMtp:
    """The layer that published files have behind the last one, and transformers' class has not."""

    def test_it_is_kept_beside_the_output_and_comes_back(self, tmp_path: Path) -> None:
        saved = harness.save(TestQwen3Next.family, "untied", tmp_path / "hf")
        extra = qwen_mtp.tensors(saved.config, packed=False)
        save_file(dict(extra), saved.directory / "mtp.safetensors", {"format": "pt"})
        index_file = saved.directory / "model.safetensors.index.json"
        index = json.loads(index_file.read_text(encoding="utf-8"))
        index["weight_map"] |= dict.fromkeys(extra, "mtp.safetensors")
        index_file.write_text(json.dumps(index), encoding="utf-8")
        harness.to_maxtext(saved.directory, tmp_path / "mt", Variant())
        expected = oracle.to_maxtext(saved.tensors, saved.config, Variant())
        assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
        harness.to_hf(tmp_path / "mt", tmp_path / "back")
        back = checkpoints.read_safetensors(tmp_path / "back")
        assert checkpoints.differing(back, {**saved.tensors, **extra}) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("decoder_sparse_step", 2),
        ("mlp_only_layers", [1]),
        ("attention_bias", True),
        ("linear_num_value_heads", 10),
        ("full_attention_interval", 1),
        ("layer_types", ["linear_attention", "full_attention"]),
    ],
)
def test_a_variant_that_maxtext_has_not_is_refused_with_its_field(field: str, value: object) -> None:
    with pytest.raises(MappingErrors, match=field):
        harness.layout_of("qwen3_next", "hf", {**CONFIG, field: value})


def test_layers_of_other_kinds_than_the_cycle_says_are_refused_with_the_first_of_them() -> None:
    kinds = ["linear_attention", "linear_attention", "linear_attention", "full_attention"] * 2
    config = {name: value for name, value in CONFIG.items() if name != "full_attention_interval"}
    harness.layout_of("qwen3_next", "maxtext", {**config, "layer_types": kinds})
    kinds[4], kinds[7] = kinds[7], kinds[4]
    with pytest.raises(MappingErrors, match=r"layer_types\[4\] = 'full_attention'"):
        harness.layout_of("qwen3_next", "maxtext", {**config, "layer_types": kinds})
