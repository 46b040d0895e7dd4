"""The plan by which one checkpoint's values are made again beside another's, region by region.

Chunks of both sides are decoded once where the memory budget allows: a unit covers whole chunks of both, or units take
their turn at a large chunk of the second side. Where it does not, the plan counts what is decoded again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

from converters.engine import comparison_grids, grids, grouping, planning, values
from converters.engine import plan as plan_lib
from converters.engine.binding import Sides
from converters.engine.drivers import driver_of
from converters.engine.pairing import Checkpoint
from converters.engine.plan import ArrayPlan, Group, Plan, Sizes, Unit
from converters.engine.precision import Precision
from converters.engine.request import AUTO
from converters.engine.values import ValuePath
from converters.formats.base import Source, piece_of
from mappings.language.regions import Dim, Move

_BOX_LIMIT = 16 << 20
# A unit is at most this part of the budget for each thread, where chunks are not larger.
_UNITS_IN_BUDGET = 8

PathOf = Callable[[ArrayPlan], ValuePath]
"""The path that an array's values shall take, from what a conversion would choose."""


def mapped(
    sides: Sides, first: Checkpoint, second: Checkpoint, path_of: PathOf, default: str, threads: int, budget: int
) -> Plan:
    """The plan for two layouts of one family, in the second side's dtypes.

    Args:
        sides: the layouts and the moves from the first to the second.
        first: the side that is read as in a conversion.
        second: the side that it is compared with.
        path_of: chooses each array's path.
        default: dtype for arrays that the second side lacks.
        threads: how many regions are made at a time.
        budget: bytes of buffers.

    Raises:
        RecastError: what no conversion supports.
    """
    ours, theirs = first.opened.source, second.opened.source
    dtypes = {name: info.dtype for name, info in theirs.tensors.items() if info.dtype in values.FLOAT_DTYPES}
    precision = Precision(dtype=AUTO, residue="drop", original=dtypes, default=default)
    grid = planning.Grid(driver_of(second.format).free_grid, threads, budget)
    arrays = []
    for array in planning.arrays_of(sides, ours, precision, first.logical_dtypes, grid).values():
        path = path_of(array)
        arrays.append(
            dataclasses.replace(array, info=dataclasses.replace(array.info, dtype=path.target_dtype), path=path)
        )
    return between(arrays, ours, theirs, threads, budget)


def identical(names: Sequence[str], first: Source, second: Source, threads: int, budget: int) -> Plan:
    """The plan for arrays that both sides hold by the same name and shape: each is read as it is stored."""
    arrays = []
    for name in names:
        info = first.tensors[name]
        box = comparison_grids.grown(
            info.shape, first.chunk(name), values.itemsize(info.dtype), _limit(threads, budget)
        )
        path = ValuePath(info.dtype, info.dtype, info.dtype)
        arrays.append(ArrayPlan(info, box, path, (_itself(name, info.shape),), planning.read_bytes_of(first, name)))
    return between(arrays, first, second, threads, budget)


def check_memory(plan: Plan, budget: int) -> None:
    """Refuses to compare where the smallest unit exceeds the budget.

    Raises:
        RecastError: MEMORY_PLAN.
    """
    planning.check_memory(plan, planning.Grid(False, plan.threads, budget))


def lines(plan: Plan) -> list[str]:
    """What comparing takes, in words."""
    out = [f"buffers of at most {plan.peak_bytes} bytes, {plan.threads} threads"]
    if plan.amplification > 1:
        out.append(
            f"{plan.bytes_decoded} bytes to decode, {plan.amplification:.2f} times those read: the chunks are too "
            "large for the memory budget"
        )
    return out


@dataclasses.dataclass(frozen=True)
class _Cut:
    """How an array is cut.

    Attributes:
        box: sizes of its units.
        read_bytes: what one read of either side holds.
        chunk: sizes of the second side's chunks, None where it has none.
        in_turn: whether units of one such chunk are made one after the other while it is held.
    """

    box: Sizes
    read_bytes: int
    chunk: Sizes | None = None
    in_turn: bool = False


def between(arrays: Iterable[ArrayPlan], first: Source, second: Source, threads: int, budget: int) -> Plan:
    """The plan for arrays that a conversion's units fill, with units that suit the second side's chunks too."""
    cutter = _Cutter(first, second, _limit(threads, budget), budget)
    cuts: dict[str, _Cut] = {}
    fitted: dict[str, ArrayPlan] = {}
    for array in arrays:
        cut = cuts[array.info.name] = cutter.cut(array)
        fitted[array.info.name] = dataclasses.replace(array, chunk=cut.box, read_bytes=cut.read_bytes)
    plan = planning.assembled(fitted, first, planning.Grid(False, threads, budget))
    sharing = {unit.array.info.name for group in plan.shared for unit in group.units}
    turns: list[Group] = []
    read = decoded = 0
    for name, cut in cuts.items():
        if name not in second.tensors:
            continue
        info = second.tensors[name]
        itemsize = values.itemsize(info.dtype)
        size = math.prod(info.shape) * itemsize
        read += size
        if cut.in_turn and cut.chunk is not None and name not in sharing:
            turns.extend(_turns(fitted[name], cut.chunk))
            decoded += size
        else:
            decoded += comparison_grids.decoded(info.shape, cut.chunk, cut.box, itemsize) if cut.chunk else size
    return dataclasses.replace(
        plan,
        bytes_in=plan.bytes_in + read,
        bytes_decoded=plan.bytes_decoded + decoded,
        shared=(*plan.shared, *turns),
    )


class _Cutter:
    """Chooses the units of each array; those of arrays that lie alike are chosen once."""

    def __init__(self, first: Source, second: Source, limit: int, budget: int):
        self._first = first
        self._second = second
        self._limit = limit
        self._budget = budget
        self._found: dict[object, _Cut] = {}

    def cut(self, array: ArrayPlan) -> _Cut:
        """The units of an array whose chunk is what a conversion would choose."""
        info = self._second.tensors.get(array.info.name)
        if info is None or info.shape != array.info.shape:
            return _Cut(array.chunk, array.read_bytes)
        stored = self._second.chunk(info.name)
        if not stored:
            piece = piece_of(self._second, info.name) or (0,)
            return _Cut(array.chunk, max(array.read_bytes, math.prod(piece) * values.itemsize(info.dtype)))
        chunk = tuple(max(1, min(size, n)) for size, n in zip(stored, info.shape, strict=True))
        seen = grids.seen_by_cuts(array.moves, self._first.chunk)
        alike = (info.shape, info.dtype, chunk, array.chunk, array.path, array.read_bytes, seen)
        if alike not in self._found:
            self._found[alike] = self._cut(array, chunk, math.prod(chunk) * values.itemsize(info.dtype))
        return self._found[alike]

    def _cut(self, array: ArrayPlan, chunk: Sizes, chunk_bytes: int) -> _Cut:
        shape, itemsize = array.info.shape, values.itemsize(array.info.dtype)
        step = grids.cuts(shape, array.moves, self._first.chunk)
        turns = self._in_turn(array, chunk, chunk_bytes, step)
        for turn in turns:
            if self._needs(array, turn) <= self._budget:
                return turn
        read = max(array.read_bytes, _reading(chunk_bytes))
        joint = tuple(min(math.lcm(a, b), max(n, 1)) for a, b, n in zip(step, chunk, shape, strict=True))
        best = _Cut(comparison_grids.grown(shape, joint, itemsize, self._limit), read, chunk)
        if self._needs(array, best) <= self._budget:
            return best
        # One side is decoded more than once: whichever costs less. The last resort: ranges for which there is room.
        rest = self._room(array, read) or self._limit
        boxes = (
            comparison_grids.grown(shape, chunk, itemsize, self._limit),
            array.chunk,
            comparison_grids.grown(shape, step, itemsize, self._limit),
            comparison_grids.grown(shape, None, itemsize, rest),
        )
        others = [_Cut(box, read, chunk) for box in boxes]
        fitting = [other for other in others if self._needs(array, other) <= self._budget]
        if fitting:
            return min(fitting, key=lambda cut: self._decoded(array, cut))
        return min((*turns, best, *others), key=lambda cut: self._needs(array, cut))

    def _in_turn(self, array: ArrayPlan, chunk: Sizes, chunk_bytes: int, step: Sizes) -> list[_Cut]:
        """Pieces of a large chunk of the second side, where none of them shares a chunk of the first; best first."""
        shape, itemsize = array.info.shape, values.itemsize(array.info.dtype)
        nested = all(size % least == 0 or size >= n for size, least, n in zip(chunk, step, shape, strict=True))
        if math.prod(chunk) * itemsize <= self._limit or not nested or self._sharing(array) > 1:
            return []
        # While a piece is read, the chunk is held.
        read = max(_reading(chunk_bytes), array.read_bytes + -(-chunk_bytes // 2))
        limit = min(self._limit, self._room(array, read) or self._limit)
        boxes = [comparison_grids.pieces(shape, chunk, step, itemsize, part) for part in (limit, -(-limit // 4))]
        return [_Cut(box, read, chunk, in_turn=True) for box in boxes if box != chunk]

    def _sharing(self, array: ArrayPlan) -> int:
        return grids.sharing(array.moves, self._first.chunk)

    def _needs(self, array: ArrayPlan, cut: _Cut) -> int:
        """Bytes of buffers of a unit and of those that are made together with it."""
        return math.prod(cut.box) * self._width(array) + 2 * cut.read_bytes

    def _room(self, array: ArrayPlan, read_bytes: int) -> int:
        """Bytes of a unit, as stored, for which the budget has room beside the reads; 0 where it has none."""
        elements = max(self._budget - 2 * read_bytes, 0) // self._width(array)
        return elements * values.itemsize(array.info.dtype)

    def _width(self, array: ArrayPlan) -> int:
        """Bytes of buffers for each element of a unit."""
        return plan_lib.gathered_width(array.path) * (self._sharing(array) - 1) + sum(plan_lib.widths(array.path))

    def _decoded(self, array: ArrayPlan, cut: _Cut) -> int:
        fitted = dataclasses.replace(array, chunk=cut.box, read_bytes=cut.read_bytes)
        ours = grouping.groups({array.info.name: fitted}, self._first, self._budget)[1]
        width = values.itemsize(self._second.tensors[array.info.name].dtype)
        return ours + comparison_grids.decoded(array.info.shape, cut.chunk or cut.box, cut.box, width)


def _turns(array: ArrayPlan, chunk: Sizes) -> list[Group]:
    """The units of an array, in groups that lie in one chunk of the second side."""
    found: dict[Sizes, list[Unit]] = {}
    for unit in array.units():
        found.setdefault(tuple(start // size for (start, _), size in zip(unit.box, chunk, strict=True)), []).append(
            unit
        )
    return [Group(tuple(units), in_turn=True) for units in found.values()]


def _reading(chunk_bytes: int) -> int:
    """What one read of a chunk of the second side counts for; a unit counts all reads twice.

    The chunk as it is stored, as it is decoded, and as it is given: buffers of the last kind are used again and never
    fresh, and no unit counts them as it does those that it fills from the first side.
    """
    return -(-3 * chunk_bytes // 2)


def _limit(threads: int, budget: int) -> int:
    return max(1, min(_BOX_LIMIT, budget // (_UNITS_IN_BUDGET * threads)))


def _itself(name: str, shape: Sizes) -> Move:
    dims = tuple(Dim(size, axis, 1, axis, 1) for axis, size in enumerate(shape))
    base = (0,) * len(shape)
    return Move(name, name, name, shape, shape, base, base, dims, (), ())
