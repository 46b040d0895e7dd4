"""DeepSeek 3.2: proven as every family is, with layers that predict further tokens, and by its published files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mappings import catalog
from mappings.language.errors import MappingErrors
from tests import checkpoints
from tests.end_to_end.running import Arrays, restored
from tests.families import mtp, published_files
from tests.families.harness import Config, Family, FamilyTests, header_of, layout_of, save, to_hf, to_maxtext
from tests.oracles import deepseek32 as oracle
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
# index_topk is below the number of tokens that logits are computed of, so that the indexer has a say in them.
_CONFIG: Config = {
    "model_type": "deepseek_v32",
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
    "index_n_heads": 6,
    "index_head_dim": 14,
    "index_topk": 4,
    "n_routed_experts": 6,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "rope_parameters": _YARN,
    "tie_word_embeddings": False,
}
_TIED: Config = {
    **_CONFIG,
    "vocab_size": 72,
    "hidden_size": 48,
    "num_hidden_layers": 6,
    "first_k_dense_replace": 1,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "qk_nope_head_dim": 10,
    "v_head_dim": 12,
    "index_n_heads": 2,
    "index_head_dim": 10,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "tie_word_embeddings": True,
}

# The files of deepseek-ai/DeepSeek-V3.2, as a public report on them lists their tensors.
_PUBLISHED = """
lm_head.weight [129280, 7168] bfloat16
model.embed_tokens.weight [129280, 7168] bfloat16
model.norm.weight [7168] float32
model.layers.0-2.mlp.gate_proj.weight [18432, 7168] float8_e4m3fn
model.layers.0-2.mlp.up_proj.weight [18432, 7168] float8_e4m3fn
model.layers.0-2.mlp.down_proj.weight [7168, 18432] float8_e4m3fn
model.layers.0-61.input_layernorm.weight [7168] float32
model.layers.0-61.post_attention_layernorm.weight [7168] float32
model.layers.0-61.self_attn.indexer.k_norm.bias [128] float32
model.layers.0-61.self_attn.indexer.k_norm.weight [128] float32
model.layers.0-61.self_attn.indexer.weights_proj.weight [64, 7168] bfloat16
model.layers.0-61.self_attn.indexer.wk.weight [128, 7168] float8_e4m3fn
model.layers.0-61.self_attn.indexer.wq_b.weight [8192, 1536] float8_e4m3fn
model.layers.0-61.self_attn.kv_a_layernorm.weight [512] float32
model.layers.0-61.self_attn.kv_a_proj_with_mqa.weight [576, 7168] float8_e4m3fn
model.layers.0-61.self_attn.kv_b_proj.weight [32768, 512] float8_e4m3fn
model.layers.0-61.self_attn.o_proj.weight [7168, 16384] float8_e4m3fn
model.layers.0-61.self_attn.q_a_layernorm.weight [1536] float32
model.layers.0-61.self_attn.q_a_proj.weight [1536, 7168] float8_e4m3fn
model.layers.0-61.self_attn.q_b_proj.weight [24576, 1536] float8_e4m3fn
model.layers.3-61.mlp.experts.0-255.gate_proj.weight [2048, 7168] float8_e4m3fn
model.layers.3-61.mlp.experts.0-255.up_proj.weight [2048, 7168] float8_e4m3fn
model.layers.3-61.mlp.experts.0-255.down_proj.weight [7168, 2048] float8_e4m3fn
model.layers.3-61.mlp.gate.e_score_correction_bias [256] float32
model.layers.3-61.mlp.gate.weight [256, 7168] bfloat16
model.layers.3-61.mlp.shared_experts.gate_proj.weight [2048, 7168] float8_e4m3fn
model.layers.3-61.mlp.shared_experts.up_proj.weight [2048, 7168] float8_e4m3fn
model.layers.3-61.mlp.shared_experts.down_proj.weight [7168, 2048] float8_e4m3fn
model.layers.61.eh_proj.weight [7168, 14336] bfloat16
model.layers.61.embed_tokens.weight [129280, 7168] bfloat16
model.layers.61.enorm.weight [7168] float32
model.layers.61.hnorm.weight [7168] float32
model.layers.61.shared_head.head.weight [129280, 7168] bfloat16
model.layers.61.shared_head.norm.weight [7168] float32
"""


class TestDeepseek32(FamilyTests):
    family = Family(
        folder="deepseek32",
        configs={"untied": _CONFIG, "tied": _TIED},
        oracle=oracle.to_maxtext,
        published={"deepseek3.2-671b": 671_877_929_216},
        state_options={"hf_layout": "transformers5", "mtp": "false"},
        own_dtypes={"norm.weight": "float32", "k_norm.bias": "float32", "e_score_correction_bias": "float32"},
        targets={"": {}, "0.2.4": {"version": "0.2.4"}, "collection": {"router_bias": "collection"}},
    )


# Planned from its manifest it is to MaxText. Back, 46,000 arrays out of chunks take many seconds; DeepSeek 2 goes the
# same ways with fewer.
setattr(TestDeepseek32, FamilyTests.test_the_smallest_published_model_is_planned_in_every_direction.__name__, None)


def test_the_published_files_have_the_tensors_of_the_layout_and_no_others() -> None:
    published = published_files.parse(_PUBLISHED)
    assert (published.tensors, published.elements) == (92_425, 685_396_921_376)
    manifest = catalog.find("deepseek3.2-671b")
    assert manifest is not None
    assert header_of(layout_of("deepseek32", "hf", manifest.config)) == published.shapes


def test_what_the_publisher_keeps_in_float32_keeps_its_dtype() -> None:
    published = published_files.parse(_PUBLISHED)
    manifest = catalog.find("deepseek3.2-671b")
    assert manifest is not None
    layout = layout_of("deepseek32", "hf", manifest.config)
    kept = {name for name, array in layout.arrays.items() if array.keep_dtype}
    plain = {name for name in kept if published.dtypes[name] != "float32"}
    assert kept >= {name for name, dtype in published.dtypes.items() if dtype == "float32"}
    assert plain == {f"model.layers.{layer}.self_attn.indexer.weights_proj.weight" for layer in range(62)}


def test_weights_of_index_heads_in_float32_stay_so(tmp_path: Path) -> None:
    family = TestDeepseek32.family
    directory = checkpoints.save_random_with_transformers(
        tmp_path / "hf", _CONFIG, seed=5, own_dtypes={**family.own_dtypes, "weights_proj.weight": "float32"}
    )
    tensors = checkpoints.read_safetensors(directory)
    to_maxtext(directory, tmp_path / "mt", Variant())
    assert checkpoints.differing(restored(tmp_path / "mt"), oracle.to_maxtext(tensors, _CONFIG, Variant())) == []
    to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), tensors) == []


@pytest.mark.parametrize("scan", [True, False])
def test_an_mtp_layer_with_its_indexer_goes_there_and_back_if_it_is_asked_for(scan: bool, tmp_path: Path) -> None:
    saved = save(TestDeepseek32.family, "untied", tmp_path / "hf")
    mtp.count_layer(saved.directory)
    added = _mtp_layer(saved.tensors, tmp_path / "other")
    mtp.add(added, saved.directory)
    variant = Variant(scan=scan, options={"mtp": "true"})
    to_maxtext(saved.directory, tmp_path / "mt", variant)
    config = {**saved.config, "num_nextn_predict_layers": 1}
    expected = oracle.to_maxtext({**saved.tensors, **added}, config, variant)
    assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
    to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), {**saved.tensors, **added}) == []


def test_an_mtp_layer_that_is_not_asked_for_is_kept_with_its_indexer_and_comes_back(tmp_path: Path) -> None:
    saved = save(TestDeepseek32.family, "untied", tmp_path / "hf")
    mtp.count_layer(saved.directory)
    added = _mtp_layer(saved.tensors, tmp_path / "other")
    mtp.add(added, saved.directory)
    to_maxtext(saved.directory, tmp_path / "mt", Variant())
    expected = oracle.to_maxtext(saved.tensors, saved.config, Variant())
    assert checkpoints.differing(restored(tmp_path / "mt"), expected) == []
    to_hf(tmp_path / "mt", tmp_path / "back")
    assert checkpoints.differing(checkpoints.read_safetensors(tmp_path / "back"), {**saved.tensors, **added}) == []


def _mtp_layer(tensors: Arrays, directory: Path) -> Arrays:
    other = save(TestDeepseek32.family, "untied", directory, seed=3).tensors
    return mtp.layer(tensors, other, _CONFIG["num_hidden_layers"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q_lora_rank": None}, "q_lora_rank"),
        ({"rope_interleave": False}, "rope_interleave"),
        ({"indexer_rope_interleave": True}, "indexer_rope_interleave"),
        ({"index_head_dim": 4}, "index_head_dim"),
        ({"index_n_heads": 0}, "index_n_heads|'ih'"),
        ({"layer_types": ["full_attention"] * 5}, "layer_types"),
        ({"layer_types": ["indexed_attention"] * 4}, "layer_types"),
        ({"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 2}, "an entry for each layer"),
        ({"mlp_layer_types": ["dense"] * 3 + ["sparse"] * 2}, "mlp_layer_types must be dense"),
        ({"mlp_layer_types": ["sparse"] * 5}, "mlp_layer_types must be dense"),
        ({"topk_method": "greedy"}, "topk_method"),
        ({"scoring_func": "softmax"}, "scoring_func"),
        ({"moe_layer_freq": 2}, "moe_layer_freq"),
        ({"attention_bias": True}, "attention_bias"),
        ({"first_k_dense_replace": 6}, "first_k_dense_replace"),
        ({"num_key_value_heads": 2}, "num_key_value_heads"),
    ],
)
def test_a_config_that_maxtext_cannot_hold_is_refused(changes: Config, message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("deepseek32", "maxtext", {**_CONFIG, **changes})
