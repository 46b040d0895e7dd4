"""Single edits of families and of their fragments."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from tests.language.changes import (
    Found,
    Get,
    assign,
    condition_changes,
    element,
    exchange,
    misspelt,
    remove,
    subject_of,
    whole,
)


def family_changes(family: Any) -> Iterator[Found]:
    """The edits of a family or of a fragment of one."""
    for field in ("let", "atom", "tensor", "group", "tie", "require"):
        for index, part in enumerate(getattr(family, field)):
            yield f"remove: {field}", subject_of(part, index), remove(whole, field, index)
    for field in ("include", "model_type", "config_root"):
        for index, text in enumerate(getattr(family, field)):
            yield f"remove: {field}", text or "the top level", remove(whole, field, index)
    for index, let in enumerate(family.let):
        yield from _expression_changes(let.name, let.value, element(whole, "let", index), "value")
    for index, require in enumerate(family.require):
        yield from _expression_changes("require", require.that, element(whole, "require", index), "that")
    for index, tie in enumerate(family.tie):
        yield from condition_changes(tie, f"tie of {tie.tensor}", element(whole, "tie", index))
    for index, atom in enumerate(family.atom):
        yield from _atom_changes(atom, element(whole, "atom", index))
    yield from _tensor_changes(family, whole)
    for index, group in enumerate(family.group):
        get = element(whole, "group", index)
        yield "lose the axes of a group", group.id, assign(get, "axes", "")
        yield from condition_changes(group, group.id, get)
        yield from _tensor_changes(group, get)


def _tensor_changes(holder: Any, get: Get) -> Iterator[Found]:
    for index, tensor in enumerate(holder.tensor):
        get_tensor = element(get, "tensor", index)
        yield "remove: tensor", tensor.id, remove(get, "tensor", index)
        yield "misspell: id", tensor.id, assign(get_tensor, "id", misspelt(tensor.id))
        yield "keep the dtype", tensor.id, assign(get_tensor, "keep_dtype", not tensor.keep_dtype)
        yield from condition_changes(tensor, tensor.id, get_tensor)
        atoms = tensor.axes.split()
        for place in range(len(atoms)):
            axes = " ".join(atoms[:place] + atoms[place + 1 :])
            yield "lose an axis", f"{tensor.id}: {tensor.axes} -> {axes}", assign(get_tensor, "axes", axes)
        for turn in range(1, len(atoms)):
            axes = " ".join(atoms[turn:] + atoms[:turn])
            yield "rotate the axes", f"{tensor.id}: {tensor.axes} -> {axes}", assign(get_tensor, "axes", axes)
    for one, other in itertools.combinations(range(len(holder.tensor)), 2):
        subject = f"{holder.tensor[one].id} and {holder.tensor[other].id}"
        yield "exchange two ids", subject, exchange(get, "tensor", one, other, "id")


def _atom_changes(atom: Any, get: Get) -> Iterator[Found]:
    yield from _expression_changes(atom.name, atom.size, get, "size")
    factors = getattr(atom, "is").split()
    yield "swap inside a product", atom.name, assign(get, "is", " ".join(factors[::-1]))
    yield "change index", atom.name, assign(get, "index", not atom.index)
    yield "may be empty", atom.name, assign(get, "may_be_empty", not atom.may_be_empty)
    yield from condition_changes(atom, atom.name, get)


def _expression_changes(subject: str, expression: str, get: Get, field: str) -> Iterator[Found]:
    """The expression with each number one higher, each fallback lost, and each key misspelt."""
    for match in re.finditer(r"\d+", expression):
        changed = f"{expression[: match.start()]}{int(match[0]) + 1}{expression[match.end() :]}"
        yield "change a number", f"{subject}: {expression} -> {changed}", assign(get, field, changed)
    for match in re.finditer(r" \?\? \w+(?: // \w+)?", expression):
        changed = expression[: match.start()] + expression[match.end() :]
        yield "lose a fallback", f"{subject}: {expression} -> {changed}", assign(get, field, changed)
    for match in re.finditer(r"[a-z]+(?:_[a-z]+)+", expression):
        changed = f"{expression[: match.start()]}{misspelt(match[0])}{expression[match.end() :]}"
        yield "misspell: key", f"{subject}: {expression} -> {changed}", assign(get, field, changed)
