"""Moves between two places of one tensor, or of two tensors that are tied."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

from mappings.language.arrays import BoundOp
from mappings.language.errors import MappingErrors
from mappings.language.family import IndexValue, Tensor
from mappings.language.merging import merge
from mappings.language.nodes import At, Rule
from mappings.language.places import Form, Place, Site
from mappings.language.refinement import CommonDigit, NoChainError, refine
from mappings.language.regions import Dim, Move

LOGICAL = ""
"""The name of the array that moves from or to the logical tensor itself have."""

_Choice = tuple[int, int, tuple[int, ...], tuple[int, ...]]
"""(number of the source name, of the target name, steps on the source axes, steps on the target axes)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Transfer:
    """What moves from one place to another, for any index value.

    Attributes:
        source: where the tensor is.
        target: where it goes.
        dims: the loops of each move.
        choices: the values of the digits that are enumerated because they stand in a name on either side.
        source_ops: operations to be undone; () where they cancel.
        target_ops: operations to be done; () where they cancel.
    """

    source: Place
    target: Place
    dims: tuple[Dim, ...]
    choices: tuple[_Choice, ...]
    source_ops: tuple[BoundOp, ...]
    target_ops: tuple[BoundOp, ...]

    @property
    def elements(self) -> int:
        """Elements of one move, before merging."""
        return math.prod([dim.count for dim in self.dims])

    def moves(
        self,
        values: Iterable[IndexValue],
        source_copies: Sequence[int] = (0,),
        target_copies: Sequence[int] | None = None,
    ) -> list[Move]:
        """The moves for some index values.

        Args:
            values: index values that both places have.
            source_copies: numbers of the copies to read, relative to the first.
            target_copies: numbers of the copies to write, all by default.
        """
        source, target = self.source, self.target
        written = target.copies if target_copies is None else target_copies
        moves: list[Move] = []
        for value in values:
            source_rank, target_rank = source.ranks[value], target.ranks[value]
            source_names, target_names = source.names_of(source_rank), target.names_of(target_rank)
            source_base, target_base = source.bases[source_rank], target.bases[target_rank]
            for source_number, target_number, source_step, target_step in self.choices:
                from_base = tuple(map(int.__add__, source_base, source_step)) if source_step else source_base
                to_base = tuple(map(int.__add__, target_base, target_step)) if target_step else target_base
                for read, write in itertools.product(source_copies, written):
                    moves.append(
                        Move(
                            target.tensor.id,
                            source_names[source_number + read],
                            target_names[target_number + write],
                            source.form.shape,
                            target.form.shape,
                            from_base,
                            to_base,
                            self.dims,
                            self.source_ops,
                            self.target_ops,
                        )
                    )
        stacked = source.form.site.stack and target.form.site.stack
        return merge(moves) if stacked else moves


def transfer(source: Place, target: Place) -> Transfer:
    """What moves from one place to another. The tensors are the same, or tied: their atoms are equal.

    Raises:
        MappingErrors: the two sides cut an atom in ways that do not divide each other.
    """
    dims: list[Dim] = []
    enumerated: list[CommonDigit] = []
    for atom in target.tensor.atoms:
        for digit in _refined(atom, source, target):
            at, to = source.address.get(digit.source), target.address.get(digit.target)
            if at is None or to is None:
                enumerated.append(digit)
            else:
                dims.append(Dim(digit.count, at[0], at[1] * digit.source_factor, to[0], to[1] * digit.target_factor))
    cancel = source.form.ops == target.form.ops
    return Transfer(
        source=source,
        target=target,
        dims=tuple(dims),
        choices=_choices(enumerated, source, target),
        source_ops=() if cancel else source.form.ops,
        target_ops=() if cancel else target.form.ops,
    )


def logical_place(tensor: Tensor) -> Place:
    """The tensor itself as a place: for each index value an array of its own, its atoms the axes."""
    location = tensor.location
    form = Form(
        rule=Rule(location=location, tensor=tensor.id, name=LOGICAL),
        site=Site(At(location=location), {}, "", {}, ()),
        shape=tensor.shape,
        stack_axes=(),
        tensors=(tensor.id,),
        paddings=(),
        ops=(),
        codec=None,
        optional=False,
        keep_dtype=tensor.keep_dtype,
        mirror="",
    )
    return Place(
        tensor=tensor,
        form=form,
        address={atom: (axis, 1) for axis, atom in enumerate(tensor.atoms)},
        name_weights={},
        spelling={atom: ((atom, tensor.sizes[atom]),) for atom in tensor.atoms},
        ranks={value: rank for rank, value in enumerate(tensor.present)},
        bases=((0,) * len(tensor.atoms),) * len(tensor.present),
        names=(LOGICAL,) * len(tensor.present),
        names_per_rank=1,
        copies=(0,),
    )


def _refined(atom: str, source: Place, target: Place) -> tuple[CommonDigit, ...]:
    try:
        return refine(source.spelling[atom], target.spelling[atom])
    except NoChainError as error:
        text = (
            f"'{atom}' is cut at {error.source_cut} by one side and at {error.target_cut} by the other: "
            "use a third layout between them"
        )
        raise MappingErrors.of(target.location, text, "size") from None


def _choices(enumerated: Sequence[CommonDigit], source: Place, target: Place) -> tuple[_Choice, ...]:
    """All values of the enumerated digits; steps are () where no enumerated digit is in an axis of that side."""
    in_source = any(digit.source in source.address for digit in enumerated)
    in_target = any(digit.target in target.address for digit in enumerated)
    choices: list[_Choice] = [
        (0, 0, (0,) * len(source.form.shape) if in_source else (), (0,) * len(target.form.shape) if in_target else ())
    ]
    for digit in enumerated:
        source_name, source_step = _step(digit.source, digit.source_factor, source)
        target_name, target_step = _step(digit.target, digit.target_factor, target)
        choices = [
            (
                from_name + value * source_name,
                to_name + value * target_name,
                _stepped(from_step, source_step, value),
                _stepped(to_step, target_step, value),
            )
            for from_name, to_name, from_step, to_step in choices
            for value in range(digit.count)
        ]
    return tuple(choices)


def _step(digit: str, factor: int, place: Place) -> tuple[int, tuple[int, int] | None]:
    """What one step of a common digit does: to the number of the name, and (axis, weight) to the index."""
    at = place.address.get(digit)
    if at is None:
        return place.name_weights[digit] * factor, None
    return 0, (at[0], at[1] * factor)


def _stepped(steps: tuple[int, ...], step: tuple[int, int] | None, value: int) -> tuple[int, ...]:
    if step is None or not value:
        return steps
    axis, weight = step
    return (*steps[:axis], steps[axis] + value * weight, *steps[axis + 1 :])
