"""What a bound layout says of one array."""

from __future__ import annotations

import dataclasses

from mappings.language.codecs import BoundCodec, StoredArray

PART_MARK = "|"
"""Stands between part and name in the full name of an array whose layout has parts."""


@dataclasses.dataclass(frozen=True, slots=True)
class BoundOp:
    """One value operation, evaluated: stored = op(logical).

    Attributes:
        kind: "scale" (times value) or "add" (plus value).
        value: the factor of ** (half_powers / 2), or the addend.
        factor_dtype: dtype to which the factor is rounded first, "" for none.
    """

    kind: str
    value: float
    factor_dtype: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Array:
    """One array of a layout.

    Attributes:
        name: its name in its part.
        part: the file or shard that holds it; "" where the layout has no parts.
        shape: its logical shape; that of its values where a codec stores it.
        tensors: ids of the logical tensors in it.
        optional: a source may lack it, and a target does not get it.
        keep_dtype: the source's dtype is kept whatever a run asks for.
        ops: from logical to stored values, first to last.
        peer_dtype: the dtype that the format's own tool writes where it differs from the run's, else "".
        mirror: the training state it belongs to; "" for weights.
        stack_axes: positions of stacked axes.
        location: "file:line" of its rule.
        codec: how it is stored when not as plain numbers.
    """

    name: str
    part: str
    shape: tuple[int, ...]
    tensors: tuple[str, ...]
    optional: bool
    keep_dtype: bool
    ops: tuple[BoundOp, ...]
    peer_dtype: str
    mirror: str
    stack_axes: tuple[int, ...]
    location: str
    codec: BoundCodec | None

    @property
    def key(self) -> str:
        """Its full name, under which the layout and moves know it: "part|name", or the name without parts."""
        return full_name(self.part, self.name)

    @property
    def stored(self) -> tuple[StoredArray, ...]:
        """The physical arrays that hold it: itself, unless a codec stores it."""
        if self.codec is None:
            return (StoredArray("values", self.key, self.shape, ""),)
        return self.codec.stored(self.key, self.shape)


def full_name(part: str, name: str) -> str:
    """The name by which a layout knows an array."""
    return f"{part}{PART_MARK}{name}" if part else name
