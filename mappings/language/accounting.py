"""Accounting of a bound layout: each element of a tensor has one place, and each array is filled exactly."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence

from mappings.language.arrays import PART_MARK, Array
from mappings.language.errors import Issues, MappingErrors
from mappings.language.family import IndexValue, Tensor
from mappings.language.places import Form, Place


class Ledger:
    """Arrays as places make them, and how much of each is filled.

    Attributes:
        arrays: the arrays so far, by full name.
    """

    def __init__(self, *, has_parts: bool) -> None:
        self._has_parts = has_parts
        self.arrays: dict[str, Array] = {}
        self._forms: dict[str, Form] = {}
        self._filled: dict[str, int] = {}
        self._seen: dict[tuple[str, str], set[tuple[str, tuple[int, ...]]]] = {}

    def enter(self, place: Place) -> None:
        """Takes up the arrays of a place.

        Raises:
            MappingErrors: a name comes from another rule already, or holds the tensor twice.
        """
        form = place.form
        volume = math.prod([size for digits in place.spelling.values() for d, size in digits if d in place.address])
        if not volume or 0 in form.shape:
            return
        padding = sum(math.prod([count for count, _, _ in padding.dims]) for padding in form.paddings)
        key = (form.mirror, place.tensor.id)
        seen = self._seen.setdefault(key, set())
        for rank, base in enumerate(place.bases):
            for name in place.names_of(rank):
                known = self._forms.get(name)
                if known is None:
                    self._forms[name] = form
                    self._filled[name] = padding
                    self.arrays[name] = self._array(name, form)
                elif known is not form:
                    raise _collision(name, form, known, place.tensor.id)
                if (name, base) in seen:
                    raise _collision(name, form, known or form, place.tensor.id)
                seen.add((name, base))
                self._filled[name] += volume

    def _array(self, name: str, form: Form) -> Array:
        part, mark, inner = name.partition(PART_MARK) if self._has_parts else ("", "", name)
        return Array(
            name=inner if mark else name,
            part=part if mark else "",
            shape=form.shape,
            tensors=form.tensors,
            optional=form.optional,
            keep_dtype=form.keep_dtype,
            ops=form.ops,
            peer_dtype=form.rule.peer_dtype,
            mirror=form.mirror,
            stack_axes=form.stack_axes,
            location=form.rule.location,
            codec=form.codec,
        )

    def check_filled(self, failed_rules: Container[str], issues: Issues) -> None:
        """Notes arrays that are not filled exactly, the first of each rule; those of failed rules have their issue."""
        told: set[str] = set()
        for name, form in self._forms.items():
            volume = math.prod(form.shape)
            location = form.rule.location
            if self._filled[name] != volume and location not in told and location not in failed_rules:
                told.add(location)
                text = f"array '{name}' {form.shape} is filled with {self._filled[name]} of {volume} elements"
                issues.add(location, text)


def _collision(name: str, form: Form, known: Form, tensor: str) -> MappingErrors:
    if known.rule is form.rule:
        text = f"name '{name}' would hold two parts of '{tensor}'; an index is missing in the name"
    else:
        text = f"name '{name}' is already made by the rule at {known.rule.location}"
    return MappingErrors.of(form.rule.location, text)


def check_codecs(arrays: Iterable[Array], issues: Issues) -> None:
    """Notes arrays whose shape their codec cannot store, or whose physical names others have."""
    coded = [array for array in arrays if array.codec is not None]
    names: dict[str, str] = {}
    for array in coded:
        try:
            stored = array.stored
        except ValueError as error:
            issues.add(array.location, f"array '{array.key}': {error}", "size")
            continue
        for part in stored:
            if part.name in names:
                issues.add(array.location, f"name '{part.name}' is already made for '{names[part.name]}'")
            names[part.name] = array.key


def check_complete(
    tensors: Iterable[Tensor],
    ties: Container[str],
    layout: tuple[str, str],
    places: Mapping[str, Sequence[Place]],
    absences: Mapping[str, Mapping[IndexValue, str]],
    issues: Issues,
) -> None:
    """Notes tensors that have no place, or several, or one beside a declared absence; the first index of each.

    Args:
        tensors: the tensors to check.
        ties: ids of tied tensors, which need no place.
        layout: the layout's format and "file:line".
        places: places of weights by tensor id.
        absences: for each tensor the index values that are declared absent, with the "file:line" that says so.
        issues: takes what is found.
    """
    for tensor in tensors:
        found: dict[IndexValue, list[Place]] = {}
        for place in places.get(tensor.id, ()):
            for value in place.ranks:
                found.setdefault(value, []).append(place)
        _check_tensor(tensor, layout, found, absences.get(tensor.id, {}), tensor.id in ties, issues)


def _check_tensor(
    tensor: Tensor,
    layout: tuple[str, str],
    found: Mapping[IndexValue, Sequence[Place]],
    gone: Mapping[IndexValue, str],
    tied: bool,
    issues: Issues,
) -> None:
    homeless: list[IndexValue] = []
    for value in tensor.present:
        here = found.get(value, ())
        if len(here) > 1:
            text = f"{_at(tensor, value)} already has a place, at {here[0].location}"
            issues.add(here[1].location, text)
            return
        if here and value in gone:
            text = f"{_at(tensor, value)} is declared absent but has a place at {here[0].location}"
            issues.add(gone[value], text)
            return
        if not here and value not in gone and not tied and not tensor.empty:
            homeless.append(value)
    if homeless:
        more = f" (and {len(homeless) - 1} more)" if len(homeless) > 1 else ""
        text = (
            f"{_at(tensor, homeless[0])} ({tensor.location}) has no place in layout '{layout[0]}' "
            f"and is not declared absent{more}"
        )
        issues.add(layout[1], text)


def _at(tensor: Tensor, value: IndexValue) -> str:
    index = dict(zip(tensor.index_atoms, value, strict=True))
    return f"'{tensor.id}'" + (f" at {index}" if index else "")
