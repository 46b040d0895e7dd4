"""Makes the plan: dtypes and exactness of every array, the grid of its units, and what they need of memory."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from converters.engine import plan as plan_lib
from converters.engine import precision as precision_lib
from converters.engine import values
from converters.engine.binding import Sides
from converters.engine.plan import ArrayPlan, Plan
from converters.engine.precision import Precision
from converters.engine.values import ValuePath
from converters.formats.base import Source, TensorInfo
from mappings.language.regions import Move
from reporting.diagnostics import Diagnostic, RecastError, raise_all

# A chunk of this size is written and read at nearly the speed of `cp`; larger ones only cost memory.
_CHUNK_LIMIT = 64 << 20
_SMALLEST_UNIT = 1 << 20


@dataclasses.dataclass(frozen=True)
class Grid:
    """How a target wants its arrays cut.

    Attributes:
        free: whether any grid of chunks will do (Orbax); else units are contiguous ranges (safetensors).
        threads: how many units are worked on at a time.
        budget: bytes of buffers.
    """

    free: bool
    threads: int
    budget: int


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
    _refuse_unsupported(sides)
    by_target: dict[str, list[Move]] = defaultdict(list)
    for move in sides.composition.moves:
        by_target[move.target].append(move)
    arrays = {
        name: _array(name, by_target.get(name, []), sides, source, precision, recorded, grid)
        for name in sides.composition.produced
    }
    largest = max((array.unit_bytes for array in arrays.values()), default=0)
    threads = max(1, min(grid.threads, grid.budget // max(largest, 1)))
    if largest > grid.budget:
        raise _too_large(arrays.values(), grid.budget)
    read = {move.source for moves in by_target.values() for move in moves}
    return Plan(
        arrays=arrays,
        bytes_in=sum(_bytes(source.tensors[name]) for name in read),
        bytes_out=sum(array.bytes for array in arrays.values()),
        threads=threads,
        peak_bytes=min(grid.budget, threads * largest),
    )


def check_exactness(plan: Plan) -> None:
    """Refuses paths that are neither EXACT nor INVERTIBLE.

    Raises:
        RecastError: EXACTNESS_NOT_MET, one diagnostic for each array.
    """
    raise_all(
        [
            Diagnostic(
                "EXACTNESS_NOT_MET",
                f"{array.info.name} would be {array.path.exactness}: {array.path.source_dtype} stored as "
                f"{array.path.target_dtype}.",
                subject=array.info.name,
            )
            for array in plan.arrays.values()
            if array.path.exactness not in ("EXACT", "INVERTIBLE")
        ]
    )


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


def _array(
    name: str,
    moves: Sequence[Move],
    sides: Sides,
    source: Source,
    precision: Precision,
    recorded: Mapping[str, str],
    grid: Grid,
) -> ArrayPlan:
    path = _path(name, moves, sides, source.tensors, precision, recorded)
    spec = sides.target.arrays[name]
    itemsize = values.itemsize(path.target_dtype)
    read_bytes = max((_read_bytes(source, move.source) for move in moves), default=0)
    share = grid.budget // grid.threads - 2 * read_bytes
    elements = max(share // sum(plan_lib.widths(path)), _SMALLEST_UNIT // itemsize)
    limit = elements * itemsize
    if grid.free:
        chunk = plan_lib.whole_chunks(spec.shape, spec.stack_axes, itemsize, min(limit, _CHUNK_LIMIT))
    else:
        chunk = plan_lib.leading_slabs(spec.shape, itemsize, limit)
    info = TensorInfo(name, spec.shape, path.target_dtype)
    ones = [
        move for fill in sides.composition.fills if fill.kind == "ONE" for move in fill.moves if move.target == name
    ]
    return ArrayPlan(info, chunk, path, tuple(moves), read_bytes, tuple(ones))


def _path(
    name: str,
    moves: Sequence[Move],
    sides: Sides,
    tensors: Mapping[str, TensorInfo],
    precision: Precision,
    recorded: Mapping[str, str],
) -> ValuePath:
    spec = sides.target.arrays[name]
    if not moves:
        asked = precision.of(name)
        return ValuePath(asked, asked, asked, (), spec.ops)
    first = moves[0]
    if any(move.source_ops != first.source_ops or move.target_ops != first.target_ops for move in moves):
        raise RecastError.of("MAPPING_INVALID", f"{name} is filled by rules with different operations.", subject=name)
    return precision_lib.choose(
        target=name,
        source_dtype=values.common(tensors[move.source].dtype for move in moves),
        source_ops=first.source_ops,
        target_ops=first.target_ops,
        recorded=recorded.get(first.source, ""),
        keep_dtype=spec.keep_dtype,
        peer_dtype=spec.peer_dtype,
        precision=precision,
    )


def _read_bytes(source: Source, name: str) -> int:
    """Bytes that one read of a source array holds: a chunk, or nothing where memory is mapped."""
    chunk = source.chunk(name)
    if chunk is None:
        return 0
    return math.prod(chunk) * values.itemsize(source.tensors[name].dtype)


def _bytes(info: TensorInfo) -> int:
    return math.prod(info.shape) * values.itemsize(info.dtype)


def _too_large(arrays: Iterable[ArrayPlan], budget: int) -> RecastError:
    worst = max(arrays, key=lambda array: array.unit_bytes)
    return RecastError.of(
        "MEMORY_PLAN",
        f"The smallest unit of {worst.info.name} needs {worst.unit_bytes} bytes of buffers; "
        f"the memory budget is {budget} bytes.",
        subject=worst.info.name,
        suggestion=f"Pass --memory_budget={math.ceil(worst.unit_bytes / (1 << 20))}MiB or more.",
    )
