"""Composing two layouts of one model: the strided copies that turn one into the other, and what is left over."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Iterable, Mapping

from mappings.language.errors import Issues, MappingErrors
from mappings.language.family import IndexValue, Tensor
from mappings.language.findings import EqualCheck, Fill, Note, ZeroCheck
from mappings.language.layout import Absence, Layout
from mappings.language.places import Padding, Place
from mappings.language.regions import Dim, Move
from mappings.language.training_state import MirrorSource, mirror_source
from mappings.language.transfer import LOGICAL, logical_place, transfer

__all__ = ["Composition", "EqualCheck", "Fill", "Note", "ZeroCheck", "compose"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """How to make a target layout from a source layout.

    Attributes:
        source: the source layout.
        target: the target layout.
        moves: copies; with the fills they cover each element of the produced arrays once.
        fills: values without a source, padding included.
        checks: regions of the source that must be equal.
        zeros: regions of the source that must be zero.
        notes: what else happens to tensors.
        produced: target arrays that are made, in the target's order.
        consumed: source arrays that are read, compared, checked or dropped for a reason.
    """

    source: Layout
    target: Layout
    moves: tuple[Move, ...]
    fills: tuple[Fill, ...]
    checks: tuple[EqualCheck, ...]
    zeros: tuple[ZeroCheck, ...]
    notes: tuple[Note, ...]
    produced: tuple[str, ...]
    consumed: frozenset[str]


def compose(
    source: Layout, target: Layout, present: Container[str] | None = None, wanted: Container[str] = ()
) -> Composition:
    """The moves that turn one layout of a model into another.

    Args:
        source: where the tensors are.
        target: where they go.
        present: full names of the arrays that the source has. They decide whether optional arrays and training
            state are there; without them neither is.
        wanted: full names of optional arrays that the target gets, of which others may be named too.

    Raises:
        MappingErrors: the target needs what the source does not keep, the two cut an axis in ways that do not
            divide each other, or training state is incomplete.
        ValueError: the layouts were bound to different configs.
    """
    if source.family is not target.family:
        raise ValueError("source and target are bound to different families")
    composer = _Composer(source, target, present if present is not None else (), wanted)
    return composer.compose()


class _Composer:
    def __init__(self, source: Layout, target: Layout, present: Container[str], wanted: Container[str]):
        self._source = source
        self._target = target
        self._present = present
        self._wanted = wanted
        self._issues = Issues()
        self._moves: list[Move] = []
        self._fills: list[Fill] = []
        self._checks: list[EqualCheck] = []
        self._zeros: list[ZeroCheck] = []
        self._notes: dict[Note, None] = {}
        self._covered: dict[str, int] = {}
        self._omitted: set[str] = set()
        self._consumed: set[str] = set()

    def compose(self) -> Composition:
        """The composition."""
        for tensor in self._source.family.tensors.values():
            if not tensor.empty:
                with self._issues:
                    self._weights(tensor)
        for mirror in self._source.mirrors:
            with self._issues:
                self._mirror(mirror)
        self._source_paddings()
        self._target_paddings()
        produced = self._produced()
        self._issues.raise_any()
        return Composition(
            source=self._source,
            target=self._target,
            moves=tuple(self._moves),
            fills=tuple(self._fills),
            checks=tuple(self._checks),
            zeros=tuple(self._zeros),
            notes=tuple(self._notes),
            produced=produced,
            consumed=frozenset(self._consumed),
        )

    # ---- weights

    def _weights(self, tensor: Tensor) -> None:
        held = self._held(tensor)
        tied_to = self._source.family.ties.get(tensor.id)
        tied = self._held(self._source.family.tensors[tied_to]) if tied_to else {}
        self._check_copies(held)
        self._check_tie(held, tied)
        supplied: set[IndexValue] = set()
        for place in self._target.places.get(("", tensor.id), ()):
            values = [value for value, rank in place.ranks.items() if self._is_made(place, rank)]
            supplied.update(values)
            self._supply(place, values, held, tied, tied_to)
        for value, place in held.items():
            if value not in supplied:
                self._left_over(tensor, value, place, tied_to)

    def _held(self, tensor: Tensor) -> dict[IndexValue, Place]:
        """Where the source has a tensor: places by index value, optional ones only if their arrays are present."""
        held: dict[IndexValue, Place] = {}
        for place in self._source.places.get(("", tensor.id), ()):
            for value, rank in place.ranks.items():
                if not place.form.optional or all(self._is_present(name) for name in place.names_of(rank)):
                    held[value] = place
                    self._consumed.update(place.names_of(rank))
        return held

    def _is_made(self, place: Place, rank: int) -> bool:
        return not place.form.optional or all(name in self._wanted for name in place.names_of(rank))

    def _is_present(self, name: str) -> bool:
        return all(stored.name in self._present for stored in self._source.arrays[name].stored)

    def _supply(
        self,
        place: Place,
        supplied: Iterable[IndexValue],
        held: Mapping[IndexValue, Place],
        tied: Mapping[IndexValue, Place],
        tied_to: str | None,
    ) -> None:
        """Gives a place of the target its values."""
        sources: dict[Place, list[IndexValue]] = {}
        for value in supplied:
            rank = place.ranks[value]
            origin = held.get(value) or tied.get(value)
            if origin is None:
                self._lacking(place, value)
                continue
            sources.setdefault(origin, []).append(value)
            if value not in held:
                for name in place.names_of(rank):
                    self._note("TIED", place.tensor.id, name, f"its values are those of '{tied_to}'")
        for origin, values in sources.items():
            self._add(transfer(origin, place).moves(values))

    def _add(self, moves: Iterable[Move]) -> None:
        for move in moves:
            self._moves.append(move)
            self._covered[move.target] = self._covered.get(move.target, 0) + move.elements

    def _lacking(self, place: Place, value: IndexValue) -> None:
        """What a place of the target gets that the source has nothing for."""
        tensor = place.tensor
        absence = self._source.absence(tensor.id, value)
        names = place.names_of(place.ranks[value])
        if absence is None or absence.refill == "REFUSE":
            why = f": {absence.reason}" if absence and absence.reason else ""
            where = f"has a place in '{self._target.format}', but '{self._source.format}' has none for it"
            text = f"'{tensor.id}' {where}{why}"
            self._issues.add(place.location, text, "absent")
        elif absence.refill == "OMIT":
            self._omitted.update(names)
            for name in names:
                self._note("ABSENT_IN_SOURCE", tensor.id, name, absence.reason)
        else:
            mean_of = self._mean_moves(absence, tensor, value) if absence.refill == "MEAN" else ()
            self._fill(absence.refill, tensor.id, transfer(logical_place(tensor), place).moves([value]), mean_of)
            for name in names:
                self._note("REFILLED", tensor.id, name, f"{absence.reason}; filled with {_REFILLS[absence.refill]}")

    def _fill(self, kind: str, tensor: str, moves: Iterable[Move], mean_of: tuple[Move, ...] = ()) -> None:
        fill = Fill(kind, tensor, tuple(moves), mean_of)
        self._fills.append(fill)
        for move in fill.moves:
            self._covered[move.target] = self._covered.get(move.target, 0) + move.elements

    def _mean_moves(self, absence: Absence, tensor: Tensor, value: IndexValue) -> tuple[Move, ...]:
        other = self._source.family.tensors.get(absence.mean_of)
        place = self._held(other).get(value) if other is not None else None
        if other is None or place is None or other.atoms[1:] != tensor.atoms[1:]:
            text = f"'{tensor.id}' cannot be the mean of '{absence.mean_of}': it has other axes, or is not there"
            raise MappingErrors.of(absence.location, text, "absent")
        return tuple(transfer(place, logical_place(other)).moves([value]))

    def _left_over(self, tensor: Tensor, value: IndexValue, place: Place, tied_to: str | None) -> None:
        """Accounts for a tensor of the source that the target does not get."""
        names = place.names_of(place.ranks[value])
        absence = self._target.absence(tensor.id, value)
        if any(value in optional.ranks for optional in self._target.places.get(("", tensor.id), ())):
            kind, reason = "OPTIONAL", f"'{self._target.format}' may have it and is written without it"
        elif absence is not None:
            kind, reason = "DROPPED", absence.reason
        elif tied_to is not None:
            kind, reason = "TIED", f"'{self._target.format}' holds it as '{tied_to}'"
        else:
            kind, reason = "DROPPED", f"'{self._target.format}' has no place for it"
        for name in names:
            self._note(kind, tensor.id, name, reason)
        if absence is not None and absence.must_be_zero:
            for move in transfer(place, logical_place(tensor)).moves([value]):
                self._zeros.append(ZeroCheck(tensor.id, absence.reason, move))

    def _note(self, kind: str, tensor: str, array: str, reason: str) -> None:
        self._notes[Note(kind, tensor, array, reason)] = None

    # ---- what the source must satisfy

    def _check_copies(self, held: Mapping[IndexValue, Place]) -> None:
        for place, values in _by_place(held).items():
            if len(place.copies) > 1:
                moves = transfer(place, place).moves(values, target_copies=place.copies[1:])
                self._checks += [EqualCheck("COPY", place.form.rule.copy_rule, move) for move in moves]

    def _check_tie(self, held: Mapping[IndexValue, Place], tied: Mapping[IndexValue, Place]) -> None:
        for value, place in held.items():
            if value in tied:
                moves = transfer(tied[value], place).moves([value], target_copies=(0,))
                self._checks += [EqualCheck("TIE", "EQUAL", move) for move in moves]

    # ---- training state

    def _mirror(self, mirror: str) -> None:
        state = mirror_source(self._source, mirror, self._present)
        if state is None:
            return
        self._consumed.update(state.arrays)
        if mirror not in self._target.mirrors:
            reason = f"'{self._target.format}' keeps no training state '{mirror}'"
            if state.missing:
                reason += f", which is incomplete: there is no '{state.missing[0]}'"
            self._note("DROPPED", f"{mirror}/*", state.arrays[0], reason)
            return
        state.check(mirror)
        for tensor in self._source.family.tensors.values():
            self._mirrored(mirror, tensor, state)

    def _mirrored(self, mirror: str, tensor: Tensor, state: MirrorSource) -> None:
        id = f"{mirror}/{tensor.id}"
        held = state.places.get(tensor.id, {})
        for place in self._target.places.get((mirror, tensor.id), ()):
            sources: dict[Place, list[IndexValue]] = {}
            for value, rank in place.ranks.items():
                origin = held.get(value)
                if origin is not None and state.ops_equal(tensor.id, value, self._target):
                    sources.setdefault(origin, []).append(value)
                    continue
                self._omitted.update(place.names_of(rank))
                if origin is None:
                    self._note("ABSENT_IN_SOURCE", id, place.names_of(rank)[0], f"there is no '{mirror}' of it")
                else:
                    reason = "training state of a weight with other operations cannot be restated"
                    self._note("DROPPED", id, origin.names_of(origin.ranks[value])[0], reason)
            for origin, values in sources.items():
                self._add(dataclasses.replace(move, tensor=id) for move in transfer(origin, place).moves(values))

    # ---- padding and what is made

    def _source_paddings(self) -> None:
        for name, shape, padding in _paddings(self._source):
            if name in self._consumed:
                self._zeros.append(ZeroCheck("", "it is padding", _padding_move(name, shape, padding)))

    def _target_paddings(self) -> None:
        for name, shape, padding in _paddings(self._target):
            if name in self._covered:
                self._fill("ZERO", "", [_reversed(_padding_move(name, shape, padding))])

    def _produced(self) -> tuple[str, ...]:
        produced: list[str] = []
        for name, array in self._target.arrays.items():
            covered = self._covered.get(name, 0)
            if not covered:
                continue
            volume = math.prod(array.shape)
            if covered != volume and name in self._omitted:
                why = "the source lacks others, which it says to omit"
                text = f"array '{name}' would get {covered} of {volume} elements; {why}"
                self._issues.add(array.location, text, "absent")
            elif covered != volume and not self._issues:
                raise AssertionError(f"array '{name}' gets {covered} of {volume} elements")
            produced.append(name)
        return tuple(produced)


_REFILLS = {"ZERO": "zeros", "ONE": "ones", "MEAN": "the mean of the others"}


def _by_place(held: Mapping[IndexValue, Place]) -> dict[Place, list[IndexValue]]:
    grouped: dict[Place, list[IndexValue]] = {}
    for value, place in held.items():
        grouped.setdefault(place, []).append(value)
    return grouped


def _paddings(layout: Layout) -> Iterable[tuple[str, tuple[int, ...], Padding]]:
    """Padding of each array of a layout: (array, shape, padding)."""
    seen: set[str] = set()
    for places in layout.places.values():
        for place in places:
            if place.form.paddings:
                for name in place.names:
                    if name not in seen:
                        seen.add(name)
                        yield from ((name, place.form.shape, padding) for padding in place.form.paddings)


def _padding_move(name: str, shape: tuple[int, ...], padding: Padding) -> Move:
    """From the padding of an array to nothing: a box with an axis for each of its digits."""
    counts = tuple(count for count, _, _ in padding.dims)
    dims = tuple(Dim(count, axis, weight, i, 1) for i, (count, axis, weight) in enumerate(padding.dims))
    return Move("", name, LOGICAL, shape, counts, padding.base, (0,) * len(counts), dims, (), ())


def _reversed(move: Move) -> Move:
    dims = tuple(Dim(d.count, d.target_axis, d.target_weight, d.source_axis, d.source_weight) for d in move.dims)
    return Move(
        move.tensor,
        move.target,
        move.source,
        move.target_shape,
        move.source_shape,
        move.target_base,
        move.source_base,
        dims,
        (),
        (),
    )
