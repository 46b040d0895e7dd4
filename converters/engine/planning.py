"""Makes the plan: dtypes and exactness of every array, the grid of its units, and what they need of memory."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from converters.engine import grids, grouping, values
from converters.engine import plan as plan_lib
from converters.engine import precision as precision_lib
from converters.engine.binding import Sides
from converters.engine.plan import ArrayPlan, Plan, Sizes
from converters.engine.precision import Precision
from converters.engine.values import ValuePath
from converters.formats.base import Source, TensorInfo, exactness_of, piece_of
from converters.quantized.forms import Form
from mappings.language.arrays import Array
from mappings.language.keeping import is_kept
from mappings.language.regions import Move
from reporting.diagnostics import Diagnostic, RecastError, raise_all

# Half the size makes a third more chunks to open on a pod; four times the size costs memory and no time.
_CHUNK_LIMIT = 16 << 20
# Longer ranges are not written faster. Where a range takes parts of rows, longer parts are.
_SLAB_LIMIT = 32 << 20
_COLUMNS_LIMIT = 128 << 20
_SMALLEST_UNIT = 1 << 20
# A chunk is at most this part of the budget, so that the usual budgets all make the same grid.
_CHUNKS_IN_BUDGET = 8
# A chunk of the source that is at most so many times the size of ours is kept, where cutting it would cost decoding.
_LARGEST_TAKEN_OVER = 4


@dataclasses.dataclass(frozen=True)
class Grid:
    """How a target wants its arrays cut.

    Attributes:
        free: whether any grid of chunks will do (Orbax); else units are contiguous ranges (safetensors).
        threads: how many units are worked on at a time.
        budget: bytes of buffers.
        fixed: sizes of units that an interrupted run of the same request chose, by array; the others are chosen anew.
        form: the arrays that are encoded, and what their units must be for that.
    """

    free: bool
    threads: int
    budget: int
    fixed: Mapping[str, Sizes] = dataclasses.field(default_factory=dict)
    form: Form | None = None


def make(sides: Sides, source: Source, precision: Precision, recorded: Mapping[str, str], grid: Grid) -> Plan:
    """The plan of a conversion.

    Args:
        sides: the bound layouts and the moves between them.
        source: the opened source; its headers and chunks.
        precision: what the run asks for.
        recorded: dtype of the values before the source's operations, by source array.
        grid: how the target is cut.

    Raises:
        RecastError: MEMORY_PLAN if even the smallest units do not fit the budget.
    """
    plan = assembled(arrays_of(sides, source, precision, recorded, grid), source, grid)
    check_memory(plan, grid)
    return plan


def arrays_of(
    sides: Sides, source: Source, precision: Precision, recorded: Mapping[str, str], grid: Grid
) -> dict[str, ArrayPlan]:
    """The plan of each array; what `make` takes, whatever fits the budget."""
    _refuse_unsupported(sides)
    by_target: dict[str, list[Move]] = defaultdict(list)
    for move in sides.composition.moves:
        by_target[move.target].append(move)
    maker = _Maker(sides, source, precision, recorded, grid)
    return {name: maker.array(name, by_target.get(name, [])) for name in sides.composition.produced}


def assembled(arrays: Mapping[str, ArrayPlan], source: Source, grid: Grid) -> Plan:
    """The plan for arrays: which of their units are made together, and what that needs."""
    shared, decoded = grouping.groups(arrays, source, grid.budget)
    singles = (array.unit_bytes for array in arrays.values())
    largest = max((*singles, *(group.bytes for group in shared)), default=0)
    read = {move.source for array in arrays.values() for move in array.moves}
    return Plan(
        arrays=arrays,
        bytes_in=sum(_bytes(source.tensors[name]) for name in read),
        bytes_out=sum(array.bytes for array in arrays.values()),
        threads=max(1, grid.threads),
        peak_bytes=min(grid.budget, grid.threads * largest),
        bytes_decoded=decoded,
        shared=shared,
    )


def check_memory(plan: Plan, grid: Grid) -> None:
    """Refuses a plan of which one unit alone exceeds the budget.

    Raises:
        RecastError: MEMORY_PLAN.
    """
    if max((array.unit_bytes for array in plan.arrays.values()), default=0) > grid.budget:
        raise _too_large(plan.arrays.values(), grid)


def check_exactness(plan: Plan, precision: Precision) -> None:
    """Refuses paths that are neither EXACT nor INVERTIBLE.

    Args:
        plan: what would be done.
        precision: what the run asks for.

    Raises:
        RecastError: EXACTNESS_NOT_MET, one diagnostic for each array.
    """
    raise_all(
        [
            Diagnostic(
                "EXACTNESS_NOT_MET",
                f"{array.info.name} would be {array.path.exactness}: {_how(array.path)}.",
                suggestion=_cure(array.path, precision),
                subject=array.info.name,
            )
            for array in plan.arrays.values()
            if array.path.exactness not in ("EXACT", "INVERTIBLE")
        ]
    )


def _how(path: ValuePath) -> str:
    """What happens to the values of an array."""
    if path.exactness == "LOSSY":
        return f"{path.target_dtype} encoded in fewer bits"
    if _folds(path):
        return f"a constant changes its values, and what {path.target_dtype} rounds of them is not kept"
    if _undoes(path):
        if path.recorded_dtype:
            return "a constant is taken out of its values, which may have changed since they were written"
        return "a constant is taken out of its values, and nothing records in which dtype they were before"
    if not path.source_ops and values.widens(path.source_dtype, path.logical_dtype):
        return f"decoded from codes, and rounded to {path.source_dtype}"
    return f"{path.source_dtype} rounded to {path.logical_dtype if path.target_ops else path.target_dtype}"


def _undoes(path: ValuePath) -> bool:
    """Whether an array is rounded for nothing but the constant that is taken out of its values."""
    return bool(path.source_ops) and values.widens(path.recorded_dtype or path.logical_dtype, path.target_dtype)


def _folds(path: ValuePath) -> bool:
    """Whether an array is rounded for nothing but the constant that changes its values."""
    changed = bool(path.target_ops) and not path.source_ops and not path.residue
    return changed and values.widens(path.source_dtype, path.logical_dtype)


def _cure(path: ValuePath, precision: Precision) -> str:
    """What makes an array exact; empty for the usual: a wider dtype."""
    if path.exactness == "LOSSY":
        return "Leave --require_exact or --requantize out."
    if not _folds(path):
        widest = (path.recorded_dtype or path.logical_dtype) == "float32"
        return "Leave --require_exact out." if _undoes(path) or widest else ""
    other = ", or --exactness=invertible without --residue=drop" if precision.as_requested else ""
    return f"Leave --require_exact out, or pass --residue=keep{other}."


def _refuse_unsupported(sides: Sides) -> None:
    """Codecs and means are declared by the language, but not executed yet."""
    coded = [
        name
        for layout in (sides.source, sides.target)
        for name, array in layout.arrays.items()
        if array.codec is not None and not array.mirror
    ]
    found = [Diagnostic("NOT_SUPPORTED_YET", f"{name} is stored by a codec.", subject=name) for name in coded]
    found += [
        Diagnostic("NOT_SUPPORTED_YET", f"{fill.tensor} would be filled with a mean.", subject=fill.tensor)
        for fill in sides.composition.fills
        if fill.kind == "MEAN"
    ]
    raise_all(found)


class _Maker:
    """Makes the plan of each array; the units of arrays that lie alike in their sources are computed once."""

    def __init__(self, sides: Sides, source: Source, precision: Precision, recorded: Mapping[str, str], grid: Grid):
        self._sides = sides
        self._source = source
        self._precision = precision
        self._recorded = recorded
        self._grid = grid
        self._boxes: dict[object, Sizes] = {}
        self._ones: dict[str, list[Move]] = defaultdict(list)
        for fill in sides.composition.fills:
            for move in fill.moves if fill.kind == "ONE" else ():
                self._ones[move.target].append(move)

    def array(self, name: str, moves: Sequence[Move]) -> ArrayPlan:
        """The plan of one array, from the moves that fill it."""
        source, spec = self._source, self._sides.target.arrays[name]
        path = path_of(name, moves, self._sides, source.tensors, self._precision, self._recorded)
        reads = {move.source for move in moves}
        if any(exactness_of(source, read) != "EXACT" for read in reads):
            path = dataclasses.replace(path, exactness=values.worse(path.exactness, "ROUNDING"))
        read_bytes = max((read_bytes_of(source, read) for read in reads), default=0)
        chunk = _fixed(self._grid.fixed.get(name), spec.shape)
        if chunk is None:
            alike = (
                spec.shape,
                spec.stack_axes,
                is_kept(name),
                path,
                read_bytes,
                grids.seen_by_cuts(moves, source.chunk),
            )
            if alike not in self._boxes:
                self._boxes[alike] = _box(spec, path, moves, source, read_bytes, self._grid)
            chunk = self._boxes[alike]
        form = self._grid.form
        if form is not None and name in form.names:
            room = 0 if name in self._grid.fixed else _room(path, read_bytes, form, self._grid)
            chunk = form.units(chunk, spec.shape, room)
            path = dataclasses.replace(path, exactness=values.worse(path.exactness, "LOSSY"))
            # Half of the codes of a unit, and of the temporaries: a unit counts all reads twice.
            read_bytes += math.prod(chunk) // 2 + form.encoding_bytes // 2
        info = TensorInfo(name, spec.shape, path.target_dtype)
        return ArrayPlan(info, chunk, path, tuple(moves), read_bytes, tuple(self._ones.get(name, ())))


def _room(path: ValuePath, read_bytes: int, form: Form, grid: Grid) -> int:
    """Elements of which a unit may have at most, to be encoded within a thread's share of the budget."""
    share = grid.budget // max(grid.threads, 1) - 2 * read_bytes - form.encoding_bytes
    return max(share, 0) // (sum(plan_lib.widths(path)) + 1)


def _fixed(sizes: Sizes | None, shape: Sizes) -> Sizes | None:
    """The sizes that an earlier run chose, if they are some for this shape."""
    if sizes is None or len(sizes) != len(shape):
        return None
    return sizes if all(1 <= size <= max(n, 1) for size, n in zip(sizes, shape, strict=True)) else None


def _box(
    spec: Array, path: ValuePath, moves: Sequence[Move], source: Source, read_bytes: int, grid: Grid
) -> tuple[int, ...]:
    """The size of an array's units: chunks of a free grid, or slabs of a file."""
    itemsize = values.itemsize(path.target_dtype)
    aligned = grids.cuts(spec.shape, moves, source.chunk)
    gathered = plan_lib.gathered_width(path)
    width = gathered * (grids.sharing(moves, source.chunk) - 1) + sum(plan_lib.widths(path))
    if grid.free and not is_kept(spec.name):
        limit = max(min(_CHUNK_LIMIT, grid.budget // _CHUNKS_IN_BUDGET), _SMALLEST_UNIT)
        chunk = grids.free_chunk(spec.shape, spec.stack_axes, grids.rows_axis(moves), aligned, itemsize, limit)
        together = math.prod(max(size, min(step, n)) for size, step, n in zip(chunk, aligned, spec.shape, strict=True))
        if together * width + 2 * read_bytes <= grid.budget:
            return chunk
        # Too much at a time: the source's own chunks, unless these are large; then what both grids have in common.
        own = tuple(
            size if step == 1 else 1 if axis in spec.stack_axes else min(step, n)
            for axis, (size, step, n) in enumerate(zip(chunk, aligned, spec.shape, strict=True))
        )
        if math.prod(own) * itemsize <= _LARGEST_TAKEN_OVER * limit:
            return own
        return tuple(min(size, step) for size, step in zip(chunk, own, strict=True))
    smallest = math.prod(grids.aligned_box(spec.shape, aligned)) * width + 2 * read_bytes
    # A unit whose chunks fill many arrays may need more than a thread's share: fewer threads rather than more decoding.
    shares = [grid.budget // threads for threads in range(grid.threads, 0, -1)]
    share = next((share for share in shares if share >= smallest), shares[0])
    limit = max((share - 2 * read_bytes) // width * itemsize, _SMALLEST_UNIT)
    box = grids.slab(spec.shape, aligned, itemsize, min(limit, _SLAB_LIMIT))
    if not box or box[-1] == spec.shape[-1]:
        return box
    return grids.slab(spec.shape, aligned, itemsize, min(limit, _COLUMNS_LIMIT))


def path_of(
    name: str,
    moves: Sequence[Move],
    sides: Sides,
    tensors: Mapping[str, TensorInfo],
    precision: Precision,
    recorded: Mapping[str, str],
) -> ValuePath:
    """What happens to the values of an array that moves fill."""
    spec = sides.target.arrays[name]
    fixed = sides.state.dtypes.get(name) if sides.state is not None else None
    if fixed is not None:
        return ValuePath(fixed, fixed, fixed)
    if not moves:
        asked = precision.of(name)
        return ValuePath(asked, asked, asked, (), spec.ops)
    # What was kept beside a source is plain, whatever the source's operations; it may fill a part of the array.
    first = next((move for move in moves if not is_kept(move.source)), moves[0])
    alike = all(move.source_ops == first.source_ops or is_kept(move.source) for move in moves)
    if not alike or any(move.target_ops != first.target_ops for move in moves):
        raise RecastError.of("MAPPING_INVALID", f"{name} is filled by rules with different operations.", subject=name)
    return precision_lib.choose(
        target=name,
        source_dtype=values.common(tensors[move.source].dtype for move in moves),
        source_ops=first.source_ops,
        target_ops=first.target_ops,
        recorded=recorded.get(first.source, ""),
        keep_dtype=spec.keep_dtype,
        peer_dtype=spec.peer_dtype,
        precision=dataclasses.replace(precision, as_requested=False) if is_kept(name) else precision,
    )


def read_bytes_of(source: Source, name: str) -> int:
    """Bytes that one read of a source array holds: a chunk, or a piece that is decoded, or nothing of mapped memory."""
    chunk = source.chunk(name) or piece_of(source, name)
    if chunk is None:
        return 0
    return math.prod(chunk) * values.itemsize(source.tensors[name].dtype)


def _bytes(info: TensorInfo) -> int:
    return math.prod(info.shape) * values.itemsize(info.dtype)


def _too_large(arrays: Iterable[ArrayPlan], grid: Grid) -> RecastError:
    worst = max(arrays, key=lambda array: array.unit_bytes)
    again = ", or --overwrite to start again with smaller units than the interrupted run's" if grid.fixed else ""
    return RecastError.of(
        "MEMORY_PLAN",
        f"The smallest unit of {worst.info.name} needs {worst.unit_bytes} bytes of buffers; "
        f"the memory budget is {grid.budget} bytes.",
        subject=worst.info.name,
        suggestion=f"Pass --memory_budget={math.ceil(worst.unit_bytes / (1 << 20))}MiB or more{again}.",
    )
