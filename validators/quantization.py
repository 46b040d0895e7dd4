"""quantization_config of a config.json: which ways of storing weights it announces, and whether Recast decodes them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reporting.diagnostics import Diagnostic

KEYS = ("quantization_config", "compression_config")
"""The fields of config.json that announce stored codes; the second is what compressed-tensors wrote first."""

FLOAT8, INT8, PACKED, MXFP4 = "float8_e4m3fn", "int8", "packed", "mxfp4"

_METHODS = ("compressed-tensors", "fp8", "mxfp4")
_SUGGESTION = "Convert the checkpoint that it was quantised from, or one that is quantised in a way that is known."
_SHOWN = 80
_ANY: tuple[object, ...] = ()
_MXFP4_GROUP = 32

# Values that are understood, field by field; `_ANY` where the value has nothing to do with stored weights.
_FP8_FIELDS: Mapping[str, tuple[object, ...]] = {
    "quant_method": ("fp8",),
    "fmt": ("e4m3", "float8_e4m3fn", None),
    "weight_block_size": _ANY,
    "activation_scheme": ("dynamic", "static", None),
    "scale_fmt": ("float", "ue8m0", None),
    "expert_dtype": ("fp8", None),
    "modules_to_not_convert": _ANY,
    "modules_to_convert": _ANY,
    "ignored_layers": _ANY,
    "dequantize": (False, None),
    "kv_cache_scheme": _ANY,
}
_MXFP4_FIELDS: Mapping[str, tuple[object, ...]] = {
    "quant_method": ("mxfp4",),
    "modules_to_not_convert": _ANY,
    "dequantize": (False, None),
}
_COMPRESSED_FIELDS: Mapping[str, tuple[object, ...]] = {
    "quant_method": ("compressed-tensors",),
    "config_groups": _ANY,
    "format": ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "mixed-precision", None),
    # Early checkpoints are compressed and say `frozen`; where one is not, its headers show it.
    "quantization_status": ("compressed", "frozen", None),
    "ignore": _ANY,
    "kv_cache_scheme": _ANY,
    "global_compression_ratio": _ANY,
    "sparsity_config": _ANY,
    "transform_config": ({}, None),
    "version": _ANY,
    "run_compressed": _ANY,
    "dequantize": (False, None),
}
_GROUP_FIELDS: Mapping[str, tuple[object, ...]] = {
    "targets": _ANY,
    "weights": _ANY,
    "input_activations": _ANY,
    "output_activations": _ANY,
    "format": ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "dense", None),
}
_WEIGHTS_FIELDS: Mapping[str, tuple[object, ...]] = {
    "num_bits": (4, 8),
    "type": ("float", "int"),
    "symmetric": (True, False),
    "strategy": ("block", "channel", "group", "tensor", None),
    "group_size": _ANY,
    "block_structure": _ANY,
    "dynamic": (False, None),
    "actorder": ("static", "weight", False, None),
    "observer": _ANY,
    "observer_kwargs": _ANY,
    "scale_dtype": _ANY,
    "zp_dtype": _ANY,
}
# The format that stores codes of a type and a number of bits, beside "naive-quantized", which stores bytes of any.
_FORMATS = {("float", 8): ("float-quantized",), ("int", 8): ("int-quantized", "pack-quantized"), ("int", 4): ()}


@dataclasses.dataclass(frozen=True)
class Weights:
    """One way in which weights are stored.

    Attributes:
        codes: FLOAT8, INT8, PACKED (several codes in a 32-bit word) or MXFP4.
        bits: of a code.
        block: rows and columns that share a scale; 0 for all of them.
        symmetric: whether zero is stored as the code 0; else there are zero points.
        whole_groups: whether the columns of a block must divide those of the matrix; else the last ones end early.
    """

    codes: str
    bits: int
    block: tuple[int, int]
    symmetric: bool = True
    whole_groups: bool = False

    def __str__(self) -> str:
        kind = {PACKED: f"int{self.bits}, packed", MXFP4: "MXFP4"}.get(self.codes, self.codes)
        rows, columns = self.block
        if self.block == (0, 0):
            return f"{kind}, one scale for a tensor"
        if columns == 0:
            return f"{kind}, a scale for {'a row' if rows == 1 else f'{rows} rows'}"
        shared = f"{columns} columns" if rows == 1 else f"{rows} x {columns}"
        return f"{kind}, a scale for {shared}"


@dataclasses.dataclass(frozen=True)
class Scheme:
    """What a quantization_config announces.

    Attributes:
        method: compressed-tensors, fp8 or mxfp4.
        weights: the ways in which weights may be stored; which one a tensor has, its header shows.
    """

    method: str
    weights: tuple[Weights, ...]


def announced(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The object that announces stored codes, None where a config has none."""
    for key in KEYS:
        if config.get(key):
            value = config[key]
            return value if isinstance(value, Mapping) else {}
    return None


def without(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of plain weights."""
    return {key: value for key, value in config.items() if key not in KEYS}


def check(config: Mapping[str, Any]) -> list[Diagnostic]:
    """Every field that asks for what is not decoded, as CONFIG_FIELD_INVALID with its value and the known ones."""
    given = announced(config)
    if given is None:
        return []
    at = next(key for key in KEYS if config.get(key))
    if not isinstance(config[at], Mapping):
        return [_invalid(at, config[at], "an object")]
    method = given.get("quant_method", "compressed-tensors" if "config_groups" in given else None)
    if method == "fp8":
        return [*_unknown(at, given, _FP8_FIELDS), *_check_modules(at, given), *_check_block(at, given)]
    if method == "mxfp4":
        return [*_unknown(at, given, _MXFP4_FIELDS), *_check_modules(at, given)]
    if method == "compressed-tensors":
        return [*_unknown(at, given, _COMPRESSED_FIELDS), *_check_modules(at, given), *_check_groups(at, given)]
    return [_not_known(f"{at}.quant_method", method, _METHODS)]


def read(config: Mapping[str, Any]) -> Scheme | None:
    """What a checked config announces; None if its weights are plain."""
    given = announced(config)
    if given is None:
        return None
    method = given.get("quant_method", "compressed-tensors")
    if method == "fp8":
        size = given.get("weight_block_size", (128, 128))
        return Scheme(method, (Weights(FLOAT8, 8, tuple(size) if size else (0, 0)),))
    if method == "mxfp4":
        return Scheme(method, (Weights(MXFP4, 4, (1, _MXFP4_GROUP)),))
    found = [_weights(group, given) for group in given["config_groups"].values() if _stores_codes(group)]
    return Scheme(method, tuple(dict.fromkeys(found)))


def _stores_codes(group: Mapping[str, Any]) -> bool:
    return bool(group.get("weights")) and group.get("format") != "dense"


def _weights(group: Mapping[str, Any], config: Mapping[str, Any]) -> Weights:
    weights = group["weights"]
    format = group.get("format") or config.get("format")
    codes = PACKED if format == "pack-quantized" else FLOAT8 if weights.get("type") == "float" else INT8
    size, structure = weights.get("group_size"), weights.get("block_structure")
    strategy = _strategy(weights)
    blocks = {"tensor": (0, 0), "channel": (1, 0), "group": (1, size), "block": tuple(structure or ())}
    symmetric = weights.get("symmetric", True)
    # compressed-tensors pads blocks that end early, but refuses such groups.
    return Weights(codes, weights.get("num_bits", 8), blocks[strategy], symmetric, whole_groups=strategy == "group")


def _strategy(weights: Mapping[str, Any]) -> str:
    """What is meant where none is named, as compressed-tensors has it."""
    size = weights.get("group_size")
    return weights.get("strategy") or ("tensor" if size is None else "channel" if size == -1 else "group")


def _check_groups(at: str, given: Mapping[str, Any]) -> Iterator[Diagnostic]:
    groups = given.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        yield _invalid(f"{at}.config_groups", groups, "an object with a group of modules at least")
        return
    sparsity = given.get("sparsity_config")
    if sparsity:
        kind = sparsity.get("format") if isinstance(sparsity, Mapping) else sparsity
        if kind not in (None, "dense"):
            yield _not_known(f"{at}.sparsity_config.format", kind, ("dense",))
    for name, group in groups.items():
        place = f"{at}.config_groups.{name}"
        if not isinstance(group, Mapping):
            yield _invalid(place, group, "an object")
            continue
        yield from _unknown(place, group, _GROUP_FIELDS)
        if _stores_codes(group):
            yield from _check_weights(f"{place}.weights", group, given)


def _check_weights(place: str, group: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[Diagnostic]:
    weights = group["weights"]
    if not isinstance(weights, Mapping):
        yield _invalid(place, weights, "an object")
        return
    wrong = list(_unknown(place, weights, _WEIGHTS_FIELDS))
    yield from wrong
    if wrong:
        return
    kind, bits = weights.get("type", "int"), weights.get("num_bits", 8)
    format = group.get("format") or config.get("format")
    if (kind, bits) not in _FORMATS:
        yield _not_known(f"{place}.num_bits", bits, (8,))
        return
    known = (*_FORMATS[kind, bits], *(("naive-quantized",) if bits == 8 else ("pack-quantized",)))
    if format not in known:
        field = f"{place.removesuffix('.weights')}.format" if group.get("format") else f"{place.split('.')[0]}.format"
        yield _not_known(field, format, known)
    symmetric = weights.get("symmetric", True)
    if not symmetric and (kind == "float" or format == "pack-quantized"):
        yield _not_known(f"{place}.symmetric", symmetric, (True,))
    strategy, size = _strategy(weights), weights.get("group_size")
    if strategy == "group" and not _is_size(size):
        yield _invalid(f"{place}.group_size", size, "a positive integer")
    if strategy == "block" and not _are_sizes(weights.get("block_structure")):
        yield _invalid(f"{place}.block_structure", weights.get("block_structure"), "two positive integers")
    if strategy == "block" and format == "pack-quantized":
        yield _not_known(f"{place}.strategy", strategy, ("channel", "group", "tensor"))


def _check_block(at: str, given: Mapping[str, Any]) -> Iterator[Diagnostic]:
    size = given.get("weight_block_size", (128, 128))
    if size is not None and not _are_sizes(size):
        yield _invalid(f"{at}.weight_block_size", size, "two positive integers")


def _check_modules(at: str, given: Mapping[str, Any]) -> Iterator[Diagnostic]:
    for field in ("modules_to_not_convert", "modules_to_convert", "ignored_layers", "ignore"):
        value = given.get(field)
        if value is not None and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            yield _invalid(f"{at}.{field}", value, "a list of texts")


def _unknown(place: str, given: Mapping[str, Any], fields: Mapping[str, tuple[object, ...]]) -> Iterator[Diagnostic]:
    """Fields that are not known, and values that are not."""
    for field, value in given.items():
        if field not in fields:
            reason = f"{place}.{field} is {_text(value)}, and what it means is not known; known are {_listed(fields)}."
            yield Diagnostic("CONFIG_FIELD_INVALID", reason, suggestion=_SUGGESTION, subject=f"{place}.{field}")
        elif fields[field] and not any(type(value) is type(known) and value == known for known in fields[field]):
            yield _not_known(f"{place}.{field}", value, fields[field])


def _not_known(field: str, value: object, known: Sequence[object]) -> Diagnostic:
    shown = ", ".join(_text(one) for one in known if one is not None)
    reason = f"{field} is {_text(value)}; weights that are stored so are not decoded. Known are: {shown}."
    return Diagnostic("CONFIG_FIELD_INVALID", reason, suggestion=_SUGGESTION, subject=field)


def _invalid(field: str, value: object, wanted: str) -> Diagnostic:
    return Diagnostic("CONFIG_FIELD_INVALID", f"{field} is {_text(value)}, not {wanted}.", subject=field)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names))


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=list)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_sizes(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_is_size(one) for one in value)
