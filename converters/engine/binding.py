"""Binds a family and its two layouts to a config, and holds the source's headers against them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from converters.engine import contradictions, kept, values
from converters.engine.carried_state import CarriedState
from converters.formats.base import TensorInfo
from converters.formats.dtypes import NAMES, unsupported
from mappings.language import composition, detection, loader
from mappings.language.composition import Composition
from mappings.language.errors import MappingErrors, MappingIssue
from mappings.language.family import Family, bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.nodes import LayoutSource
from mappings.language.options import bind_options, layout_symbols
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


def check_options(family: Family, name: str, format: str, options: Mapping[str, Any]) -> None:
    """Holds options against a layout, those that it does not have left out, without binding its arrays.

    Raises:
        RecastError: with everything that does not fit.
    """
    source = _layout_source(name, format)
    known = {option.name for option in source.node.option}
    given = {key: value for key, value in options.items() if key in known}
    try:
        bind_options(source.node, layout_symbols(family, source), given)
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def implied_options(family: Family, name: str, format: str, by: str = "model_name") -> frozenset[str]:
    """The options of a layout that another one decides where they are not given: the model's name, if not said."""
    return detection.resting_on(family, _layout_source(name, format), by)


def detected_layout(
    family: Family, name: str, format: str, given: Mapping[str, Any], header: Mapping[str, TensorInfo]
) -> tuple[Layout, Mapping[str, tuple[object, ...]]]:
    """The layout of a source whose options are partly known from its names and shapes; what is kept beside it, too.

    Returns:
        The layout, and the options that the header leaves open though they change values, with their candidates.
    """
    source = _layout_source(name, format)
    known = {option.name for option in source.node.option}
    fixed = {key: value for key, value in given.items() if key in known}
    root = source.node.root.split(".")[0]
    own = kept.own_of(header)
    shapes = {key: info.shape for key, info in own.items() if not root or key.split(".")[0] == root}
    try:
        found = detection.detect(family, source, shapes, fixed)
        layout = found.layout or bind_layout(family, source, {**found.options, **fixed})
        return kept.extended(layout, kept.names_in(header)), found.undecided
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def _layout_source(name: str, format: str) -> LayoutSource:
    try:
        return loader.load_layout(name, format)
    except MappingErrors as errors:
        raise RecastError([diagnostic_of(issue) for issue in errors.issues]) from errors


def compose(
    source: Layout,
    target: Layout,
    header: Mapping[str, TensorInfo],
    masked: Collection[str] = (),
    wanted: Collection[str] = (),
) -> Composition:
    """The moves from one layout to the other for the arrays that are there.

    Args:
        source: where the tensors are.
        target: where they go.
        header: the arrays of the source.
        masked: parts of a training state that are meant not to be there.
        wanted: optional arrays that the target gets, of which others may be named too.
    """
    try:
        return composition.compose(source, target, present={*header, *masked}, wanted=wanted)
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
    raise_all(contradictions.other_names(weights, unknown, missing))
    found = contradictions.find(weights, header, unknown, missing, misshapen)
    found += [_misshapen(name, header[name], weights[name].shape) for name in misshapen]
    found += [Diagnostic("MISSING_TENSOR", f"{name} is missing.", subject=name) for name in missing]
    twice = contradictions.claimed_twice(layout, unknown, header)
    found += [_twice(name, other) for name, other in twice.items()]
    unknown = [name for name in unknown if name not in twice]
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
        return Diagnostic("MISSING_TENSOR", reason, subject=issue.key)
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


def _misshapen(name: str, info: TensorInfo, shape: tuple[int, ...]) -> Diagnostic:
    return Diagnostic(
        "TENSOR_SHAPE", f"{name} has the shape {list(info.shape)}; the config implies {list(shape)}.", subject=name
    )


def _unknown(name: str, weights: Mapping[str, Any]) -> Diagnostic:
    import difflib

    near = difflib.get_close_matches(name, list(weights)[:4096], n=1)
    hint = f"; the nearest known name is {near[0]}" if near else ""
    return Diagnostic("UNKNOWN_TENSOR", f"{name} is not a tensor of this model{hint}.", subject=name)


def _twice(name: str, other: str) -> Diagnostic:
    reason = f"{name} holds, in another spelling, what {other} holds too."
    suggestion = "Remove one of the two: a checkpoint is in one spelling."
    return Diagnostic("DUPLICATE_TENSOR", reason, suggestion=suggestion, subject=name)


def _is_mistyped(info: TensorInfo) -> bool:
    return info.dtype not in values.FLOAT_DTYPES


def _mistyped(info: TensorInfo) -> Diagnostic:
    if info.dtype not in NAMES:
        return unsupported(info.name, info.dtype)
    return Diagnostic(
        "TENSOR_DTYPE", f"{info.name} is of type {info.dtype}, which is not a weight's.", subject=info.name
    )
