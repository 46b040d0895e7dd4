"""The plan by which one checkpoint's values are made again beside another's, region by region."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from converters.engine import planning, values
from converters.engine.binding import Sides
from converters.engine.comparing import fitted_box
from converters.engine.drivers import driver_of
from converters.engine.pairing import Checkpoint
from converters.engine.plan import ArrayPlan, Group, Plan, Unit
from converters.engine.precision import Precision
from converters.engine.request import AUTO
from converters.engine.values import ValuePath
from converters.formats.base import Source, TensorInfo
from mappings.language.regions import Dim, Move

_BOX_LIMIT = 16 << 20

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
        budget: bytes of buffers, half of which are left for the second side.

    Raises:
        RecastError: MEMORY_PLAN, or what no conversion supports.
    """
    ours, theirs = first.opened.source, second.opened.source
    dtypes = {name: info.dtype for name, info in theirs.tensors.items() if info.dtype in values.FLOAT_DTYPES}
    precision = Precision(dtype=AUTO, residue="drop", original=dtypes, default=default)
    grid = planning.Grid(driver_of(second.format).free_grid, threads, max(budget // 2, 1))
    made = planning.make(sides, ours, precision, first.logical_dtypes, grid)
    limit = _limit(threads, budget)
    arrays = {}
    for name, array in made.arrays.items():
        path = path_of(array)
        info = dataclasses.replace(array.info, dtype=path.target_dtype)
        arrays[name] = dataclasses.replace(array, info=info, path=path, chunk=_chunk(array, ours, theirs, limit))
    shared = tuple(
        Group(tuple(Unit(arrays[unit.array.info.name], unit.box) for unit in group.units)) for group in made.shared
    )
    return dataclasses.replace(made, arrays=arrays, shared=shared)


def identical(names: list[str], first: Source, second: Source, threads: int, budget: int) -> Plan:
    """The plan for arrays that both sides hold by the same name and shape: each is read as it is stored."""
    limit = _limit(threads, budget)
    arrays = {}
    for name in names:
        info = first.tensors[name]
        chunks = [chunk for chunk in (first.chunk(name), second.chunk(name)) if chunk is not None]
        chunk = tuple(max(sizes) for sizes in zip(*chunks, strict=True)) if chunks else None
        box = fitted_box(info.shape, chunk, values.itemsize(info.dtype), limit)
        path = ValuePath(info.dtype, info.dtype, info.dtype)
        arrays[name] = ArrayPlan(info, box, path, (_itself(info),))
    size = sum(array.bytes for array in arrays.values())
    largest = max((array.unit_bytes for array in arrays.values()), default=0)
    return Plan(
        arrays=arrays,
        bytes_in=size,
        bytes_out=size,
        threads=threads,
        peak_bytes=min(budget, threads * largest),
        bytes_decoded=size,
    )


def _limit(threads: int, budget: int) -> int:
    return max(1, min(_BOX_LIMIT, budget // (8 * threads)))


def _itself(info: TensorInfo) -> Move:
    dims = tuple(Dim(size, axis, 1, axis, 1) for axis, size in enumerate(info.shape))
    base = (0,) * len(info.shape)
    return Move(info.name, info.name, info.name, info.shape, info.shape, base, base, dims, (), ())


def _chunk(array: ArrayPlan, source: Source, target: Source, limit: int) -> tuple[int, ...]:
    """Boxes of whole chunks of the target, unless it is the source's chunks that must not be decoded twice."""
    name = array.info.name
    chunk = target.chunk(name) if name in target.tensors else None
    chunked = any(source.chunk(move.source) is not None for move in array.moves)
    if chunk is None or chunked or target.tensors[name].shape != array.info.shape:
        return array.chunk
    return fitted_box(array.info.shape, chunk, values.itemsize(array.info.dtype), limit)
