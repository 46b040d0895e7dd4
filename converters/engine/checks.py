"""What a source must fulfil in its values: tied tensors and copies that are equal, padding that is zero."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from converters.engine import values
from converters.engine.gather import move_into
from converters.engine.plan import Box
from converters.engine.values import AnyArray
from converters.formats.base import Source
from mappings.language import regions
from mappings.language.composition import Composition, EqualCheck, ZeroCheck
from mappings.language.regions import Move
from reporting.diagnostics import Diagnostic

_SLAB = 32 << 20


def check(composition: Composition, source: Source) -> list[Diagnostic]:
    """Every tie, copy and padding that is not what it must be, with the first element that differs."""
    found = []
    for equal in composition.checks:
        difference = _first_difference(equal, source)
        if difference is not None:
            found.append(_unequal(equal, difference))
    for zero in composition.zeros:
        if not _is_zero(zero, source):
            reason = f"{zero.move.source} must be zero: {zero.reason}."
            found.append(Diagnostic("TENSOR_NOT_ZERO", reason, subject=zero.move.source))
    return found


def _first_difference(check: EqualCheck, source: Source) -> tuple[int, ...] | None:
    move = check.move
    second = source.tensors[move.target]
    for box in _slabs(regions.target_box(move), values.itemsize(second.dtype)):
        theirs = source.read(move.target, box)
        logical = values.decode(np.ascontiguousarray(theirs), move.target_ops, second.dtype)
        ours = np.array(logical)
        for part in regions.restrict(move, box):
            at = regions.source_box(part)
            read = source.read(part.source, at)
            undone = values.decode(np.ascontiguousarray(read), move.source_ops, second.dtype)
            move_into(ours, box, undone, at, part)
        bits = f"u{ours.dtype.itemsize}"
        wrong = np.argwhere(ours.view(bits) != np.ascontiguousarray(logical).view(bits))
        if wrong.size:
            return tuple(int(n) + start for n, (start, _) in zip(wrong[0], box, strict=True))
    return None


def _is_zero(check: ZeroCheck, source: Source) -> bool:
    move = check.move
    info = source.tensors[move.source]
    for box in _slabs(regions.source_box(move), values.itemsize(info.dtype)):
        region = source.read(move.source, box)
        mask = np.zeros(region.shape, bool)
        for part in _within(move, box):
            move_into(mask.view(np.uint8), box, _ones(part), regions.source_box(part), _onto_itself(part))
        if np.any(np.asarray(region)[mask].astype(np.float32) != 0):
            return False
    return True


def _within(move: Move, box: Box) -> list[Move]:
    return regions.restrict(_onto_itself(move), box)


def _onto_itself(move: Move) -> Move:
    """A move from the source region to the same place, so that `restrict` cuts by source boxes."""
    dims = tuple(
        dataclasses.replace(dim, target_axis=dim.source_axis, target_weight=dim.source_weight) for dim in move.dims
    )
    return dataclasses.replace(
        move, target=move.source, target_shape=move.source_shape, target_base=move.source_base, dims=dims
    )


def _ones(move: Move) -> AnyArray:
    return np.ones([stop - start for start, stop in regions.source_box(move)], np.uint8)


def _slabs(box: Box, itemsize: int) -> Iterator[Box]:
    """A box in ranges of its first axis, each of about the slab size."""
    if not box:
        yield box
        return
    row = max(1, math.prod(stop - start for start, stop in box[1:]) * itemsize)
    step = max(1, _SLAB // row)
    start, stop = box[0]
    for low in range(start, stop, step):
        yield ((low, min(low + step, stop)), *box[1:])


def _unequal(check: EqualCheck, where: tuple[int, ...]) -> Diagnostic:
    move = check.move
    id = "TIE_DOES_NOT_HOLD" if check.kind == "TIE" else "COPIES_DIFFER"
    if check.kind != "TIE" and check.rule == "FIRST":
        id = "COPIES_DIFFER_FIRST_TAKEN"
    reason = f"{move.target} must equal {move.source}, but differs at element {list(where)}."
    return Diagnostic(id, reason, subject=move.target)
