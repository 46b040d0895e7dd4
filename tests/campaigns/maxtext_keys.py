"""What config.json of a Hugging Face checkpoint means in keys of MaxText: for comparisons with MaxText itself.

A model type is data here: the name of a MaxText model that has its decoder block, and what of config.json decides
further keys. Every size is overridden, so that any model of that block can be built, however small.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

# Fields of config.json and the MaxText key each one decides; a field that is absent or null decides nothing.
_FIELDS = {
    "hidden_size": "base_emb_dim",
    "intermediate_size": "base_mlp_dim",
    "num_hidden_layers": "base_num_decoder_layers",
    "num_attention_heads": "base_num_query_heads",
    "num_key_value_heads": "base_num_kv_heads",
    "vocab_size": "vocab_size",
    "rms_norm_eps": "normalization_layer_epsilon",
    "tie_word_embeddings": "logits_via_embedding",
    "num_experts": "num_experts",
    "num_local_experts": "num_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "moe_intermediate_size": "base_moe_mlp_dim",
    "norm_topk_prob": "norm_topk_prob",
    "sliding_window": "sliding_window_size",
    "attn_logit_softcapping": "attn_logits_soft_cap",
    "final_logit_softcapping": "final_logits_soft_cap",
    "attention_bias": "attention_bias",
}

# Fields of vision_config.
_VISION_FIELDS = {
    "hidden_size": "hidden_size_for_vit",
    "intermediate_size": "intermediate_size_for_vit",
    "num_hidden_layers": "num_hidden_layers_for_vit",
    "num_attention_heads": "num_attention_heads_for_vit",
    "num_channels": "num_channels_for_vit",
    "image_size": "image_size_for_vit",
    "patch_size": "patch_size_for_vit",
}

# Of the rotary embedding, where its type is yarn.
_YARN_FIELDS = {
    "factor": "rope_factor",
    "beta_fast": "beta_fast",
    "beta_slow": "beta_slow",
    "original_max_position_embeddings": "original_max_position_embeddings",
    "mscale_all_dim": "mscale",
    "truncate": "rope_truncate",
}

# The frequency scaling that is built into MaxText's class for llama3.1, which llama4 has too.
_LLAMA31_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@dataclasses.dataclass(frozen=True)
class Block:
    """What a model type is in MaxText.

    Attributes:
        model_name: a model of MaxText with the decoder block.
        fields: further fields of config.json, or others than usual, and the key that each decides.
        keys: keys that no field decides.
        null: values of keys whose field is null.
        vocabulary: number of rows in config.json, and in MaxText where that differs.
        embedding_root: dtype of the root of the width that the stored embedding is multiplied by, if it is.
        layers_in_one: how many layers of config.json make a layer of MaxText.
        vision: further fields of vision_config, or others than usual, and the key that each decides.
        fused: fields that MaxText has no key for, and the field whose value it takes for each.
        rope_types: what else than a plain rotary embedding the block can have.
    """

    model_name: str
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)
    keys: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    null: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    vocabulary: Mapping[int, int] = dataclasses.field(default_factory=dict)
    fused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    embedding_root: str = ""
    layers_in_one: int = 1
    vision: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rope_types: tuple[str, ...] = ()


# Gemma's embedding is stored multiplied by the root of its width, which tied logits are divided by again.
_GEMMA: dict[str, Any] = {
    "keys": {"normalize_embedding_logits": True},
    "vocabulary": {256000: 256128, 262208: 262144},
    "embedding_root": "float32",
}
_GEMMA3: dict[str, Any] = {**_GEMMA, "embedding_root": "bfloat16", "rope_types": ("linear",)}
_HYBRID_FIELDS = {
    "moe_intermediate_size": "base_mlp_dim base_moe_mlp_dim",
    "full_attention_interval": "inhomogeneous_layer_cycle_interval",
    "linear_conv_kernel_dim": "gdn_conv_kernel_dim",
    "linear_key_head_dim": "gdn_key_head_dim",
    "linear_value_head_dim": "gdn_value_head_dim",
    "linear_num_key_heads": "gdn_num_key_heads",
    "linear_num_value_heads": "gdn_num_value_heads",
}
_SHARED_EXPERT = {"shared_expert_intermediate_size": "moe_intermediate_size"}
# The three positions of a token are one where there is text alone: the plain rotary embedding is the same then.
_TEXT_ONLY = {"use_mrope": False}
_QWEN_VISION = {
    "depth": "num_hidden_layers_for_vit",
    "num_heads": "num_attention_heads_for_vit",
    "in_channels": "num_channels_for_vit",
    "spatial_merge_size": "spatial_merge_size_for_vit",
    "temporal_patch_size": "temporal_patch_size_for_vit",
    "out_hidden_size": "out_hidden_size_for_vit",
    "num_position_embeddings": "num_position_embeddings_for_vit",
    "deepstack_visual_indexes": "deepstack_visual_indexes_for_vit",
}
_MLA_FIELDS = {
    "q_lora_rank": "q_lora_rank",
    "kv_lora_rank": "kv_lora_rank",
    "qk_nope_head_dim": "qk_nope_head_dim",
    "qk_rope_head_dim": "qk_rope_head_dim",
    "v_head_dim": "v_head_dim",
    "n_routed_experts": "num_experts",
    "n_shared_experts": "shared_experts",
    "first_k_dense_replace": "first_num_dense_layers",
    "n_group": "n_routing_groups",
    "topk_group": "topk_routing_group",
    "routed_scaling_factor": "routed_scaling_factor",
    "rope_interleave": "rope_interleave",
    "max_position_embeddings": "max_position_embeddings",
}
_MLA: dict[str, Any] = {"fields": _MLA_FIELDS, "null": {"q_lora_rank": 0}, "rope_types": ("yarn",)}

BLOCKS: Mapping[str, Block] = {
    "llama": Block("llama3.1-8b"),
    "mistral": Block("mistral-7b"),
    "mixtral": Block("mixtral-8x7b", fields={"intermediate_size": "base_mlp_dim base_moe_mlp_dim"}),
    "qwen2": Block("qwen2.5-7b"),
    "qwen3": Block("qwen3-8b"),
    "qwen3_moe": Block("qwen3-30b-a3b", fields={"moe_intermediate_size": "base_mlp_dim base_moe_mlp_dim"}),
    "qwen3_next": Block("qwen3-next-80b-a3b", fields=_HYBRID_FIELDS, fused=_SHARED_EXPERT),
    "qwen3_5_moe": Block(
        "qwen3.5-35b-a3b", fields=_HYBRID_FIELDS, fused=_SHARED_EXPERT, vision=_QWEN_VISION, keys=_TEXT_ONLY
    ),
    "qwen3_vl": Block("qwen3-vl-4b", vision=_QWEN_VISION, keys=_TEXT_ONLY),
    "qwen3_vl_moe": Block(
        "qwen3-vl-30b-a3b",
        fields={"moe_intermediate_size": "base_mlp_dim base_moe_mlp_dim"},
        vision=_QWEN_VISION,
        keys=_TEXT_ONLY,
    ),
    "olmo3": Block("olmo3-7b", fields={"max_position_embeddings": "max_position_embeddings"}, rope_types=("yarn",)),
    "gemma": Block("gemma-7b", **_GEMMA),
    "gemma2": Block("gemma2-2b", layers_in_one=2, **_GEMMA),
    "gemma3_text": Block("gemma3-4b", **_GEMMA3),
    "gemma3": Block("gemma3-4b", vision={"patch_size": "patch_size_for_vit conv_stride_for_vit"}, **_GEMMA3),
    "gemma4": Block(
        "gemma4-26b",
        fields={
            "global_head_dim": "global_head_dim",
            "num_global_key_value_heads": "global_num_kv_heads",
            "attention_k_eq_v": "share_kv_projections",
            "top_k_experts": "num_experts_per_tok",
        },
        keys={"normalize_embedding_logits": True},
        vision={
            "patch_size": "patch_size_for_vit conv_stride_for_vit",
            "position_embedding_size": "num_position_embeddings_for_vit",
        },
        rope_types=("proportional",),
    ),
    "gpt_oss": Block(
        "gpt-oss-20b",
        fields={
            "intermediate_size": "base_mlp_dim base_moe_mlp_dim",
            "swiglu_limit": "mlp_activations_limit",
            "max_position_embeddings": "max_position_embeddings",
        },
        rope_types=("yarn",),
    ),
    "deepseek_v2": Block("deepseek2-16b", **_MLA),
    "deepseek_v3": Block("deepseek3-671b", **_MLA),
    "kimi_k2": Block("kimi-k2-1t", **_MLA),
    "deepseek_v32": Block(
        "deepseek3.2-671b",
        **{
            **_MLA,
            "fields": {
                **_MLA_FIELDS,
                "index_n_heads": "indexer_n_heads",
                "index_head_dim": "indexer_head_dim",
                "index_topk": "indexer_topk",
            },
        },
    ),
    "llama4": Block(
        "llama4-17b-16e",
        fields={
            "intermediate_size": "base_moe_mlp_dim",
            "intermediate_size_mlp": "base_mlp_dim",
            "interleave_moe_layer_step": "interleave_moe_layer_step",
        },
        vision={
            "image_size": "image_size_for_vit tile_size_for_vit",
            "projector_input_dim": "projector_input_dim_for_vit",
            "projector_output_dim": "projector_output_dim_for_vit",
            "vision_output_dim": "vision_output_dim_for_vit",
        },
    ),
}
"""By model_type of config.json."""


def maxtext_keys(config: Mapping[str, Any], model_name: str) -> dict[str, Any]:
    """Returns the MaxText keys for what a config.json holds.

    Args:
        config: what config.json holds, with the fields that transformers writes.
        model_name: MaxText's name of the model, which decides the decoder and what no key says.

    Raises:
        ValueError: the config asks for a rotary embedding that MaxText does not apply under this name.
    """
    block = BLOCKS.get(config["model_type"], Block(model_name))
    text = text_of(config)
    keys: dict[str, Any] = {**block.keys, **_chosen(text, {**_FIELDS, **block.fields}, block.null)}
    if config.get("vision_config"):
        keys |= {"use_multimodal": True, **_chosen(config["vision_config"], {**_VISION_FIELDS, **block.vision}, {})}
    keys["head_dim"] = text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]
    keys["base_num_decoder_layers"] //= block.layers_in_one
    keys["vocab_size"] = block.vocabulary.get(keys["vocab_size"], keys["vocab_size"])
    return keys | _rope_keys(text, model_name, block.rope_types)


def text_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config.json with the fields of its text_config, if it has one, at the top.

    What the whole model is, and whether its head is tied, the top itself says.
    """
    own = {field: config[field] for field in ("model_type", "tie_word_embeddings") if field in config}
    return {**config, **config.get("text_config", {}), **own}


def without_fused(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config.json whose fields that MaxText has no key for are what MaxText takes for them."""
    fused = BLOCKS[config["model_type"]].fused
    changed = {**config, **{field: config[other] for field, other in fused.items() if other in config}}
    if "text_config" in config:
        text = config["text_config"]
        changed["text_config"] = {**text, **{field: text[other] for field, other in fused.items()}}
    return changed


def _chosen(config: Mapping[str, Any], fields: Mapping[str, str], null: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that fields decide; a null field gives what `null` says, or nothing."""
    keys: dict[str, Any] = {}
    for field in fields.keys() & config.keys():
        for key in fields[field].split():
            value = null.get(key) if config[field] is None else config[field]
            if value is not None:
                keys[key] = value
    return keys


def _rope_keys(config: Mapping[str, Any], model_name: str, rope_types: tuple[str, ...]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    rope = {**(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    if "full_attention" in rope:  # one for each kind of layer
        keys["local_rope_max_timescale"] = int(rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    theta = rope.get("rope_theta", config.get("rope_theta"))
    if theta is not None:
        keys["rope_max_timescale"] = int(theta)
    rotated = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rotated is not None:
        keys["global_rope_proportion" if kind == "proportional" else "partial_rotary_factor"] = rotated
    if "linear" in rope_types:
        keys["rope_linear_scaling_factor"] = rope["factor"] if kind == "linear" else 1.0
    if model_name.startswith(("llama3.1", "llama4")):
        found = {field: rope.get(field) for field in _LLAMA31_ROPE}
        if kind == "llama3" and found != _LLAMA31_ROPE:
            raise ValueError(f"MaxText applies {_LLAMA31_ROPE} to {model_name}, config.json asks for {found}")
        rope_types = ("llama3",)
        keys["rope_use_scale"] = kind == "llama3"
    if kind not in ("default", *rope_types):
        raise ValueError(f"MaxText has no rope_type {kind!r} for {model_name}")
    if "yarn" in rope_types:
        keys["rope_type"] = kind
    if kind == "yarn":
        keys.update({key: rope[field] for field, key in _YARN_FIELDS.items() if rope.get(field) is not None})
    return keys
