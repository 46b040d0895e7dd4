"""A tiny DeepSeek 3 with what MaxText has no place for: a layer behind the last one that predicts a further token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tests.end_to_end.running import Arrays

CONFIG: Mapping[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "torch_dtype": "bfloat16",
    "vocab_size": 96,
    "hidden_size": 40,
    "intermediate_size": 56,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 3,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 18,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 6,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "rope_theta": 10000,
    "tie_word_embeddings": False,
}
LAYER = "model.layers.3."
"""How the names of the tensors begin that are kept."""


def write(directory: Path) -> Arrays:
    """Writes the checkpoint in bfloat16, the routers' biases in float32, in two files; returns its tensors."""
    generator = np.random.default_rng(5)
    tensors: Arrays = {}
    for name, shape in _shapes().items():
        dtype = np.float32 if name.endswith("bias") else ml_dtypes.bfloat16
        tensors[name] = generator.standard_normal(shape).astype(dtype)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    weight_map = {name: f"model-{2 if LAYER in name else 1:05d}-of-00002.safetensors" for name in tensors}
    for file in sorted(set(weight_map.values())):
        save_file({n: v for n, v in tensors.items() if weight_map[n] == file}, directory / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return tensors


def _shapes() -> dict[str, tuple[int, ...]]:
    c = CONFIG
    embed, heads = c["hidden_size"], c["num_attention_heads"]
    top = {"model.embed_tokens": (c["vocab_size"], embed), "model.norm": (embed,), "lm_head": (c["vocab_size"], embed)}
    found = {f"{name}.weight": shape for name, shape in top.items()}
    for layer in range(c["num_hidden_layers"] + 1):
        own: dict[str, tuple[int, ...]] = {
            "input_layernorm": (embed,),
            "post_attention_layernorm": (embed,),
            "self_attn.q_a_proj": (c["q_lora_rank"], embed),
            "self_attn.q_a_layernorm": (c["q_lora_rank"],),
            "self_attn.q_b_proj": (heads * (c["qk_nope_head_dim"] + c["qk_rope_head_dim"]), c["q_lora_rank"]),
            "self_attn.kv_a_proj_with_mqa": (c["kv_lora_rank"] + c["qk_rope_head_dim"], embed),
            "self_attn.kv_a_layernorm": (c["kv_lora_rank"],),
            "self_attn.kv_b_proj": (heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"]),
            "self_attn.o_proj": (embed, heads * c["v_head_dim"]),
        }
        if layer < c["first_k_dense_replace"]:
            own |= _mlp("mlp.", c["intermediate_size"])
        else:
            own |= {"mlp.gate": (c["n_routed_experts"], embed)}
            own |= _mlp("mlp.shared_experts.", c["n_shared_experts"] * c["moe_intermediate_size"])
            for expert in range(c["n_routed_experts"]):
                own |= _mlp(f"mlp.experts.{expert}.", c["moe_intermediate_size"])
            found[f"model.layers.{layer}.mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
        if layer == c["num_hidden_layers"]:
            own |= {"enorm": (embed,), "hnorm": (embed,), "shared_head.norm": (embed,), "eh_proj": (embed, 2 * embed)}
            own |= {"embed_tokens": top["model.embed_tokens"], "shared_head.head": top["lm_head"]}
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    return found


def _mlp(prefix: str, inner: int) -> dict[str, tuple[int, ...]]:
    embed = CONFIG["hidden_size"]
    return {
        f"{prefix}gate_proj": (inner, embed),
        f"{prefix}up_proj": (inner, embed),
        f"{prefix}down_proj": (embed, inner),
    }
