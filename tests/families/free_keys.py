"""Keys of config.json on which no graph depends, found by reading the models' code; no rule is looked at."""

from __future__ import annotations

# How transformers initialises, trains and loads a model, and what its tokenizer means; the last keys say what
# generation returns.
FREE = {
    "aux_loss_alpha",
    "ep_size",
    "for_llm_compressor",
    "initializer_range",
    "output_router_logits",
    "pretraining_tp",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "seq_aux",
    "audio_token_id",
    "boa_token_id",
    "boi_token_id",
    "boi_token_index",
    "bos_token_id",
    "eoa_token_id",
    "eoi_token_id",
    "eoi_token_index",
    "eos_token_id",
    "image_token_id",
    "image_token_index",
    "pad_token_id",
    "video_token_id",
    "vision_end_token_id",
    "vision_start_token_id",
    "cache_implementation",
    "use_cache",
}
# Differences that are told and refuse nothing.
WARNED = {"max_position_embeddings", "dtype", "torch_dtype"}
# Keys that no class of transformers reads, or none of these families while another key says what it does.
UNREAD = {
    "experts_per_token",
    "initial_context_length",
    "mamba_ssm_dtype",
    "mtp_use_dedicated_embeddings",
    "qkv_bias",
    "sliding_window_size",
    "use_mrope",
    "vision_config.vision_feature_layer",
    "vision_config.vision_feature_select_strategy",
    "gemma3 _sliding_window_pattern",
    "gemma4 tie_word_embeddings",
    "gemma4 vision_config.global_head_dim",
    "gemma4 vision_config.rope_parameters.rope_type",
    "qwen2 max_window_layers",
    "qwen2 sliding_window",
    "qwen3 max_window_layers",
    "qwen3 use_sliding_window",
    "qwen3_moe max_window_layers",
    "qwen3_moe use_sliding_window",
    "qwen3_next use_sliding_window",
    "qwen3_vl text_config.tie_word_embeddings",
    # Towers are built by their place; serving drops nothing, and none of their tables is that long.
    "vision_config.attention_dropout",
    "vision_config.dtype",
    "vision_config.max_position_embeddings",
    "vision_config.model_type",
    "vision_config.projector_dropout",
}


def may_change(family: str, path: str) -> bool:
    """Whether no graph of a family depends on the key at a path of config.json."""
    key = path.removeprefix("text_config.")
    last = key.rpartition(".")[2]
    return last in FREE | WARNED or bool({key, last, f"{family} {path}"} & UNREAD)
