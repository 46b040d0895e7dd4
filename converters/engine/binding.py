"""Binds a family and its two layouts to a config, and holds the source's headers against them."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from converters.engine import values
from converters.engine.carried_state import CarriedState
from converters.formats.base import TensorInfo
from mappings.language import composition, detection, loader
from mappings.language.arrays import Array
from mappings.language.composition import Composition
from mappings.language.errors import MappingErrors, MappingIssue
from mappings.language.family import Family, bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.nodes import LayoutSource
from reporting.diagnostics import Diagnostic, RecastError, raise_all

# Unknown names for which the nearest known one is looked up, which takes long in large models.
_HINTS = 20


@dataclasses.dataclass(frozen=True)
class Sides:
    """A family bound to one model, in both formats.

    Attributes:
        source: layout of the source, `target` of the output.
        composition: the moves between them.
        unmapped: arrays of the source that are no weights, with the reason.
        state: between MaxText layouts: what the output holds beside its weights.
    """

    family: Family
    source: Layout
    target: Layout
    composition: Composition
    unmapped: Mapping[str, str]
    state: CarriedState | None = None


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
    try:
        source = loader.load_layout(name, format)
        known = {option.name for option in source.node.option}
        return bind_layout(family, source, {key: value for key, value in options.items() if key in known})
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def implied_options(family: Family, name: str, format: str) -> frozenset[str]:
    """The options of a layout that a model's name decides, where they are not given."""
    return detection.resting_on(family, _layout_source(name, format), "model_name")


def detected_layout(
    family: Family, name: str, format: str, given: Mapping[str, Any], header: Mapping[str, TensorInfo]
) -> tuple[Layout, Mapping[str, tuple[object, ...]]]:
    """The layout of a source whose options are partly known from its names and shapes.

    Returns:
        The layout, and the options that the header leaves open though they change values, with their candidates.
    """
    source = _layout_source(name, format)
    known = {option.name for option in source.node.option}
    fixed = {key: value for key, value in given.items() if key in known}
    root = source.node.root.split(".")[0]
    shapes = {key: info.shape for key, info in header.items() if not root or key.split(".")[0] == root}
    try:
        found = detection.detect(family, source, shapes, fixed)
        return bind_layout(family, source, {**found.options, **fixed}), found.undecided
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def _layout_source(name: str, format: str) -> LayoutSource:
    try:
        return loader.load_layout(name, format)
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def compose(
    source: Layout, target: Layout, header: Mapping[str, TensorInfo], masked: Collection[str] = ()
) -> Composition:
    """The moves from one layout to the other for the arrays that are there.

    Args:
        source: where the tensors are.
        target: where they go.
        header: the arrays of the source.
        masked: parts of a training state that are meant not to be there.
    """
    try:
        return composition.compose(source, target, present={*header, *masked})
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
    found += [_unknown(name, weights if i < _HINTS else {}) for i, name in enumerate(unknown)]
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
    if issue.kind == "absent" and "training state" in issue.text:
        return Diagnostic("MISSING_TENSOR", reason)
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
    weights: Mapping[str, Array],
    header: Mapping[str, TensorInfo],
    unknown: list[str],
    missing: list[str],
    misshapen: list[str],
) -> list[Diagnostic]:
    """Where all layers, or layers as a whole, differ, it is the config that does not belong to the tensors."""
    reasons = []
    layers = _other_stack(weights, header, misshapen)
    if layers:
        reasons.append(f"The files hold stacks of {layers[0]} layers, config.json says {layers[1]}")
    groups = _by_rule(weights)
    wrong = [group for group in groups if set(misshapen).issuperset(group)] if not layers else []
    if wrong:
        names = ", ".join(group[0] for group in wrong[:4])
        reasons.append(f"In every layer the shapes differ from those that config.json implies, for example {names}")
    templates = {_template(group[0]) for group in groups}
    extra = [name for name in unknown if _template(name) in templates]
    if extra:
        reasons.append(f"The files hold more layers than config.json says, for example {extra[0]}")
    absent = set(missing)
    if groups and all(absent.intersection(group) for group in groups):
        reasons.append(f"The files hold fewer layers than config.json says; {missing[0]} is missing, for example")
    else:
        gone = [group for group in groups if absent.issuperset(group)]
        reasons += [f"config.json implies a tensor that no layer has, for example {group[0]}" for group in gone]
    return [Diagnostic("CONFIG_CONTRADICTS_TENSORS", f"{reason}.", subject="config.json") for reason in reasons]


def _by_rule(weights: Mapping[str, Array]) -> list[list[str]]:
    """Names that one rule makes, one for each layer; rules that make a single name are left out."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, array in weights.items():
        groups[array.location].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _other_stack(
    weights: Mapping[str, Array], header: Mapping[str, TensorInfo], misshapen: list[str]
) -> tuple[int, int] | None:
    """(layers found, layers implied) if stacked arrays differ in the number of layers and in nothing else."""
    stacked = [name for name, array in weights.items() if array.stack_axes and name in header]
    if not stacked or not set(stacked).issubset(misshapen):
        return None
    axis = weights[stacked[0]].stack_axes[0]
    for name in stacked:
        found, implied = list(header[name].shape), list(weights[name].shape)
        if len(found) != len(implied) or axis >= len(found):
            return None
        found[axis] = implied[axis] = 0
        if found != implied:
            return None
    return header[stacked[0]].shape[axis], weights[stacked[0]].shape[axis]


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
