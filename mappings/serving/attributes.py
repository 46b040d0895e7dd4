"""What a config.json states of an attribute, in whichever of its spellings.

A rule names the places to look at in data. Where a value is more than the content of one place, it names a reading:
a function of this module. No input is trusted: what is not there, or of the wrong kind, is no value.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mappings.language import loader
from mappings.language.errors import MappingErrors
from mappings.serving import layers
from recast_proto import compatibility_pb2

NULL = "null"
"""What stands for a null where a config without the key means something else by that."""
_TYPES = ("rope_type", "type")
_KINDS = ("full_attention", "sliding_attention")
_ROTATED = "partial_rotary_factor"
# What transformers computes where a config of Gemma says "gelu".
_GELU = "gelu_pytorch_tanh"


@dataclasses.dataclass(frozen=True, slots=True)
class Lookup:
    """How paths of a config are looked up: in each of its roots, the first that has a value.

    A path that begins with a dot is looked up at the top alone.
    """

    config: Mapping[str, Any]
    roots: Sequence[str]

    def __call__(self, path: str) -> Any:
        """The value at a path; None for none."""
        found = (_at(self.config, place) for place in self._places(path))
        return next((value for value in found if value is not None), None)

    def is_null(self, path: str) -> bool:
        """Whether there is a null at the path, and nowhere a value."""
        if self(path) is not None:
            return False
        parts = (place.rpartition(".") for place in self._places(path))
        parents = ((_at(self.config, parent) if parent else self.config, key) for parent, _, key in parts)
        return any(isinstance(parent, Mapping) and key in parent for parent, key in parents)

    def _places(self, path: str) -> list[str]:
        if path.startswith("."):
            return [path[1:]]
        return [f"{root}.{path}" if root else path for root in self.roots]


class UnknownReadingError(LookupError):
    """A rule names a reading that this version does not have."""


def config_roots(family: str) -> tuple[str, ...]:
    """Where a family keeps its config: prefixes of paths, first the one that is looked at first.

    A family that this installation does not have keeps it at the top level.
    """
    return _roots(family, loader.mappings_root())


@functools.cache
def _roots(family: str, root: Path) -> tuple[str, ...]:
    try:
        return loader.load_family(family, root).node.config_root or ("",)
    except MappingErrors:
        return ("",)


def value_of(field: compatibility_pb2.ConfigField, config: Mapping[str, Any], family: str) -> Any:
    """What a config states of an attribute; None if it states nothing. See `stated`."""
    return stated(field, config, family)[0]


def stated(field: compatibility_pb2.ConfigField, config: Mapping[str, Any], family: str) -> tuple[Any, str]:
    """What a config states of an attribute, and where.

    Args:
        field: where to look.
        config: config.json as parsed; its values may be of any kind.
        family: whose places and assumptions hold.

    Returns:
        The value, None if the config states nothing; and for people where it comes from, if not from a key of the
        attribute's name.

    Raises:
        UnknownReadingError: the field names a reading that there is not.
        ValueError: an assumption of the field is no JSON.
    """
    lookup = Lookup(config, config_roots(family))
    null = ""
    for source in field.source:
        if _holds(source, config, family) and not any(lookup(path) is not None for path in source.unless):
            value = _from(source, lookup, family)
            if value is not None and null and source.WhichOneof("from") == "json":
                return NULL, "" if null == field.attribute else null
            if value is not None:
                return value, _place(source, field.attribute)
            if source.path and not source.null_is_absent and lookup.is_null(source.path):
                null = null or source.path.removeprefix(".")
    return None, ""


def _holds(source: compatibility_pb2.Source, config: Mapping[str, Any], family: str) -> bool:
    """Whether a source is one for such a config of a family."""
    named = config.get("model_type")
    return (not source.family or family in source.family) and (
        not source.model_type or (isinstance(named, str) and named in source.model_type)
    )


def _place(source: compatibility_pb2.Source, attribute: str) -> str:
    kind = source.WhichOneof("from")
    if kind == "path":
        path = source.path.removeprefix(".")
        return "" if path == attribute else path
    if kind == "quotient":
        return f"{source.quotient.of} / {source.quotient.by}"
    return "left out, which means so" if kind == "json" else ""


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _from(source: compatibility_pb2.Source, lookup: Lookup, family: str) -> Any:
    kind = source.WhichOneof("from")
    if kind == "path":
        return lookup(source.path)
    if kind == "quotient":
        return _quotient(lookup(source.quotient.of), lookup(source.quotient.by))
    if kind == "json":
        return json.loads(source.json)
    reading = READINGS.get(source.reading)
    if reading is None:
        raise UnknownReadingError(f"there is no reading '{source.reading}'; known are: {', '.join(sorted(READINGS))}")
    return reading(lookup, family)


def _quotient(of: Any, by: Any) -> int | None:
    whole = all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in (of, by))
    return of // by if whole and of % by == 0 else None


def _activation(lookup: Lookup, family: str) -> Any:
    """The activation of the MLP. Gemma's configs name it twice, and mean tanh's approximation by "gelu"."""
    value = lookup("hidden_activation") or lookup("hidden_act")
    return _GELU if family.startswith("gemma") and value == "gelu" else value


def _attn_temperature_tuning(lookup: Lookup, _: str) -> Any:
    """A number of the first configs of Llama 4 switches it on, unless it is 0."""
    value = lookup("attn_temperature_tuning")
    return bool(value) if isinstance(value, (bool, int)) else value


def _dtype(lookup: Lookup, _: str) -> Any:
    """The dtype of the weights; the newer key goes before the older one, as in transformers 5."""
    value = lookup("dtype") or lookup("torch_dtype")
    return value.removeprefix("torch.") if isinstance(value, str) else value


def _rope_parameters(lookup: Lookup, _: str) -> Any:
    """Parameters of the rotary embedding's scaling, without type and theta; of full attention, where kinds differ.

    Both spellings are one: `rope_scaling` of transformers 4, `rope_parameters` of transformers 5.
    """
    found: dict[str, Any] = {}
    if lookup(_ROTATED) is not None:
        found[_ROTATED] = lookup(_ROTATED)
    for section in (lookup("rope_scaling"), lookup("rope_parameters")):
        if section is not None and not isinstance(section, Mapping):
            return section
        for key, value in _of_full_attention(section or {}).items():
            if key not in (*_TYPES, "rope_theta") and value is not None:
                found[key] = value
    if found.get(_ROTATED) == 1:
        del found[_ROTATED]
    return found or None


def _of_full_attention(section: Mapping[str, Any]) -> Mapping[str, Any]:
    kinds = {key: value for key, value in section.items() if key in _KINDS and isinstance(value, Mapping)}
    if not kinds:
        return section
    return kinds.get(_KINDS[0], {})


READINGS: Mapping[str, Callable[[Lookup, str], Any]] = {
    "activation": _activation,
    "layer_types": layers.layer_types,
    "moe_layers": layers.moe_layers,
    "no_rope_layers": layers.no_rope_layers,
    "sliding_window": layers.sliding_window,
    "attn_temperature_tuning": _attn_temperature_tuning,
    "dtype": _dtype,
    "rope_parameters": _rope_parameters,
}
"""Readings by the names that rules use."""
