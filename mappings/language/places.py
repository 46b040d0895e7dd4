"""Places: one rule in one scope, for one tensor. Where each element of the tensor lies.

A place is affine: the name of the array, as a number in a list of names, and the position on each array axis are
sums of digit * weight, for the digits that spell the tensor's atoms, plus what the index value (layer) contributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from mappings.language.arrays import BoundOp
from mappings.language.codecs import BoundCodec
from mappings.language.family import IndexValue, Tensor
from mappings.language.naming import Digits
from mappings.language.nodes import At, Rule


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Site:
    """An `at` of a scope, evaluated.

    Attributes:
        node: its source.
        over: digits of its map and their sizes.
        mapped: the index atom that its map gives, "" without a map.
        inverse: from a value of that atom to the values of the digits.
        stack: digits or index atoms that become array axes.
    """

    node: At
    over: Mapping[str, int]
    mapped: str
    inverse: Mapping[int, tuple[int, ...]]
    stack: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What all arrays of one rule in one site share.

    Attributes:
        rule: the rule.
        site: where it is applied.
        shape: shape of the arrays, stacked axes included.
        stack_axes: positions of the stacked axes.
        tensors: ids of the tensors in the arrays.
        paddings: boxes of zeros in each array.
        ops: value operations.
        codec: how the arrays are stored.
        optional: whether a source may lack them.
        keep_dtype: whether the source's dtype is kept.
        mirror: the training state it belongs to, "" for weights.
    """

    rule: Rule
    site: Site
    shape: tuple[int, ...]
    stack_axes: tuple[int, ...]
    tensors: tuple[str, ...]
    paddings: tuple[Padding, ...]
    ops: tuple[BoundOp, ...]
    codec: BoundCodec | None
    optional: bool
    keep_dtype: bool
    mirror: str


@dataclasses.dataclass(frozen=True, slots=True)
class Padding:
    """Zeros inside each array of a form: a box of digits.

    Attributes:
        base: the first element's position on each axis.
        dims: (count, axis, weight) of its digits.
    """

    base: tuple[int, ...]
    dims: tuple[tuple[int, int, int], ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where one tensor lies by one rule in one site.

    Attributes:
        tensor: the tensor.
        form: what its arrays share.
        address: digits in array axes: (axis, weight).
        name_weights: digits in names: their weight in the number of a name.
        spelling: for each atom of the tensor the digits that spell it, major first.
        ranks: index values that have their place here, each with its rank.
        bases: by rank, the position on each axis of the tensor's first element.
        names: full names of the arrays; element (rank, digits) is in names[rank * names_per_rank + digits].
        copies: name numbers, relative to that of a digit combination, of its equal copies; the first is 0.
    """

    tensor: Tensor
    form: Form
    address: Mapping[str, tuple[int, int]]
    name_weights: Mapping[str, int]
    spelling: Mapping[str, Digits]
    ranks: Mapping[IndexValue, int]
    bases: tuple[tuple[int, ...], ...]
    names: tuple[str, ...]
    names_per_rank: int
    copies: tuple[int, ...]

    @property
    def location(self) -> str:
        """The rule's "file:line"."""
        return self.form.rule.location

    def names_of(self, rank: int) -> tuple[str, ...]:
        """All arrays that hold a part of the tensor for one index value."""
        return self.names[rank * self.names_per_rank : (rank + 1) * self.names_per_rank]


def is_written_alike(first: Place, second: Place) -> bool:
    """Whether two places of one tensor put every element there by the same names, digits and operations.

    Places that are written in different ways may still mean the same.
    """
    return first.tensor is second.tensor and _written(first) == _written(second)


def _written(place: Place) -> tuple[object, ...]:
    form = place.form
    return (
        (form.shape, form.paddings, form.ops, form.codec),
        (place.address, place.name_weights, place.spelling, place.ranks, place.bases),
        (place.names_per_rank, place.copies, place.names),
    )
