"""Chooses the dtypes of every array's path, and with them its exactness class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from converters.engine import values
from converters.engine.request import AUTO
from converters.engine.values import Operation, ValuePath
from reporting.diagnostics import RecastError


@dataclasses.dataclass(frozen=True)
class Precision:
    """What a run asks for.

    Attributes:
        dtype: of the output's weights, or `auto`.
        as_requested: dtype for dtype what the format's own tool writes, with one rounding.
        residue: keep, drop or refuse.
        original: with `auto`, the dtype of each original tensor by name; `default` for the others.
        default: dtype where nothing is recorded; empty for that of each tensor as it is stored.
        untouched: whether the source is, to the bit, what the conversion wrote that recorded how values were before,
            with everything that the way back needs.
    """

    dtype: str
    as_requested: bool = False
    residue: str = "keep"
    original: Mapping[str, str] = dataclasses.field(default_factory=dict)
    default: str = "float32"
    untouched: bool = False

    def of(self, target: str, stored: str = "float32") -> str:
        """The dtype that the run asks for in the array `target`, whose values are stored in the dtype `stored`.

        Raises:
            RecastError: RESIDUE_INVALID if a record names no weight's dtype.
        """
        if self.dtype != AUTO:
            return self.dtype
        recorded = self.original.get(target, self.default or stored)
        if recorded not in values.FLOAT_DTYPES:
            reason = f"The record says that {target} was of type {recorded}, which is not a weight's."
            raise RecastError.of("RESIDUE_INVALID", reason, subject=target)
        return recorded


def choose(
    *,
    target: str,
    source_dtype: str,
    source_ops: Sequence[Operation],
    target_ops: Sequence[Operation],
    recorded: str,
    keep_dtype: bool,
    peer_dtype: str,
    precision: Precision,
) -> ValuePath:
    """The path of one array.

    Args:
        target: name of the array in the output.
        source_dtype: as stored.
        source_ops: operations to undo; empty when they cancel with the target's.
        target_ops: operations to apply.
        recorded: dtype of the values before the source's operations, from the record of the conversion; or empty.
        keep_dtype: whether the tensor keeps the source's dtype, unless the run asks for what the format's tool does.
        peer_dtype: dtype that the format's own tool writes, or empty for the run's.
        precision: what the run asks for.
    """
    asked = source_dtype if keep_dtype and not precision.as_requested else precision.of(target, source_dtype)
    if source_ops:
        return _undoing(source_dtype, asked, tuple(source_ops), tuple(target_ops), recorded, precision.untouched)
    if not target_ops:
        asked = peer_dtype if peer_dtype and precision.as_requested else asked
        exactness = "EXACT" if values.widens(source_dtype, asked) else "ROUNDING"
        return ValuePath(source_dtype, asked, asked, exactness=exactness)
    if precision.as_requested:
        return _as_the_peer(source_dtype, peer_dtype or asked, tuple(target_ops), precision.residue)
    return _invertible(source_dtype, asked, tuple(target_ops), precision.residue)


def _undoing(
    source_dtype: str,
    asked: str,
    source_ops: tuple[Operation, ...],
    target_ops: tuple[Operation, ...],
    recorded: str,
    untouched: bool,
) -> ValuePath:
    """The way back: to what is recorded; in float32 where the output, or its constants, could show more than that."""
    each = recorded and values.is_narrow(recorded) and (asked != recorded or target_ops)
    logical = "float32" if each else recorded or asked
    comes_back = untouched and recorded and values.widens(recorded, asked) and not target_ops
    exactness = "EXACT" if comes_back else "ROUNDING"
    return ValuePath(source_dtype, logical, asked, source_ops, target_ops, exactness, recorded_dtype=recorded)


def _as_the_peer(source_dtype: str, stored: str, ops: tuple[Operation, ...], residue: str) -> ValuePath:
    look = residue != "drop"
    return ValuePath(source_dtype, source_dtype, stored, (), ops, "INVERTIBLE" if look else "ROUNDING", look)


def _invertible(source_dtype: str, asked: str, ops: tuple[Operation, ...], residue: str) -> ValuePath:
    """The run's dtype for the value, float32 for the product unless the factor is a power of two."""
    exponents_only = all(values.is_power_of_two(op) for op in ops)
    stored = "float32" if values.is_narrow(asked) and not exponents_only else asked
    rounding = not values.widens(source_dtype, asked) or residue == "drop"
    return ValuePath(source_dtype, asked, stored, (), ops, "ROUNDING" if rounding else "INVERTIBLE", residue != "drop")
