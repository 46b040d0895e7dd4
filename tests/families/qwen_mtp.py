"""The layer that predicts further tokens (MTP), in the files of Qwen3-Next and Qwen3.5: transformers has none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.oracles.arrays import Arrays, dtype_of


def tensors(config: Mapping[str, Any], *, packed: bool) -> Arrays:
    """The tensors of the layer, with random values in bfloat16.

    Args:
        config: of the decoder.
        packed: whether all experts lie in two arrays, or each in three of its own.
    """
    embed, experts, mlp = config["hidden_size"], config["num_experts"], config["moe_intermediate_size"]
    head, queries = config["head_dim"], config["num_attention_heads"] * config["head_dim"]
    keys, shared = config["num_key_value_heads"] * head, config["shared_expert_intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "fc.weight": (embed, 2 * embed),
        "norm.weight": (embed,),
        "pre_fc_norm_embedding.weight": (embed,),
        "pre_fc_norm_hidden.weight": (embed,),
        "layers.0.input_layernorm.weight": (embed,),
        "layers.0.post_attention_layernorm.weight": (embed,),
        "layers.0.self_attn.q_proj.weight": (2 * queries, embed),
        "layers.0.self_attn.k_proj.weight": (keys, embed),
        "layers.0.self_attn.v_proj.weight": (keys, embed),
        "layers.0.self_attn.o_proj.weight": (embed, queries),
        "layers.0.self_attn.q_norm.weight": (head,),
        "layers.0.self_attn.k_norm.weight": (head,),
        "layers.0.mlp.gate.weight": (experts, embed),
        "layers.0.mlp.shared_expert.gate_proj.weight": (shared, embed),
        "layers.0.mlp.shared_expert.up_proj.weight": (shared, embed),
        "layers.0.mlp.shared_expert.down_proj.weight": (embed, shared),
        "layers.0.mlp.shared_expert_gate.weight": (1, embed),
    }
    inner = "layers.0.mlp.experts."
    if packed:
        shapes |= {inner + "gate_up_proj": (experts, 2 * mlp, embed), inner + "down_proj": (experts, embed, mlp)}
    else:
        for expert in range(experts):
            shapes |= {f"{inner}{expert}.{name}_proj.weight": (mlp, embed) for name in ("gate", "up")}
            shapes[f"{inner}{expert}.down_proj.weight"] = (embed, mlp)
    generator = np.random.default_rng(7)
    return {
        "mtp." + name: generator.standard_normal(shape).astype(dtype_of("bfloat16")) for name, shape in shapes.items()
    }
