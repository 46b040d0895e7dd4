"""Kinds of layers, as a config lists them or as its class derives them where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_Lookup = Callable[[str], Any]
_FULL, _SLIDING, _LINEAR, _CHUNKED = "full_attention", "sliding_attention", "linear_attention", "chunked_attention"
_INDEXED = "indexed_attention"
_LARGEST = 10_000
# Every how many layers attention is full, and what the others have.
_PERIODS: Mapping[str, tuple[int, str]] = {
    "gemma2": (2, _SLIDING),
    "gemma3": (6, _SLIDING),
    "gemma4": (6, _SLIDING),
    "gpt_oss": (2, _SLIDING),
    "olmo3": (4, _SLIDING),
    "qwen3_next": (4, _LINEAR),
    "qwen3_5": (4, _LINEAR),
}
_PERIOD_FIELDS = {
    "gemma3": "sliding_window_pattern",
    "qwen3_next": "full_attention_interval",
    "qwen3_5": "full_attention_interval",
}
_WINDOW_BEHIND = ("qwen2", "qwen3")
_ROPE_INTERVAL = 4
_SWITCHED_WINDOW = ("qwen2", "qwen3", "qwen3_moe")


def layer_types(lookup: _Lookup, family: str) -> Any:
    """The kind of attention of each layer; None for families whose layers are all alike, or without their number."""
    listed, layers = lookup("layer_types"), _count(lookup("num_hidden_layers"))
    if listed is not None:
        return _with_full_end(listed) if family == "gemma4" else listed
    if layers is None:
        return None
    if family == "llama4":
        rotated = no_rope_layers(lookup, family)
        return [_CHUNKED if one else _FULL for one in rotated] if isinstance(rotated, list) else None
    if family == "deepseek32":
        return [_INDEXED] * layers
    if family in _WINDOW_BEHIND:
        return _behind(lookup, family, layers)
    if family not in _PERIODS:
        return None
    period, other = _PERIODS[family]
    stated = lookup(_PERIOD_FIELDS[family]) if family in _PERIOD_FIELDS else None
    period = period if stated is None else stated
    if _count(period) is None:
        return None
    kinds = [other if (layer + 1) % period else _FULL for layer in range(layers)]
    return _with_full_end(kinds) if family == "gemma4" else kinds


def no_rope_layers(lookup: _Lookup, family: str) -> Any:
    """Which layers of Llama 4 have a rotary embedding, 1 for each that has; an empty list means the usual ones."""
    listed, layers = lookup("no_rope_layers"), _count(lookup("num_hidden_layers"))
    if listed or family != "llama4" or layers is None:
        return listed
    interval = lookup("no_rope_layer_interval")
    interval = _ROPE_INTERVAL if interval is None else interval
    return None if _count(interval) is None else [int((layer + 1) % interval != 0) for layer in range(layers)]


def moe_layers(lookup: _Lookup, family: str) -> Any:
    """The layers of Llama 4 that have experts, by their numbers."""
    listed, layers = lookup("moe_layers"), _count(lookup("num_hidden_layers"))
    if listed is not None or family != "llama4" or layers is None:
        return listed
    step = lookup("interleave_moe_layer_step")
    step = 1 if step is None else step
    return None if _count(step) is None else list(range(step - 1, layers, step))


def sliding_window(lookup: _Lookup, family: str) -> Any:
    """The window of attention in tokens; "null" where the config switches it off, or does not switch it on."""
    switch = lookup("use_sliding_window")
    if switch is False or (switch is None and family in _SWITCHED_WINDOW):
        return "null"
    return lookup("sliding_window")


def _behind(lookup: _Lookup, family: str, layers: int) -> Any:
    window, first = sliding_window(lookup, family), lookup("max_window_layers")
    first = 28 if first is None else first
    if window in (None, "null") or type(first) is not int:
        return [_FULL] * layers
    return [_SLIDING if layer >= first else _FULL for layer in range(layers)]


def _with_full_end(kinds: Any) -> Any:
    """The last layer of Gemma 4 is full, whatever its config says."""
    return [*kinds[:-1], _FULL] if isinstance(kinds, list) and kinds else kinds


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= _LARGEST else None
