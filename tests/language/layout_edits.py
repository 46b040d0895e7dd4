"""Single edits of layouts and of their fragments."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from recast_proto import mapping_pb2
from tests.language.changes import (
    Change,
    Found,
    Get,
    assign,
    condition_changes,
    element,
    exchange,
    misspelt,
    remove,
    subject_of,
    swapped_factors,
    whole,
)


def layout_changes(layout: Any) -> Iterator[Found]:
    """The edits of a layout."""
    yield from _rule_changes(layout, whole)
    for index in range(len(layout.scope)):
        yield from scope_changes(layout.scope[index], element(whole, "scope", index))
    for field in ("let", "atom", "option", "ignore", "mirror", "absent", "scope", "label"):
        for index, part in enumerate(getattr(layout, field)):
            yield f"remove: {field}", subject_of(part, index), remove(whole, field, index)
    for index, atom in enumerate(layout.atom):
        get = element(whole, "atom", index)
        for swapped in swapped_factors(f"({getattr(atom, 'is')})"):
            yield "swap inside a product", f"{atom.name}{atom.of}", assign(get, "is", swapped[1:-1])
        yield from condition_changes(atom, atom.name, get)
    for index, option in enumerate(layout.option):
        get = element(whole, "option", index)
        for place, value in enumerate(option.value):
            yield "remove: option value", f"{option.name}={value}", remove(get, "value", place)
            yield "change a default", f"{option.name}={value}", assign(get, "default", _quoted(value))
    for index, ignore in enumerate(layout.ignore):
        yield "lose: reason", ignore.name, assign(element(whole, "ignore", index), "reason", "")
        yield "change carry", ignore.name, assign(element(whole, "ignore", index), "carry", not ignore.carry)
        yield from _name_changes("ignore", ignore.name, element(whole, "ignore", index), "name")
    for index, mirror in enumerate(layout.mirror):
        yield from _name_changes("mirror", mirror.root, element(whole, "mirror", index), "root")
    for index, absent in enumerate(layout.absent):
        yield from _absence_changes(absent, element(whole, "absent", index))
    if layout.root:
        yield from _name_changes("root", layout.root, whole, "root")
        yield "lose the root", layout.root, assign(whole, "root", "")
    if layout.stack_axis:
        for axis in ("", "0", "1", "2"):
            yield "move the stacked axis", f"to {axis or 'nothing'}", assign(whole, "stack_axis", axis)


def scope_changes(scope: Any, get: Get) -> Iterator[Found]:
    """The edits of a scope, or of a fragment of one; `get` finds it in the edited message."""
    yield from _rule_changes(scope, get)
    yield from condition_changes(scope, "scope", get)
    for index, file in enumerate(scope.include):
        yield "remove: include", file, remove(get, "include", index)
    for index, at in enumerate(scope.at):
        get_at = element(get, "at", index)
        yield "remove: at", at.name, remove(get, "at", index)
        yield from _name_changes("prefix", at.name, get_at, "name")
        yield from condition_changes(at, at.name, get_at)
        yield "damage an index map", at.map, assign(get_at, "map", at.map.rsplit("+", 1)[0])
        yield "lose the stacking", at.name, assign(get_at, "stack", "")
    for one, other in itertools.combinations(range(len(scope.at)), 2):
        subject = f"{scope.at[one].name} and {scope.at[other].name}"
        yield "exchange two prefixes", subject, exchange(get, "at", one, other, "name")


def _rule_changes(holder: Any, get: Get) -> Iterator[Found]:
    for index, rule in enumerate(holder.rule):
        subject = rule.tensor or rule.name
        get_rule = element(get, "rule", index)
        yield "remove: rule", subject, remove(get, "rule", index)
        yield "repeat a rule", subject, _repeat(get, index, "")
        yield "second place, other name", subject, _repeat(get, index, "_2")
        yield from _name_changes("name", rule.name, get_rule, "name")
        yield from condition_changes(rule, subject, get_rule)
        for kind, axes in _changed_axes(rule.axes):
            yield kind, f"{subject}: {rule.axes} -> {axes}", assign(get_rule, "axes", axes)
        for place in range(len(rule.op)):
            yield "lose a value operation", subject, remove(get_rule, "op", place)
            yield "invert a value operation", subject, _invert(element(get_rule, "op", place))
            yield "change an operand", subject, _change_operand(element(get_rule, "op", place))
        for field in ("optional", "copies", "root", "peer_dtype"):
            yield f"lose: {field}", subject, assign(get_rule, field, "")
    for one, other in itertools.combinations(range(len(holder.rule)), 2):
        subject = f"{holder.rule[one].tensor} and {holder.rule[other].tensor}"
        yield "exchange two names", subject, exchange(get, "rule", one, other, "name")
        yield "exchange two tensors", subject, exchange(get, "rule", one, other, "tensor")
        yield "exchange two axes lists", subject, exchange(get, "rule", one, other, "axes")


def _absence_changes(absent: Any, get: Get) -> Iterator[Found]:
    yield from condition_changes(absent, absent.tensor, get)
    for value in mapping_pb2.Refill.values():
        name = mapping_pb2.Refill.Name(value)
        yield "change a refill", f"{absent.tensor}: {name}", assign(get, "refill", value)
    yield "lose: must_be_zero", absent.tensor, assign(get, "must_be_zero", False)
    for field in ("reason", "where"):
        yield f"lose: {field}", absent.tensor, assign(get, field, "")


def _name_changes(what: str, name: str, get: Get, field: str) -> Iterator[Found]:
    yield f"misspell: {what}", name, assign(get, field, misspelt(name))
    for match in re.finditer(r"\{[^$}][^}]*\}", name):
        lost = f"{name[: match.start()]}0{name[match.end() :]}"
        yield "lose an index in a name", f"{name}: {match[0]}", assign(get, field, lost)


def _changed_axes(axes: str) -> Iterator[tuple[str, str]]:
    parts = re.findall(r"\([^()]*\)|\[[^\]]*\]|\S+", axes)
    for turn in range(1, len(parts)):
        yield "rotate the axes", " ".join(parts[turn:] + parts[:turn])
    for one, other in itertools.combinations(range(len(parts)), 2):
        exchanged = list(parts)
        exchanged[one], exchanged[other] = exchanged[other], exchanged[one]
        yield "exchange two axes", " ".join(exchanged)
    for index in range(len(parts)):
        yield "lose an axis", " ".join(parts[:index] + parts[index + 1 :])
    for swapped in swapped_factors(axes):
        yield "swap inside a product", swapped
    for match in re.finditer(r"\[([^|\]]*)\|([^|\]]*)", axes):
        swapped = f"[{match[2]} | {match[1]}"
        yield "swap branches of a sum", axes[: match.start()] + swapped + axes[match.end() :]


def _quoted(value: str) -> str:
    return value if value in ("true", "false") or value.isdigit() else f"'{value}'"


def _repeat(get: Get, index: int, suffix: str) -> Change:
    def change(message: Any) -> None:
        rules = get(message).rule
        added = rules.add()
        added.CopyFrom(rules[index])
        added.name += suffix

    return change


def _invert(get: Get) -> Change:
    def change(message: Any) -> None:
        op = get(message)
        if op.HasField("scale"):
            op.scale.half_powers = -op.scale.half_powers
        else:
            op.add.value = f"-({op.add.value})"

    return change


def _change_operand(get: Get) -> Change:
    def change(message: Any) -> None:
        op = get(message)
        if op.HasField("scale"):
            op.scale.of = f"{op.scale.of} + 1"
        else:
            op.add.value = f"{op.add.value} + 1"

    return change
