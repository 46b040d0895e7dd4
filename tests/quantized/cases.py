"""Tiny models of the families that are published quantised, each with the way in which it is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.families.harness import Config, Family, Saved, save
from tests.quantized import making
from tests.quantized.loops import Array
from tests.quantized.making import Quantized

_LLAMA: Config = {
    "model_type": "llama",
    "vocab_size": 48,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "tie_word_embeddings": False,
}
_DEEPSEEK: Config = {
    "model_type": "deepseek_v3",
    "vocab_size": 416,
    "hidden_size": 200,
    "intermediate_size": 136,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 0,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 28,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 40.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
    },
    "tie_word_embeddings": False,
}
_GPT_OSS: Config = {
    "model_type": "gpt_oss",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "num_local_experts": 5,
    "num_experts_per_tok": 3,
    "sliding_window": 8,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 150000.0,
        "factor": 32.0,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "original_max_position_embeddings": 4096,
        "truncate": False,
    },
    "tie_word_embeddings": False,
}


def _no_oracle(*_: Any) -> dict[str, Array]:
    raise AssertionError("these tests compare two runs")


def linear(name: str) -> bool:
    """What publishers quantise: matrices of layers, but no router."""
    return name.startswith("model.layers.") and "_proj" in name and name.endswith(".weight")


def _experts(name: str) -> bool:
    return name.endswith(("gate_up_proj", "down_proj"))


@dataclasses.dataclass(frozen=True)
class Case:
    """A family, its config, and how it is quantised."""

    folder: str
    config: Config
    way: Quantized
    names: Callable[[str], bool] = linear
    own_dtypes: Mapping[str, str] = dataclasses.field(default_factory=dict)


_BIAS = {"e_score_correction_bias": "float32"}
CASES: Mapping[str, Case] = {
    "deepseek-fp8": Case("deepseek3", _DEEPSEEK, making.fp8_blocks(), own_dtypes=_BIAS),
    "gpt-oss-mxfp4": Case("gpt_oss", _GPT_OSS, making.mxfp4(), _experts),
    "llama-fp8-small-blocks": Case("llama", _LLAMA, making.fp8_blocks((16, 24))),
    "llama-fp8-whole": Case("llama", _LLAMA, making.fp8_whole()),
    "llama-float-tensor": Case("llama", _LLAMA, making.compressed("float", "tensor")),
    "llama-float-channel": Case("llama", _LLAMA, making.compressed("float", "channel")),
    "llama-float-block": Case("llama", _LLAMA, making.compressed("float", "block", size=(16, 16))),
    "llama-int-tensor": Case("llama", _LLAMA, making.compressed("int", "tensor", scale_dtype="float32")),
    "llama-int-channel": Case("llama", _LLAMA, making.compressed("int", "channel", symmetric=False)),
    "llama-int4-group": Case("llama", _LLAMA, making.compressed("int4", "group", size=8)),
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """A quantised checkpoint, the same dequantised first, and what that holds."""

    case: Case
    quantized: Path
    plain: Path
    tensors: dict[str, Array]


def plain(case: Case, directory: Path, dtype: str = "bfloat16", seed: int = 1) -> Saved:
    """Has transformers save a tiny model."""
    family = Family(case.folder, {"tiny": case.config}, _no_oracle, {}, own_dtypes=case.own_dtypes)
    return save(family, "tiny", directory, dtype, seed)


def made(case: Case, directory: Path, dtype: str = "bfloat16", more: Mapping[str, Array] | None = None) -> Pair:
    """Has transformers save a tiny model, and puts random codes in the place of its weights."""
    saved = plain(case, directory / "base", dtype)
    return Pair(case, *making.pair(directory, saved.directory, saved.tensors, case.names, case.way, more, dtype))
