"""Training state in a source: mirrors of the weights, such as the moments of an optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping

from mappings.language.arrays import BoundOp
from mappings.language.errors import MappingErrors, MappingIssue
from mappings.language.family import IndexValue
from mappings.language.layout import Layout
from mappings.language.places import Place


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class MirrorSource:
    """One mirror that a source has.

    Attributes:
        layout: the source's layout.
        arrays: full names of its arrays.
        missing: full names of those that it ought to have, too.
        places: by tensor id and index value, where it is.
    """

    layout: Layout
    arrays: tuple[str, ...]
    missing: tuple[str, ...]
    places: Mapping[str, Mapping[IndexValue, Place]]

    def check(self, mirror: str) -> None:
        """Raises MappingErrors, with the first missing array as key, where the source has only some of its arrays."""
        if self.missing:
            more = f" and {len(self.missing) - 1} more" if len(self.missing) > 1 else ""
            text = f"training state '{mirror}' is incomplete: there is no '{self.missing[0]}'{more}"
            raise MappingErrors([MappingIssue(self.layout.source.location, text, "absent", self.missing[0])])

    def ops_equal(self, tensor: str, value: IndexValue, target: Layout) -> bool:
        """Whether source and target have the same operations on a weight, so that its moments mean the same."""
        return _ops(self.layout, tensor, value) == _ops(target, tensor, value)


def mirror_source(layout: Layout, mirror: str, present: Container[str]) -> MirrorSource | None:
    """The training state of a source; None if it has none of its arrays."""
    wanted = [name for name, array in layout.arrays.items() if array.mirror == mirror]
    found = tuple(name for name in wanted if name in present)
    if not found:
        return None
    missing = tuple(name for name in wanted if name not in present and not layout.arrays[name].optional)
    there = frozenset(found)
    places = {
        id: {
            value: place
            for place in of_tensor
            for value, rank in place.ranks.items()
            if there.issuperset(place.names_of(rank))
        }
        for (name, id), of_tensor in layout.places.items()
        if name == mirror
    }
    return MirrorSource(layout, found, missing, places)


def _ops(layout: Layout, tensor: str, value: IndexValue) -> tuple[BoundOp, ...] | None:
    for place in layout.places.get(("", tensor), ()):
        if value in place.ranks:
            return place.form.ops
    return None
