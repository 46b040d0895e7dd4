"""What a composition says besides its moves: notes, checks of the source, and values that no source array has."""

from __future__ import annotations

import dataclasses

from mappings.language.regions import Move


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    """What happens to a tensor besides being moved.

    Attributes:
        kind: one of
            DROPPED           the target does not keep it;
            TIED              it is another tensor: taken from there, or held there;
            REFILLED          the source does not keep it, the target gets values that the layout states;
            ABSENT_IN_SOURCE  the source does not keep it, and the target's array is not made;
            OPTIONAL          the source has it, the target does not get it.
        tensor: the tensor's id.
        array: the array concerned, of the source for DROPPED and OPTIONAL, else of the target.
        reason: why, in words for a report.
    """

    kind: str
    tensor: str
    array: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class EqualCheck:
    """Two regions of the source that must hold equal values.

    Attributes:
        kind: "TIE" or "COPY".
        rule: "EQUAL" if a difference is an error, "FIRST" if the first region counts and differences are reported.
        move: from the first region to the second; both are arrays of the source. Bytes are equal unless the move
            has operations, which differ on the two sides of a tie.
    """

    kind: str
    rule: str
    move: Move


@dataclasses.dataclass(frozen=True, slots=True)
class ZeroCheck:
    """A region of the source that must hold zeros only: padding, or a tensor that is dropped only if it is zero.

    Attributes:
        tensor: the tensor's id, "" for padding.
        reason: why it must be zero.
        move: its source side is the region; the target is no array.
    """

    tensor: str
    reason: str
    move: Move


@dataclasses.dataclass(frozen=True, slots=True)
class Fill:
    """Values of a target that no source array has.

    Attributes:
        kind: "ZERO", "ONE" or "MEAN".
        tensor: the tensor's id, "" for padding.
        moves: from the logical tensor (of one index value, named "") to target arrays, with the target's operations.
        mean_of: for MEAN, moves from source arrays to the logical tensor (named "") whose mean over its first axis
            stands for each element of that axis; with the source's operations to undo.
    """

    kind: str
    tensor: str
    moves: tuple[Move, ...]
    mean_of: tuple[Move, ...] = ()
