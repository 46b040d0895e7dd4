"""DeepSeek 3 and 3.1 in plain numbers: proven as every family is, and with layers that predict further tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from mappings.language.errors import MappingErrors
from tests import checkpoints
from tests.end_to_end.running import Arrays, restored
from tests.families import mtp
from tests.families.harness import Config, Family, FamilyTests, layout_of, save, to_hf, to_maxtext
from tests.oracles import deepseek as oracle
from tests.oracles.arrays import Variant

_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 40.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}
_CONFIG: Config = {
    "model_type": "deepseek_v3",
    "vocab_size": 96,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 5,
    "first_k_dense_replace": 2,
    "num_nextn_predict_layers": 0,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "rope_parameters": _YARN,
    "tie_word_embeddings": False,
}
_HALVES: Config = {
    **_CONFIG,
    "vocab_size": 72,
    "hidden_size": 48,
    "intermediate_size": 64,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 6,
    "first_k_dense_replace": 1,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "q_lora_rank": None,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "rope_interleave": False,
    "tie_word_embeddings": True,
}


class TestDeepseek3(FamilyTests):
    family = Family(
        folder="deepseek3",
        configs={"compressed-queries": _CONFIG, "halves-tied": _HALVES},
        oracle=oracle.to_maxtext,
        published={"deepseek3-671b": 671_026_404_352, "deepseek3.1-671b": 671_026_404_352},
        state_options={"hf_layout": "transformers5", "mtp": "false"},
        own_dtypes={"e_score_correction_bias": "float32"},
        targets={"": {}, "0.2.4": {"version": "0.2.4"}, "collection": {"router_bias": "collection"}},
        golden="deepseek3",
        golden_options={"version": "0.2.4"},
    )


def _mtp_layer(tensors: Arrays, directory: Path) -> Arrays:
    other = save(TestDeepseek3.family, "compressed-queries", directory, seed=3).tensors
    return mtp.layer(tensors, other, _CONFIG["num_hidden_layers"])


def test_a_model_saved_without_the_mtp_layer_that_its_config_counts_goes_there_and_back(
    tmp_path: Path,
) -> None:
    saved = save(TestDeepseek3.family, "compressed-queries", tmp_path / "hf")
    mtp.count_layer(saved.directory)
    to_maxtext(saved.directory, tmp_path / "mt", Variant())
    to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), saved.tensors) == []


@pytest.mark.parametrize("scan", [True, False])
def test_an_mtp_layer_that_is_not_asked_for_is_kept_and_comes_back(scan: bool, tmp_path: Path) -> None:
    saved = save(TestDeepseek3.family, "compressed-queries", tmp_path / "hf")
    mtp.count_layer(saved.directory)
    added = _mtp_layer(saved.tensors, tmp_path / "other")
    mtp.add(added, saved.directory)
    report = to_maxtext(saved.directory, tmp_path / "mt", Variant(scan=scan))
    assert added.keys() == {note.tensor for note in report.notes if note.kind == "KEPT"}
    expected = oracle.to_maxtext(saved.tensors, saved.config, Variant(scan=scan))
    assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
    to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), {**saved.tensors, **added}) == []


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("version", ["0.2.4", "0.2.5"])
def test_an_mtp_layer_goes_there_and_back_if_it_is_asked_for(version: str, scan: bool, tmp_path: Path) -> None:
    saved = save(TestDeepseek3.family, "compressed-queries", tmp_path / "hf")
    mtp.count_layer(saved.directory)
    added = _mtp_layer(saved.tensors, tmp_path / "other")
    mtp.add(added, saved.directory)
    variant = Variant(scan=scan, options={"version": version, "mtp": "true"})
    to_maxtext(saved.directory, tmp_path / "mt", variant)
    config = {**saved.config, "num_nextn_predict_layers": 1}
    expected = oracle.to_maxtext({**saved.tensors, **added}, config, variant)
    assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
    to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), {**saved.tensors, **added}) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topk_method": "greedy"}, "topk_method"),
        ({"scoring_func": "softmax"}, "scoring_func"),
        ({"moe_layer_freq": 2}, "moe_layer_freq"),
        ({"attention_bias": True}, "attention_bias"),
        ({"first_k_dense_replace": 6}, "first_k_dense_replace"),
        ({"num_key_value_heads": 2}, "num_key_value_heads"),
        ({"qk_rope_head_dim": 7}, "must be even"),
        ({"num_experts_per_tok": 7}, "num_experts_per_tok"),
    ],
)
def test_a_config_that_maxtext_cannot_hold_is_refused(changes: Config, message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("deepseek3", "maxtext", {**_CONFIG, **changes})
