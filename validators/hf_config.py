"""config.json: read safely, checked against the families, and written so that transformers 4 and 5 read the same."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mappings import catalog, strict_json
from mappings.catalog import Manifest
from reporting.diagnostics import Diagnostic, RecastError
from validators import plain_files, quantization
from validators.plain_files import UnreadableError
from validators.rope import KEYS as ROPE_KEYS
from validators.rope import ROTATED, SLIDING_THETA, RopeView, check_rope, rope_types, rope_view, transformers4_view
from validators.rope import carried as carried_rope

__all__ = [
    "FILE",
    "RopeView",
    "carried_config",
    "carried_text",
    "check_config",
    "compare_with_manifest",
    "dtype_of",
    "layout_candidates",
    "load",
    "rope_view",
]

FILE = "config.json"
_MAX_BYTES = 10_000_000
_MAX_SHOWN = 120
_DTYPES = ("float64", "float32", "float16", "bfloat16")
_DTYPE_KEYS = ("torch_dtype", "dtype")
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_SIZES_WITH_DEFAULT = ("num_key_value_heads", "head_dim", "max_position_embeddings")
# Far above any model, and far below what would exhaust memory before the tensors contradict it.
_MAX_LAYERS = 10_000
_MAX_SIZE = 1_000_000_000
_FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias")
# The number of experts goes by the first of these names that is there.
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_EXPERT_SIZES = ("moe_intermediate_size", "shared_expert_intermediate_size")
# Fields that choose among computations which no tensor shows: known is what the published models of a family have.
_CHOICES = ("hidden_act", "hidden_activation", "scoring_func", "topk_method")
# What transformers computes where a model of Gemma's first series says "gelu", and what its newer versions write.
_GELU = "gelu_pytorch_tanh"
_KINDS = "layer_types"
# Kinds of attention that a mapping need not tell apart, as they differ in no tensor.
_FULL_ATTENTION, _SLIDING_ATTENTION = "full_attention", "sliding_attention"
_TEXT = "text_config"


def load(path: Path) -> dict[str, Any]:
    """Reads a config.json.

    Args:
        path: the file, or the directory that holds it.

    Raises:
        RecastError: CONFIG_MISSING, or CONFIG_INVALID if it is too large, no JSON object, or not what JSON defines.
    """
    file = path / FILE if path.is_dir() else path
    config = _parse(_read(file), file)
    if not isinstance(config, dict):
        raise _unreadable(file, "it is no JSON object")
    return config


def check_config(config: Mapping[str, Any]) -> list[Diagnostic]:
    """All that is wrong with a config, as far as a config alone can tell.

    Fields that are missing altogether are left to the family's mapping, which knows what it needs.

    Returns:
        UNKNOWN_ARCHITECTURE alone, as nothing else can then be judged; or CONFIG_FIELD_INVALID,
        CONFIG_FIELD_MISSING and UNKNOWN_ROPE_TYPE.
    """
    family = catalog.family_of(config)
    if family is None:
        return [_unknown_architecture(config)]
    text = _text_view(config)
    found = _check_architectures(config, family)
    found += _check_fields(text)
    found += _check_heads(text)
    found += _check_dtype(config)
    found += _check_refused(text, family)
    found += _check_choices(text, family)
    found += check_rope(text, _known_rope_types(family), _has_rope_by_kind(family))
    return found


def dtype_of(config: Mapping[str, Any]) -> str:
    """The dtype that a config names for its weights; float32 if it names none, as transformers has it."""
    return _named_dtype(config) or "float32"


def layout_candidates(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Layout names whose published models share family and kind of rotary embedding with a config.

    Returns:
        Those that share theta and parameters too come first, then by name.
    """
    family = catalog.family_of(config)
    view = rope_view(_text_view(config))
    closeness: dict[str, bool] = {}
    for manifest in catalog.manifests():
        published = rope_view(_text_view(manifest.config))
        if manifest.family == family and published.type == view.type:
            closeness[manifest.layout] = closeness.get(manifest.layout, False) or published == view
    return tuple(sorted(closeness, key=lambda name: (not closeness[name], name)))


def compare_with_manifest(config: Mapping[str, Any], manifest: Manifest) -> list[Diagnostic]:
    """Each field in which a config differs from the published one of a name, as MODEL_NAME_MISMATCH.

    Fields that one of them leaves out are left to the family's mapping.
    """
    family = catalog.family_of(config)
    if family != manifest.family:
        reason = f"config.json belongs to {family or 'no family that is known'}, {manifest.name} to {manifest.family}."
        return [Diagnostic("MODEL_NAME_MISMATCH", reason, subject="model_type")]
    text, theirs_text = _text_view(config), _text_view(manifest.config)
    own, published = _compared(text), _compared(theirs_text)
    if "tie_word_embeddings" not in manifest.config:
        del published["tie_word_embeddings"]  # its default is the family's, and the tensors show it
    if theirs_text is not manifest.config and not any(key in theirs_text for key in ("rope_theta", "rope_parameters")):
        del published["rope_theta"]  # as above, but no tensor shows it
    fields = manifest.checked_fields or tuple(published)
    found = []
    for field in fields:
        mine = own.get(field, text.get(field))
        theirs = published.get(field, theirs_text.get(field))
        if mine is not None and theirs is not None and mine != theirs:
            reason = f"{field} is {_shown(mine)} in config.json and {_shown(theirs)} in {manifest.name}."
            found.append(Diagnostic("MODEL_NAME_MISMATCH", reason, subject=field))
    return found


def carried_config(config: Mapping[str, Any], *, dtype: str, quantized: bool = False) -> dict[str, Any]:
    """The config to write beside weights of a dtype, which are plain unless they are said to be `quantized` as before.

    A config that transformers 4 and 5 already read alike, and whose dtype is right, stays as it is. Any other gets the
    keys of both versions, each beside the one that it had. A dtype is not added where none is named: readers then
    look at the weights.
    """
    if not quantized:
        config = quantization.without(config)
    return _carried(config, dtype, catalog.family_of(config) or "")


def _carried(config: Mapping[str, Any], dtype: str, family: str) -> dict[str, Any]:
    named = _named_dtype(config)
    nested = config.get(_TEXT)
    text = _carried(nested, dtype, family) if isinstance(nested, Mapping) else None
    experts = _unread_experts(config)
    rope = any(key in config for key in ROPE_KEYS) and not _has_newer_rope(family)
    unread = (rope and _read_differently(config)) or (named is not None and config.get("torch_dtype") is None)
    if not unread and named in (None, dtype) and not experts and text == nested:
        return dict(config)
    carried = dict(config)
    if text is not None:
        carried[_TEXT] = text
    if named is not None:
        carried = _with_keys(carried, dict.fromkeys(_DTYPE_KEYS, dtype))
    if rope:
        carried = _with_keys(carried, carried_rope(config, _has_rope_by_kind(family)))
    return _with_keys(carried, experts)


def carried_text(
    folder: Path | None,
    config: Mapping[str, Any],
    *,
    dtype: str,
    quantized: bool = False,
    quantization_config: Mapping[str, Any] | None = None,
) -> str:
    """The text of the config.json to write.

    Args:
        folder: where the config came from; its file is taken byte for byte if nothing has to change.
        config: its content.
        dtype: of the weights beside it.
        quantized: whether they are quantised, as the config announces it.
        quantization_config: what to announce instead, if anything.
    """
    carried = carried_config(config, dtype=dtype, quantized=quantized)
    if quantization_config is not None:
        carried = {**carried, quantization.KEYS[0]: quantization_config}
    file = folder / FILE if folder is not None else None
    if carried == config and file is not None and file.is_file():
        content = _read(file)
        if _parse(content, file) == config:
            return content.decode("utf-8")
    return json.dumps(carried, indent=2) + "\n"


def _read(file: Path) -> bytes:
    try:
        return plain_files.read(file, _MAX_BYTES)
    except UnreadableError as error:
        if error.missing:
            raise RecastError.of("CONFIG_MISSING", f"There is no {file.name}: {error}.", subject=str(file)) from None
        raise _unreadable(file, str(error)) from None


def _parse(content: bytes, file: Path) -> Any:
    try:
        return strict_json.loads(content)
    except ValueError as error:
        raise _unreadable(file, str(error)) from None


def _unreadable(file: Path, reason: str) -> RecastError:
    return RecastError.of("CONFIG_INVALID", f"{file.name} cannot be used: {reason}.", subject=str(file))


def _unknown_architecture(config: Mapping[str, Any]) -> Diagnostic:
    model_type, architectures = config.get("model_type"), config.get("architectures")
    if model_type is None and not architectures:
        reason = "config.json has neither model_type nor architectures."
        return Diagnostic("UNKNOWN_ARCHITECTURE", reason, subject="model_type")
    if model_type is not None:
        field, value, known = "model_type", model_type, list(catalog.known_model_types())
    else:
        field, value, known = "architectures", architectures, list(catalog.known_architectures())
    return Diagnostic("UNKNOWN_ARCHITECTURE", _unknown(field, value, known), subject=field)


def _unknown(field: str, value: Any, known: list[str]) -> str:
    first = value[0] if isinstance(value, list) and value else value
    close = difflib.get_close_matches(str(first)[:_MAX_SHOWN], known, n=1, cutoff=0.5)
    hint = f" The nearest known one is {close[0]}." if close else ""
    return f"{field} is {_shown(value)}.{hint} Known are: {', '.join(sorted(known))}."


def _check_architectures(config: Mapping[str, Any], family: str) -> list[Diagnostic]:
    given = config.get("architectures")
    known = list(catalog.architectures_of(family))
    if given is None or not known:
        return []
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        return [_invalid("architectures", given, "a list of texts")]
    if not given or {name.lower() for name in given} & {name.lower() for name in known}:
        return []
    # AutoModel saves a model without its head under this name.
    whole = [name for name in known if re.sub("For[A-Za-z]+$", "Model", name) in given]
    cure = f"Put {whole[0]} in its place if the head is tied to the embedding; else a head is missing." if whole else ""
    reason = _unknown("architectures", given, known)
    return [Diagnostic("UNKNOWN_ARCHITECTURE", reason, suggestion=cure, subject="architectures")]


def _check_fields(config: Mapping[str, Any]) -> list[Diagnostic]:
    found = []
    for field in (*_SIZES, *_SIZES_WITH_DEFAULT):
        value = config.get(field)
        absent = field not in config or (value is None and field in _SIZES_WITH_DEFAULT)
        if not absent and _size(config, field) is None:
            found.append(_invalid(field, value, "a positive integer of a possible size"))
    for field in _FLAGS:
        value = config.get(field)
        if value is not None and not isinstance(value, bool):
            found.append(_invalid(field, value, "true or false"))
    epsilon = config.get("rms_norm_eps")
    if epsilon is not None and (isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or epsilon < 0):
        found.append(_invalid("rms_norm_eps", epsilon, "a number of at least 0"))
    return found


def _check_heads(config: Mapping[str, Any]) -> list[Diagnostic]:
    """Divisions that the mappings floor must leave no remainder."""
    divisions = [("num_attention_heads", "num_key_value_heads")]
    if config.get("head_dim") is None:
        divisions.append(("hidden_size", "num_attention_heads"))
    found = []
    for field, divisor in divisions:
        divided, by = _size(config, field), _size(config, divisor)
        if divided is not None and by is not None and divided % by:
            reason = f"{field} is {divided}, no multiple of {divisor}, which is {by}."
            found.append(Diagnostic("CONFIG_FIELD_INVALID", reason, subject=field))
    return found


def _check_dtype(config: Mapping[str, Any]) -> list[Diagnostic]:
    named = {field: config[field] for field in _DTYPE_KEYS if config.get(field) is not None}
    found = [
        _invalid(field, value, f"one of {', '.join(_DTYPES)}")
        for field, value in named.items()
        if not isinstance(value, str) or _plain(value) not in _DTYPES
    ]
    if not found and len({_plain(value) for value in named.values()}) > 1:
        listed = ", ".join(f"{field} is {value}" for field, value in named.items())
        reason = f"The spellings contradict each other: {listed}."
        found.append(Diagnostic("CONFIG_FIELD_INVALID", reason, subject="torch_dtype"))
    return found


def _check_refused(config: Mapping[str, Any], family: str) -> list[Diagnostic]:
    """What no target of these families can hold, and codes that are not decoded."""
    found = quantization.check(config)
    if config.get("mlp_bias") is True:
        reason = "mlp_bias is true; no format that Recast writes has a place for biases in the MLP."
        found.append(Diagnostic("CONFIG_FIELD_INVALID", reason, subject="mlp_bias"))
    rotated = _rotated_part(config)
    if rotated not in (None, 1, *_known_rotated_parts(family)):
        reason = f"partial_rotary_factor is {_shown(rotated)}; only embeddings that rotate whole heads are converted."
        found.append(Diagnostic("CONFIG_FIELD_INVALID", reason, subject="partial_rotary_factor"))
    return found


def _check_choices(config: Mapping[str, Any], family: str) -> list[Diagnostic]:
    """Computations that are chosen by a field, of which only the published ones are known."""
    found = []
    for field in _CHOICES:
        views = (_text_view(m.config) for m in catalog.manifests() if m.family == family)
        known = {str(view[field]) for view in views if view.get(field)}
        known |= {_GELU} if "gelu" in known else set()
        value = config.get(field)
        if value is not None and known and value not in known:
            found.append(_unknown_choice(field, value, known))
    kinds = config.get(_KINDS)
    if kinds is not None and (not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds)):
        found.append(_invalid(_KINDS, kinds, "a list of texts"))
    else:
        known = _known_kinds(family)
        found += [_unknown_choice(_KINDS, kind, known) for kind in sorted({*(kinds or ())} - known)]
    return found


def _unknown_choice(field: str, value: Any, known: Iterable[str]) -> Diagnostic:
    shown = f"{field} has {_shown(value)}" if field == _KINDS else f"{field} is {_shown(value)}"
    reason = f"{shown}; known for this family are: {', '.join(sorted(known))}."
    suggestion = f"Nothing but the values that it knows is converted, as the weights do not show {field}."
    return Diagnostic("CONFIG_FIELD_INVALID", reason, suggestion=suggestion, subject=field)


def _known_kinds(family: str) -> set[str]:
    """The kinds of layers that a mapping tells apart; where it tells none apart, what moves no element."""
    named = catalog.texts_in_mapping(family, _KINDS)
    if named:
        return {_FULL_ATTENTION, *named}
    slides = any(m.config.get("sliding_window") for m in catalog.manifests() if m.family == family)
    return {_FULL_ATTENTION, _SLIDING_ATTENTION} if slides else {_FULL_ATTENTION}


def _text_view(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config with the fields of its language part, if it keeps them apart, among its own."""
    text = config.get(_TEXT)
    return {**config, **text} if isinstance(text, Mapping) else config


def _rotated_part(config: Mapping[str, Any]) -> Any:
    return rope_view(config).parameters.get(ROTATED)


def _known_rotated_parts(family: str) -> list[Any]:
    """Published values: a part of a head that is rotated moves no element, but only what is known is let through."""
    return [_rotated_part(_text_view(m.config)) for m in catalog.manifests() if m.family == family]


def _has_rope_by_kind(family: str) -> bool:
    """Whether kinds of layers have each their own rotary embedding, as a published config or the mapping shows it."""
    published = any(SLIDING_THETA in _text_view(m.config) for m in catalog.manifests() if m.family == family)
    return published or (bool(family) and _SLIDING_ATTENTION in catalog.texts_in_mapping(family, "rope_parameters"))


def _has_newer_rope(family: str) -> bool:
    """Whether published configs say the rotary embedding as transformers 5 alone does: 4 never knew the family."""
    published = [_text_view(m.config) for m in catalog.manifests() if m.family == family]
    return bool(published) and not any(key in text for text in published for key in ("rope_theta", "rope_scaling"))


def _known_rope_types(family: str) -> set[str]:
    return {each for m in catalog.manifests() if m.family == family for each in rope_types(_text_view(m.config))}


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint of a published name must share with it, with the defaults that transformers has."""
    heads, hidden = _size(config, "num_attention_heads"), _size(config, "hidden_size")
    derived = hidden // heads if heads and hidden else None
    view = rope_view(config)
    values = {field: config.get(field) for field in (*_SIZES, *_EXPERT_SIZES)}
    return values | {
        "num_experts": next((config[field] for field in _EXPERTS if config.get(field) is not None), None),
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or derived,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
        "attention_bias": bool(config.get("attention_bias")),
        "rope_theta": view.theta,
        "rope_type": view.type,
        "rope_parameters": dict(view.parameters),
    }


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."


def _named_dtype(config: Mapping[str, Any]) -> str | None:
    # transformers 5 takes `dtype` where both are given.
    value = config.get("dtype") or config.get("torch_dtype")
    return _plain(value) if isinstance(value, str) else None


def _plain(dtype: str) -> str:
    return dtype.removeprefix("torch.")


def _read_differently(config: Mapping[str, Any]) -> bool:
    return transformers4_view(config) != rope_view(config)


def _unread_experts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Both spellings of the number of experts, where there is but the one that only transformers 5 reads."""
    model_type, (ours, newer, *_) = config.get("model_type"), _EXPERTS
    if config.get(newer) is None or config.get(ours) is not None:
        return {}
    published = any(m.config.get("model_type") == model_type and ours in m.config for m in catalog.manifests())
    return {newer: config[newer], ours: config[newer]} if published else {}


def _with_keys(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Sets keys that belong together: in place where they are, the missing ones after the first of them, or last."""
    result: dict[str, Any] = {}
    missing = {key: value for key, value in values.items() if key not in config}
    for key, value in config.items():
        # An equal value keeps its own form: 10000 and 10000.0, the order of an object's keys.
        result[key] = value if values.get(key, value) == value else values[key]
        if key in values:
            result |= missing
            missing = {}
    return result | missing


def _size(config: Mapping[str, Any], field: str) -> int | None:
    value = config.get(field)
    limit = _MAX_LAYERS if field == "num_hidden_layers" else _MAX_SIZE
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= limit else None


def _invalid(field: str, value: Any, wanted: str) -> Diagnostic:
    return Diagnostic("CONFIG_FIELD_INVALID", f"{field} is {_shown(value)}, not {wanted}.", subject=field)
