"""Binds a family and its two layouts to a config, and holds the source's headers against them."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from converters.engine import values
from converters.formats.base import TensorInfo
from mappings.language import composition, detection, loader
from mappings.language.composition import Composition
from mappings.language.errors import MappingErrors, MappingIssue
from mappings.language.family import Family, bind_family
from mappings.language.layout import Layout, bind_layout
from reporting.diagnostics import Diagnostic, RecastError, raise_all


@dataclasses.dataclass(frozen=True)
class Sides:
    """A family bound to one model, in both formats.

    Attributes:
        source: layout of the source, `target` of the output.
        composition: the moves between them.
        unmapped: arrays of the source that are no weights, with the reason.
    """

    family: Family
    source: Layout
    target: Layout
    composition: Composition
    unmapped: Mapping[str, str]


def family_for(name: str, config: Mapping[str, Any]) -> Family:
    """Binds a family to a config.

    Raises:
        RecastError: with every field that is missing or has an impossible value.
    """
    try:
        return bind_family(loader.load_family(name), config)
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def layout_for(family: Family, name: str, format: str, options: Mapping[str, Any]) -> Layout:
    """Binds a layout of a family.

    Args:
        family: the bound family.
        name: its folder.
        format: the layout's format.
        options: given values; those that the layout does not have are left out.

    Raises:
        RecastError: with everything that does not fit.
    """
    source = loader.load_layout(name, format)
    known = {option.name for option in source.node.option}
    try:
        return bind_layout(family, source, {key: value for key, value in options.items() if key in known})
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def detected_layout(
    family: Family, name: str, format: str, given: Mapping[str, Any], header: Mapping[str, TensorInfo]
) -> tuple[Layout, Mapping[str, tuple[object, ...]]]:
    """The layout of a source whose options are partly known from its names and shapes.

    Returns:
        The layout, and the options that the header leaves open though they change values, with their candidates.
    """
    source = loader.load_layout(name, format)
    known = {option.name for option in source.node.option}
    fixed = {key: value for key, value in given.items() if key in known}
    root = source.node.root.split(".")[0]
    shapes = {key: info.shape for key, info in header.items() if not root or key.split(".")[0] == root}
    try:
        found = detection.detect(family, source, shapes, fixed)
        return bind_layout(family, source, {**found.options, **fixed}), found.undecided
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def compose(source: Layout, target: Layout, header: Mapping[str, TensorInfo]) -> Composition:
    """The moves from one layout to the other for the arrays that are there."""
    try:
        return composition.compose(source, target, present=header.keys())
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def check_header(layout: Layout, header: Mapping[str, TensorInfo]) -> Mapping[str, str]:
    """Holds a source's arrays against its layout.

    Returns:
        The arrays that are no weights, with the reason.

    Raises:
        RecastError: with every unknown, missing, wrongly shaped or wrongly typed array.
    """
    weights = {name: array for name, array in layout.arrays.items() if not array.mirror}
    unmapped: dict[str, str] = {}
    unknown: list[str] = []
    for name in header:
        if name in weights:
            continue
        reason = _reason_to_leave(layout, name)
        if reason:
            unmapped[name] = reason
        else:
            unknown.append(name)
    missing = [name for name, array in weights.items() if name not in header and not array.optional]
    misshapen = [name for name in weights if name in header and header[name].shape != weights[name].shape]
    found = _contradictions(weights, header, unknown, missing, misshapen)
    found += [_misshapen(name, header[name], weights[name].shape) for name in misshapen]
    found += [Diagnostic("MISSING_TENSOR", f"{name} is missing.", subject=name) for name in missing]
    found += [_unknown(name, weights) for name in unknown]
    found += [_mistyped(header[name]) for name in weights if name in header and _is_mistyped(header[name])]
    raise_all(found)
    return unmapped


def diagnostic_of(issue: MappingIssue) -> Diagnostic:
    """What a fault in binding means to the user."""
    reason = f"{issue.text} ({issue.location})"
    if issue.kind == "missing_key":
        return Diagnostic("CONFIG_FIELD_MISSING", f"config.json has no field {issue.key}: {reason}", subject=issue.key)
    if issue.kind == "require":
        return Diagnostic("REQUIREMENT_NOT_MET", reason, subject="config.json")
    if issue.kind in ("size", "value"):
        return Diagnostic("CONFIG_FIELD_INVALID", reason, subject="config.json")
    if issue.kind == "option":
        return Diagnostic("INVALID_FLAG", reason)
    return Diagnostic("MAPPING_INVALID", reason)


def _reason_to_leave(layout: Layout, name: str) -> str:
    if name in layout.ignored:
        return layout.ignored[name]
    if name in layout.arrays:
        return "training state"
    root = layout.source.node.root.split(".")[0]
    if root and name.split(".")[0] != root:
        return "not one of the model's parameters"
    return ""


def _contradictions(
    weights: Mapping[str, Any],
    header: Mapping[str, TensorInfo],
    unknown: list[str],
    missing: list[str],
    misshapen: list[str],
) -> list[Diagnostic]:
    """Where all layers, or layers as a whole, differ, it is the config that does not belong to the tensors."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in weights:
        groups[_template(name)].append(name)
    bad = set(misshapen)
    wrong = [group for group in groups.values() if len(group) > 1 and bad.issuperset(group)]
    found = []
    if wrong:
        names = ", ".join(group[0] for group in wrong[:4])
        found.append(
            Diagnostic(
                "CONFIG_CONTRADICTS_TENSORS",
                f"In every layer the shapes differ from those that config.json implies, for example {names}.",
                subject="config.json",
            )
        )
    extra = [name for name in unknown if _template(name) in groups]
    lacking = [group for group in groups.values() if len(group) > 1 and set(group) & set(missing)]
    if extra or (lacking and len(lacking) > 2):
        count = "more" if extra else "fewer"
        found.append(
            Diagnostic(
                "CONFIG_CONTRADICTS_TENSORS",
                f"The files hold {count} layers than config.json says, for example {(extra or missing)[0]}.",
                subject="config.json",
            )
        )
    return found


def _template(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _misshapen(name: str, info: TensorInfo, shape: tuple[int, ...]) -> Diagnostic:
    return Diagnostic(
        "TENSOR_SHAPE", f"{name} has the shape {list(info.shape)}; the config implies {list(shape)}.", subject=name
    )


def _unknown(name: str, weights: Mapping[str, Any]) -> Diagnostic:
    import difflib

    near = difflib.get_close_matches(name, list(weights)[:4096], n=1)
    hint = f"; the nearest known name is {near[0]}" if near else ""
    return Diagnostic("UNKNOWN_TENSOR", f"{name} is not a tensor of this model{hint}.", subject=name)


def _is_mistyped(info: TensorInfo) -> bool:
    return info.dtype not in values.FLOAT_DTYPES


def _mistyped(info: TensorInfo) -> Diagnostic:
    return Diagnostic(
        "TENSOR_DTYPE", f"{info.name} is of type {info.dtype}, which is not a weight's.", subject=info.name
    )
