"""Moves: strided copies between two arrays; their normal form, and their parts that fill a box of the target."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

from mappings.language.arrays import BoundOp

Box = tuple[tuple[int, int], ...]
"""A box of an array: (start, stop) for each axis."""


@dataclasses.dataclass(frozen=True, slots=True)
class Dim:
    """One loop of a move: element i adds i * weight to the index on one axis of each side.

    Attributes:
        count: number of elements.
        source_axis: the axis of the source array.
        source_weight: what one step adds to the index there.
        target_axis: the axis of the target array.
        target_weight: what one step adds to the index there.
    """

    count: int
    source_axis: int
    source_weight: int
    target_axis: int
    target_weight: int


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """Elements of one array that become elements of another: all combinations of the dims, from two base indices.

    Attributes:
        tensor: id of the logical tensor that moves.
        source: full name of the array it comes from.
        target: full name of the array it goes to.
        source_shape: the source array's shape.
        target_shape: the target array's shape.
        source_base: index of the first element in the source.
        target_base: index of the first element in the target.
        dims: the loops, in no particular order.
        source_ops: operations between logical and source values, to be undone, last first; () where they cancel.
        target_ops: operations between logical and target values, first to last; () where they cancel.
    """

    tensor: str
    source: str
    target: str
    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    source_base: tuple[int, ...]
    target_base: tuple[int, ...]
    dims: tuple[Dim, ...]
    source_ops: tuple[BoundOp, ...]
    target_ops: tuple[BoundOp, ...]

    @property
    def elements(self) -> int:
        """Number of elements that move."""
        total = 1
        for dim in self.dims:
            total *= dim.count
        return total


@dataclasses.dataclass(frozen=True, slots=True)
class NormalForm:
    """A move in strides of row-major arrays, with the fewest dimensions, major in the target first.

    Attributes:
        source_offset: position of the first element in the flat source array.
        target_offset: position of the first element in the flat target array.
        dims: (count, source stride, target stride), in elements.
    """

    source_offset: int
    target_offset: int
    dims: tuple[tuple[int, int, int], ...]


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a C-contiguous array, in elements."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)


def normal_form(move: Move) -> NormalForm:
    """The move as nested strides: sorted by target stride, counts of 1 dropped, neighbours fused.

    Neighbours fuse if the outer stride is count times the inner stride on both sides. For the given order no form
    has fewer dimensions, so the innermost runs are the longest there are.
    """
    source, target = row_major(move.source_shape), row_major(move.target_shape)
    strided = sorted(
        (
            (dim.count, source[dim.source_axis] * dim.source_weight, target[dim.target_axis] * dim.target_weight)
            for dim in move.dims
            if dim.count > 1
        ),
        key=lambda dim: dim[2],
        reverse=True,
    )
    fused: list[tuple[int, int, int]] = []
    for count, source_stride, target_stride in strided:
        if fused and fused[-1][1] == count * source_stride and fused[-1][2] == count * target_stride:
            fused[-1] = (fused[-1][0] * count, source_stride, target_stride)
        else:
            fused.append((count, source_stride, target_stride))
    return NormalForm(
        source_offset=sum(base * stride for base, stride in zip(move.source_base, source, strict=True)),
        target_offset=sum(base * stride for base, stride in zip(move.target_base, target, strict=True)),
        dims=tuple(fused),
    )


def source_box(move: Move) -> Box:
    """The smallest box of the source array that holds all elements of the move."""
    stops = [base + 1 for base in move.source_base]
    for dim in move.dims:
        stops[dim.source_axis] += (dim.count - 1) * dim.source_weight
    return tuple(zip(move.source_base, stops, strict=True))


def target_box(move: Move) -> Box:
    """The smallest box of the target array that holds all elements of the move."""
    stops = [base + 1 for base in move.target_base]
    for dim in move.dims:
        stops[dim.target_axis] += (dim.count - 1) * dim.target_weight
    return tuple(zip(move.target_base, stops, strict=True))


def restrict(move: Move, box: Box) -> list[Move]:
    """The parts of a move that fill a box of its target array; disjoint, together all elements in the box.

    On each axis the interval is cut into boxes of that axis' digits: a first partial digit, full ones, a last
    partial digit, and so on inside the partial ones; at most 2k - 1 for k digits.
    """
    dims = move.dims
    per_axis: list[list[tuple[tuple[int, _Range], ...]]] = []
    for axis, (start, stop) in enumerate(box):
        here = sorted(
            (i for i, dim in enumerate(dims) if dim.target_axis == axis), key=lambda i: -dims[i].target_weight
        )
        base = move.target_base[axis]
        digits = [(dims[i].count, dims[i].target_weight) for i in here]
        cuts = _digit_boxes(digits, start - base, stop - base)
        if not cuts:
            return []
        per_axis.append([tuple(zip(here, cut, strict=True)) for cut in cuts])
    if all(len(cuts) == 1 for cuts in per_axis) and all(
        low == 0 and high == dims[i].count for cuts in per_axis for i, (low, high) in cuts[0]
    ):
        return [move]
    return [_part(move, dict(itertools.chain(*choice))) for choice in itertools.product(*per_axis)]


_Range = tuple[int, int]


def _part(move: Move, ranges: dict[int, _Range]) -> Move:
    source_base, target_base = list(move.source_base), list(move.target_base)
    dims: list[Dim] = []
    for i, dim in enumerate(move.dims):
        low, high = ranges[i]
        source_base[dim.source_axis] += low * dim.source_weight
        target_base[dim.target_axis] += low * dim.target_weight
        if high - low > 1:
            dims.append(Dim(high - low, dim.source_axis, dim.source_weight, dim.target_axis, dim.target_weight))
    # Spelled out: `dataclasses.replace` takes three times as long, and plans of many experts do this a million times.
    return Move(
        move.tensor,
        move.source,
        move.target,
        move.source_shape,
        move.target_shape,
        tuple(source_base),
        tuple(target_base),
        tuple(dims),
        move.source_ops,
        move.target_ops,
    )


def _digit_boxes(digits: list[tuple[int, int]], start: int, stop: int) -> list[tuple[_Range, ...]]:
    """Boxes of digits with sum(digit * weight) in [start, stop); digits are (count, weight), major first."""
    if not digits:
        return [()] if start <= 0 < stop else []
    (count, weight), rest = digits[0], digits[1:]
    full = tuple((0, size) for size, _ in rest)
    span = 1 + sum((size - 1) * inner for size, inner in rest)
    first = max(0, -((span - 1 - start) // weight))
    last = min(count - 1, (stop - 1) // weight)
    if first > last:
        return []
    # Digit values whose whole span lies inside form one box; at most one before and one after lie in part.
    low = max(first, -(-start // weight))
    high = min(last, (stop - span) // weight)
    boxes: list[tuple[_Range, ...]] = []

    def cut(values: range) -> None:
        for value in values:
            inner = _digit_boxes(rest, start - value * weight, stop - value * weight)
            boxes.extend(((value, value + 1), *box) for box in inner)

    cut(range(first, min(low, last + 1)))
    if low <= high:
        boxes.append(((low, high + 1), *full))
    cut(range(max(low, high + 1), last + 1))
    return boxes
