"""What a format has no place for and a conversion keeps beside its output, so that the way back is whole.

A layout says of such tensors `absent { keep: true }`. Each is kept as it is, one array for each index value, its atoms
the axes, and so in no format's words. A layout that is extended by such arrays has a place for them as for any other
tensor: composition, plans and checks need know nothing of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Container, Iterable, Iterator, Mapping

from mappings.language.accounting import Ledger
from mappings.language.errors import MappingErrors
from mappings.language.family import IndexValue, Tensor
from mappings.language.layout import Absence, Layout
from mappings.language.nodes import Rule
from mappings.language.places import Place
from mappings.language.transfer import logical_place

ROOT = "kept/"
"""Prefix of the names of kept arrays; no format's names begin with it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Keepable:
    """An array that may be kept beside a checkpoint.

    Attributes:
        name: of the array: `kept/`, the tensor's id, and the index values.
        tensor: the tensor.
        value: the index value.
        absence: what the layout says of it.
    """

    name: str
    tensor: Tensor
    value: IndexValue
    absence: Absence


def is_kept(name: str) -> bool:
    """Whether an array is one that is kept beside a checkpoint."""
    return name.startswith(ROOT)


def keepable(layout: Layout) -> Mapping[str, Keepable]:
    """All that may be kept beside a checkpoint of a layout, by name; a tied tensor comes back by the other one."""
    found: dict[str, Keepable] = {}
    for id in layout.absences:
        tensor = layout.family.tensors[id]
        if tensor.empty or id in layout.family.ties:
            continue
        for value in tensor.present:
            absence = layout.absence(id, value)
            if absence is not None and absence.keep:
                name = ROOT + "/".join((id, *map(str, value)))
                found[name] = Keepable(name, tensor, value, absence)
    return found


def lost(source: Layout, target: Layout, present: Container[str]) -> tuple[Keepable, ...]:
    """What a source has, and a target of the layout keeps beside it.

    Args:
        source: the layout to convert from.
        target: the layout to convert to.
        present: names of the arrays that the source has; they decide whether optional ones are there.
    """
    return tuple(each for each in keepable(target).values() if _has(source, each, present))


def extended(layout: Layout, names: Collection[str]) -> Layout:
    """The layout with the places of kept arrays beside its own.

    Args:
        layout: a layout.
        names: of those kept arrays that there are, or shall be.

    Raises:
        MappingErrors: nothing of such a name may be kept.
    """
    if not names:
        return layout
    known = keepable(layout)
    unknown = sorted(name for name in names if name not in known)
    if unknown:
        text = f"'{layout.format}' has nothing to keep as '{unknown[0]}'"
        raise MappingErrors.of(layout.source.location, text, "unknown")
    ledger = Ledger(has_parts=False)
    places = dict(layout.places)
    for place in _places(known[name] for name in known if name in names):
        ledger.enter(place)
        key = ("", place.tensor.id)
        places[key] = (*places.get(key, ()), place)
    return dataclasses.replace(layout, arrays={**layout.arrays, **ledger.arrays}, places=places)


def _places(kept: Iterable[Keepable]) -> Iterator[Place]:
    """A place for each tensor, with an array for each of its index values."""
    by_tensor: dict[str, list[Keepable]] = {}
    for each in kept:
        by_tensor.setdefault(each.tensor.id, []).append(each)
    for several in by_tensor.values():
        first = several[0]
        plain = logical_place(first.tensor)
        rule = Rule(location=first.absence.location, tensor=first.tensor.id, name=f"{ROOT}{first.tensor.id}")
        yield dataclasses.replace(
            plain,
            form=dataclasses.replace(plain.form, rule=rule, keep_dtype=True),
            ranks={each.value: rank for rank, each in enumerate(several)},
            bases=plain.bases[:1] * len(several),
            names=tuple(each.name for each in several),
        )


def _has(source: Layout, wanted: Keepable, present: Container[str]) -> bool:
    return any(
        not place.form.optional
        or all(_is_present(source, name, present) for name in place.names_of(place.ranks[wanted.value]))
        for place in source.places.get(("", wanted.tensor.id), ())
        if wanted.value in place.ranks
    )


def _is_present(source: Layout, name: str, present: Container[str]) -> bool:
    return all(stored.name in present for stored in source.arrays[name].stored)
