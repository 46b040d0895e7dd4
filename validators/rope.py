"""The rotary embedding in a config.json, in the spellings of transformers 4 and 5.

Version 4 says `rope_theta` and `rope_scaling {rope_type or type, ...}`, version 5 `rope_parameters {rope_theta, ...}`.
Version 5 reads the older spelling too; version 4 takes the newer one for unknown keys and assumes its defaults.

A model whose kinds of layers have each their own embedding (Gemma 3) keeps, in version 5, such an object for each kind
in `rope_parameters`; in version 4 the keys above are those of full attention, and `rope_local_base_freq` is the theta
of sliding windows.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

from reporting.diagnostics import Diagnostic

DEFAULT_TYPE = "default"
# What both versions of transformers assume for the families that do not say otherwise.
DEFAULT_THETA = 10000.0
KEYS = ("rope_theta", "rope_scaling", "rope_parameters")
SLIDING_THETA = "rope_local_base_freq"
# The part of a head that is rotated: a key of its own in version 4, one of the parameters in version 5.
ROTATED = "partial_rotary_factor"
_FULL, _SLIDING = "full_attention", "sliding_attention"
_SECTIONS = ("rope_scaling", "rope_parameters")
_TYPE_KEYS = ("rope_type", "type")
# Without these transformers 4 does not load a model.
_NEEDED = {
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
}


@dataclasses.dataclass(frozen=True, slots=True)
class RopeView:
    """What a config says about the rotary embedding, whatever its spelling.

    Attributes:
        theta: the base of the frequencies.
        type: the kind of scaling; `default` for none.
        parameters: of the scaling, by the names that both spellings share.
    """

    theta: float
    type: str
    parameters: Mapping[str, Any]


def rope_view(config: Mapping[str, Any]) -> RopeView:
    """Reads both spellings of a config that `check_rope` finds no fault with; of several kinds, full attention's."""
    kinds = _kinds(config)
    if kinds:
        config = {**config, "rope_parameters": kinds.get(_FULL) or next(iter(kinds.values()))}
    parameters = _part_of_heads(config)
    for section in _SECTIONS:
        parameters |= _parameters(_section(config, section))
    if parameters.get(ROTATED) == 1:
        del parameters[ROTATED]
    types = list(_types(config).values())
    thetas = [value for value in _thetas(config).values() if _is_number(value)]
    return RopeView(float(thetas[0]) if thetas else DEFAULT_THETA, types[0] if types else DEFAULT_TYPE, parameters)


def rope_types(config: Mapping[str, Any]) -> set[str]:
    """The types of a config that `check_rope` finds no fault with; where each kind of layer has its own, of all."""
    kinds = _kinds(config)
    return {rope_view({"rope_parameters": section}).type for section in kinds.values()} or {rope_view(config).type}


def transformers4_view(config: Mapping[str, Any]) -> RopeView:
    """What transformers 4 reads, which knows nothing of `rope_parameters`."""
    scaling = _section(config, "rope_scaling")
    theta = config.get("rope_theta")
    return RopeView(
        float(theta) if _is_number(theta) else DEFAULT_THETA,
        next(iter(_types({"rope_scaling": scaling}).values()), DEFAULT_TYPE),
        _part_of_heads(config) | _parameters(scaling),
    )


def spellings(view: RopeView) -> dict[str, Any]:
    """The keys of both versions for one meaning."""
    own = {key: value for key, value in view.parameters.items() if key == ROTATED}
    scaled = {key: value for key, value in view.parameters.items() if key != ROTATED}
    return {
        "rope_theta": view.theta,
        **own,
        "rope_scaling": None if view.type == DEFAULT_TYPE else {**scaled, "rope_type": view.type},
        "rope_parameters": {**view.parameters, "rope_theta": view.theta, "rope_type": view.type},
    }


def carried(config: Mapping[str, Any], by_kind: bool = False) -> dict[str, Any]:
    """The keys of both versions for what a config says. An object for each kind of layer stays as it is.

    Args:
        config: a config.json that `check_rope` finds no fault with.
        by_kind: whether version 5 expects an object for each kind, and makes one of version 4's keys where it has none.
    """
    keys = spellings(rope_view(config))
    kinds = _kinds(config)
    if kinds or by_kind:
        keys = {key: value for key, value in keys.items() if key in ("rope_theta", "rope_scaling")}
    if kinds:
        sliding = kinds.get(_SLIDING, {}).get("rope_theta", config.get(SLIDING_THETA))
        keys |= {} if sliding is None else {SLIDING_THETA: sliding}
    return keys


def check_rope(config: Mapping[str, Any], known: Collection[str], by_kind: bool = False) -> list[Diagnostic]:
    """All that is wrong with the rotary embedding of a config.

    Args:
        config: a config.json.
        known: types of scaling that are implemented; empty if nothing is known of that.
        by_kind: whether kinds of layers may have each their own.

    Returns:
        CONFIG_FIELD_INVALID for wrong kinds of values and for spellings that contradict each other,
        CONFIG_FIELD_MISSING for parameters that the type needs, UNKNOWN_ROPE_TYPE.
    """
    kinds = _kinds(config)
    if by_kind and kinds:
        return _check_each_kind(config, kinds, known)
    found = _check_kinds(config)
    if found:
        return found
    found += _check_type(config, known)
    found += _check_contradictions(config)
    return found


def _check_each_kind(
    config: Mapping[str, Any], kinds: Mapping[str, Mapping[str, Any]], known: Collection[str]
) -> list[Diagnostic]:
    """Version 4's own keys are about full attention, but for its theta of sliding windows."""
    found = []
    for kind, section in kinds.items():
        spelled = {key: config[key] for key in ("rope_theta", "rope_scaling") if kind == _FULL and key in config}
        for fault in check_rope({**spelled, "rope_parameters": section}, known):
            place = f"rope_parameters.{kind}"
            reason = fault.reason.replace("rope_parameters", place)
            subject = fault.subject.replace("rope_parameters", place)
            found.append(dataclasses.replace(fault, reason=reason, subject=subject))
    thetas = {
        f"rope_parameters.{_SLIDING}.rope_theta": kinds.get(_SLIDING, {}).get("rope_theta"),
        SLIDING_THETA: config.get(SLIDING_THETA),
    }
    return found + _disagreeing({field: value for field, value in thetas.items() if value is not None})


def _kinds(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The embedding of each kind of layer, where `rope_parameters` has one for each; else nothing."""
    section = _section(config, "rope_parameters")
    kinds = {kind: value for kind, value in section.items() if isinstance(value, Mapping)}
    known = kinds and len(kinds) == len(section) and kinds.keys() <= {_FULL, _SLIDING}
    return kinds if known else {}


def _check_kinds(config: Mapping[str, Any]) -> list[Diagnostic]:
    found = []
    for section in _SECTIONS:
        value = config.get(section)
        if value is not None and not isinstance(value, Mapping):
            found.append(_invalid(section, f"{section} is {json.dumps(value)[:120]}, not an object."))
        for key, entry in _section(config, section).items():
            found += _check_entry(f"{section}.{key}", key, entry)
    if config.get("rope_theta") is not None:
        found += _check_entry("rope_theta", "rope_theta", config["rope_theta"])
    return found


def _check_entry(field: str, key: str, value: Any) -> list[Diagnostic]:
    if isinstance(value, Mapping):
        return [_invalid(field, f"{field} is an object: a rotary embedding per kind of layer is not supported here.")]
    if value is None:
        return []
    if key in _TYPE_KEYS:
        return [] if isinstance(value, str) else [_invalid(field, f"{field} is {json.dumps(value)[:120]}, not a text.")]
    if key == "rope_theta" or key in _NEEDED["llama3"]:
        good = _is_number(value) and value > 0
        return [] if good else [_invalid(field, f"{field} is {json.dumps(value)[:120]}, not a positive number.")]
    return []


def _check_type(config: Mapping[str, Any], known: Collection[str]) -> list[Diagnostic]:
    types = _types(config)
    found = []
    for field, value in types.items():
        if known and value not in known:
            listed = ", ".join(sorted(known))
            reason = f"{field} is '{value}'; the rotary embeddings known for this family are: {listed}."
            found.append(Diagnostic("UNKNOWN_ROPE_TYPE", reason, subject=field))
    for section in _SECTIONS:
        given = _parameters(_section(config, section))
        named = next((value for field, value in types.items() if field.startswith(section)), None)
        if given and named is None:
            reason = f"{section} has {', '.join(given)}, but no rope_type."
            found.append(Diagnostic("CONFIG_FIELD_MISSING", reason, subject=f"{section}.rope_type"))
        missing = [] if named is None else [key for key in _NEEDED.get(named, ()) if key not in given]
        for key in missing:
            reason = f"{section} is of type '{named}' and lacks {key}."
            found.append(Diagnostic("CONFIG_FIELD_MISSING", reason, subject=f"{section}.{key}"))
    return found


def _check_contradictions(config: Mapping[str, Any]) -> list[Diagnostic]:
    found = _disagreeing(_thetas(config)) + _disagreeing(_types(config))
    scaling, parameters = (_parameters(_section(config, section)) for section in _SECTIONS)
    rotated = {ROTATED: config.get(ROTATED), f"rope_parameters.{ROTATED}": parameters.pop(ROTATED, None)}
    found += _disagreeing({field: value for field, value in rotated.items() if value is not None})
    if scaling and parameters:
        for key in dict.fromkeys([*scaling, *parameters]):
            found += _disagreeing(
                {f"rope_scaling.{key}": scaling.get(key), f"rope_parameters.{key}": parameters.get(key)}
            )
    return found


def _disagreeing(values: Mapping[str, Any]) -> list[Diagnostic]:
    first = next(iter(values.values()), None)
    if all(value == first for value in values.values()):
        return []
    listed = ", ".join(f"{field} is {json.dumps(value)[:120]}" for field, value in values.items())
    return [_invalid(next(iter(values)), f"The spellings contradict each other: {listed}.")]


def _thetas(config: Mapping[str, Any]) -> dict[str, Any]:
    places = {
        "rope_parameters.rope_theta": _section(config, "rope_parameters").get("rope_theta"),
        "rope_scaling.rope_theta": _section(config, "rope_scaling").get("rope_theta"),
        "rope_theta": config.get("rope_theta"),
    }
    return {field: value for field, value in places.items() if value is not None}


def _types(config: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{section}.{key}": _section(config, section)[key]
        for section in _SECTIONS
        for key in _TYPE_KEYS
        if isinstance(_section(config, section).get(key), str)
    }


def _parameters(section: Mapping[str, Any]) -> dict[str, Any]:
    left_out = (*_TYPE_KEYS, "rope_theta")
    return {key: value for key, value in section.items() if key not in left_out and value is not None}


def _part_of_heads(config: Mapping[str, Any]) -> dict[str, Any]:
    part = config.get(ROTATED)
    return {} if part in (None, 1) else {ROTATED: part}


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> TypeGuard[float]:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max


def _invalid(field: str, reason: str) -> Diagnostic:
    return Diagnostic("CONFIG_FIELD_INVALID", reason, subject=field)
