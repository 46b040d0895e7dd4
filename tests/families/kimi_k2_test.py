"""Kimi K2: DeepSeek 3 under another model_type and in its own sizes, proven as every family is, and by its files.

transformers has no class for model_type kimi_k2. Where such a model is a part of another one (kimi_k25), it takes that
part for deepseek_v3, and so do the tests: under the name kimi_k2 it gets its own class for deepseek_v3.
"""

from __future__ import annotations

import pytest

from mappings import catalog
from mappings.language.errors import MappingErrors
from tests.families import published_files
from tests.families.harness import Config, Family, FamilyTests, header_of, layout_of
from tests.oracles import deepseek as oracle
from validators import hf_config

_YARN = {
    "rope_type": "yarn",
    "rope_theta": 50000.0,
    "factor": 32.0,
    "beta_fast": 1.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
}
_CONFIG: Config = {
    "model_type": "kimi_k2",
    "vocab_size": 96,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "n_routed_experts": 7,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "n_group": 1,
    "topk_group": 1,
    "rope_parameters": _YARN,
    "tie_word_embeddings": False,
}

# The files of moonshotai/Kimi-K2-Instruct, as a public report on them lists their tensors.
_PUBLISHED = """
lm_head.weight [163840, 7168] bfloat16
model.embed_tokens.weight [163840, 7168] bfloat16
model.norm.weight [7168] bfloat16
model.layers.0-60.input_layernorm.weight [7168] bfloat16
model.layers.0-60.post_attention_layernorm.weight [7168] bfloat16
model.layers.0-60.self_attn.kv_a_layernorm.weight [512] bfloat16
model.layers.0-60.self_attn.kv_a_proj_with_mqa.weight [576, 7168] float8_e4m3fn
model.layers.0-60.self_attn.kv_b_proj.weight [16384, 512] float8_e4m3fn
model.layers.0-60.self_attn.o_proj.weight [7168, 8192] float8_e4m3fn
model.layers.0-60.self_attn.q_a_layernorm.weight [1536] bfloat16
model.layers.0-60.self_attn.q_a_proj.weight [1536, 7168] float8_e4m3fn
model.layers.0-60.self_attn.q_b_proj.weight [12288, 1536] float8_e4m3fn
model.layers.0-60.self_attn.rotary_emb.inv_freq [56] bfloat16
model.layers.0.mlp.gate_proj.weight [18432, 7168] float8_e4m3fn
model.layers.0.mlp.up_proj.weight [18432, 7168] float8_e4m3fn
model.layers.0.mlp.down_proj.weight [7168, 18432] float8_e4m3fn
model.layers.1-60.mlp.experts.0-383.gate_proj.weight [2048, 7168] float8_e4m3fn
model.layers.1-60.mlp.experts.0-383.up_proj.weight [2048, 7168] float8_e4m3fn
model.layers.1-60.mlp.experts.0-383.down_proj.weight [7168, 2048] float8_e4m3fn
model.layers.1-60.mlp.gate.e_score_correction_bias [384] float32
model.layers.1-60.mlp.gate.weight [384, 7168] bfloat16
model.layers.1-60.mlp.shared_experts.gate_proj.weight [2048, 7168] float8_e4m3fn
model.layers.1-60.mlp.shared_experts.up_proj.weight [2048, 7168] float8_e4m3fn
model.layers.1-60.mlp.shared_experts.down_proj.weight [7168, 2048] float8_e4m3fn
"""


@pytest.fixture(scope="session", autouse=True)
def _kimi_k2_is_read_as_deepseek_v3() -> None:
    transformers = pytest.importorskip("transformers")
    conversions = pytest.importorskip("transformers.conversion_mapping")

    class KimiK2Config(transformers.DeepseekV3Config):  # type: ignore[name-defined]
        model_type = "kimi_k2"

    class DeepseekV3ForCausalLM(transformers.DeepseekV3ForCausalLM):  # type: ignore[name-defined]
        config_class = KimiK2Config

    transformers.AutoConfig.register("kimi_k2", KimiK2Config, exist_ok=True)
    transformers.AutoModelForCausalLM.register(KimiK2Config, DeepseekV3ForCausalLM, exist_ok=True)
    packed = conversions.get_checkpoint_conversion_mapping("deepseek_v3")
    conversions.register_checkpoint_conversion_mapping("kimi_k2", packed, overwrite=True)


class TestKimiK2(FamilyTests):
    family = Family(
        folder="kimi_k2",
        configs={"one-dense-layer": _CONFIG},
        oracle=oracle.to_maxtext,
        published={
            "kimi-k2-1t": 1_026_408_209_408,
            "kimi-k2-1t-0905": 1_026_408_209_408,
            "kimi-k2-1t-thinking": 1_026_408_209_408,
        },
        state_options={"hf_layout": "transformers5"},
        own_dtypes={"e_score_correction_bias": "float32"},
        targets={"": {}, "0.2.4": {"version": "0.2.4"}, "collection": {"router_bias": "collection"}},
    )


# Planned from its manifest it is to MaxText. Back, 69,000 arrays out of chunks take many seconds; DeepSeek 2 goes the
# same ways with fewer.
setattr(TestKimiK2, FamilyTests.test_the_smallest_published_model_is_planned_in_every_direction.__name__, None)


def test_the_published_files_have_the_tensors_of_the_layout_and_rotary_frequencies() -> None:
    published = published_files.parse(_PUBLISHED)
    assert (published.tensors, published.elements) == (139_644, 1_026_470_731_056)
    manifest = catalog.find("kimi-k2-1t")
    assert manifest is not None
    layout = layout_of("kimi_k2", "hf", manifest.config)
    frequencies = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq" for layer in range(61)}
    assert {name for name, dtype in published.dtypes.items() if dtype == "float32"} == {
        name for name, array in layout.arrays.items() if array.keep_dtype
    }
    weights = {name: shape for name, shape in published.shapes.items() if name not in frequencies}
    assert header_of(layout) == weights


def test_an_architecture_without_a_model_type_is_still_deepseek() -> None:
    manifest = catalog.find("kimi-k2-1t")
    assert manifest is not None
    config = {key: value for key, value in manifest.config.items() if key != "model_type"}
    assert catalog.family_of(config) == "deepseek3"
    assert catalog.family_of(manifest.config) == "kimi_k2"


@pytest.mark.parametrize("model_type", ["deepseek_v3", "kimi_k2"])
def test_another_architecture_is_refused_for_both_model_types(model_type: str) -> None:
    manifest = catalog.find("kimi-k2-1t")
    assert manifest is not None
    config = {**manifest.config, "model_type": model_type, "architectures": ["KimiLinearForCausalLM"]}
    assert [fault.id for fault in hf_config.check_config(config)] == ["UNKNOWN_ARCHITECTURE"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topk_method": "greedy"}, "topk_method"),
        ({"scoring_func": "softmax"}, "scoring_func"),
        ({"first_k_dense_replace": 5}, "first_k_dense_replace"),
        ({"num_experts_per_tok": 8}, "num_experts_per_tok"),
    ],
)
def test_a_config_that_maxtext_cannot_hold_is_refused(changes: Config, message: str) -> None:
    with pytest.raises(MappingErrors, match=message):
        layout_of("kimi_k2", "maxtext", {**_CONFIG, **changes})
