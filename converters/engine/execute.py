"""Runs a plan: threads take units, read what fills them, change values, write them; buffers stay within a budget."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from converters.engine import residue as residue_lib
from converters.engine import strided, values
from converters.engine.plan import Box, Plan, Unit
from converters.engine.values import AnyArray
from converters.formats.base import Region, Sink, Source
from mappings.language import regions
from mappings.language.regions import Move


@dataclasses.dataclass
class Outcome:
    """What execution found out, filled by all threads under one lock.

    Attributes:
        largest: for each array seen (a source array where a unit has only one, else the target's): its largest
            magnitude as a bit pattern, and the pattern of infinity.
        digests: for each target array the digest of each unit, by the unit's box.
        residue_elements: for each target array how many elements its residue holds.
        peak_bytes: the most anonymous and shared memory that was seen.
    """

    largest: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    digests: dict[str, dict[Box, str]] = dataclasses.field(default_factory=dict)
    residue_elements: dict[str, int] = dataclasses.field(default_factory=dict)
    peak_bytes: int = 0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def tensor_entries(self, plan: Plan) -> dict[str, Mapping[str, Any]]:
        """For the manifest: dtype, shape and unit digests of each array."""
        out: dict[str, Mapping[str, Any]] = {}
        for name, array in plan.arrays.items():
            units = [
                {"start": [start for start, _ in box], "stop": [stop for _, stop in box], "blake3": digest}
                for box, digest in sorted(self.digests.get(name, {}).items())
            ]
            out[name] = {"dtype": array.info.dtype, "shape": list(array.info.shape), "units": units}
        return out


class Budget:
    """Bytes that may be held at a time; a unit waits until its share is free."""

    def __init__(self, limit: int):
        self._free = limit
        self._limit = limit
        self._changed = threading.Condition()

    def take(self, amount: int) -> int:
        """Waits for `amount` bytes, or all of the budget if it is more; returns what was taken."""
        share = min(amount, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        return share

    def give_back(self, share: int) -> None:
        """Returns what `take` returned."""
        with self._changed:
            self._free += share
            self._changed.notify_all()


class Executor:
    """Runs the units of a plan."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        sink: Sink,
        *,
        budget: int,
        residue_in: residue_lib.Residue,
        residue_out: residue_lib.Journal | None,
    ):
        """Args: the residue of the source, and where that of the target goes (None: it is not kept)."""
        self._plan = plan
        self._source = source
        self._sink = sink
        self._budget = Budget(budget)
        self._residue_in = residue_in
        self._residue_out = residue_out
        self._stop = threading.Event()
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Runs all units; the first failure, or SIGTERM, stops the others at their unit's end."""
        units = iter(self._plan.units())
        lock = threading.Lock()

        def work() -> None:
            while not self._stop.is_set():
                with lock:
                    unit = next(units, None)
                if unit is None:
                    return
                self._run(unit)

        with ThreadPoolExecutor(self._plan.threads) as pool:
            futures = [pool.submit(work) for _ in range(self._plan.threads)]
            try:
                _wait(futures)
            finally:
                self._stop.set()
        return self.outcome

    def _run(self, unit: Unit) -> None:
        share = self._budget.take(unit.array.unit_bytes)
        try:
            logical = self._gather(unit)
            path = unit.array.path
            stored = values.encode(logical, path.target_ops, path.target_dtype)
            self._observe(unit, logical, stored)
            self._sink.write(unit.array.info.name, unit.box, stored)
        finally:
            self._budget.give_back(share)

    def _gather(self, unit: Unit) -> AnyArray:
        """The unit's region of logical values, in the target's order."""
        path = unit.array.path
        undo = bool(path.source_ops)
        dtype = path.logical_dtype if undo else path.source_dtype
        parts = [part for move in unit.array.moves for part in regions.restrict(move, unit.box)]
        covered = sum(math.prod(dim.count for dim in part.dims) for part in parts)
        whole = covered == math.prod(unit.shape)
        make = np.empty if whole else np.zeros
        buffer = make(unit.shape, values.dtype_of(dtype))
        sources = {part.source for part in parts}
        for part in parts:
            for piece in chunk_pieces(self._source, part):
                box = regions.source_box(piece)
                read = self._source.read(piece.source, box)
                if undo:
                    read = self._undo(piece.source, box, read, unit)
                elif read.dtype != buffer.dtype:
                    read = values.encode(read, (), dtype)
                if len(sources) > 1:
                    self._note_magnitude(piece.source, read)
                move_into(buffer, unit.box, read, box, piece)
        for move in unit.array.ones:
            for part in regions.restrict(move, unit.box):
                _fill_with_one(buffer, unit.box, part)
        if len(sources) == 1:
            self._note_magnitude(next(iter(sources)), buffer)
        return (
            buffer if undo or path.source_dtype == path.logical_dtype else values.encode(buffer, (), path.logical_dtype)
        )

    def _undo(self, name: str, box: Region, stored: AnyArray, unit: Unit) -> AnyArray:
        path = unit.array.path
        stored = np.ascontiguousarray(stored)
        logical = values.decode(stored, path.source_ops, path.logical_dtype)
        if name in self._residue_in.arrays():
            logical = logical.copy() if logical is stored else logical
            self._residue_in.patch(name, box, stored, logical)
        return logical

    def _observe(self, unit: Unit, logical: AnyArray, stored: AnyArray) -> None:
        """Digest of the unit, and the elements that would not come back."""
        import blake3

        name = unit.array.info.name
        data: Any = stored.reshape(-1).view(np.uint8)
        digest = str(blake3.blake3(data).hexdigest())
        with self.outcome.lock:
            self.outcome.digests.setdefault(name, {})[unit.box] = digest
        path = unit.array.path
        if not path.residue:
            return
        lost = values.lost_elements(logical, stored, path.target_ops)
        if not lost.size:
            return
        with self.outcome.lock:
            before = self.outcome.residue_elements.get(name, 0)
            self.outcome.residue_elements[name] = before + int(lost.size)
        if self._residue_out is not None:
            shape = unit.array.info.shape
            self._residue_out.append(residue_lib.collect(name, shape, unit.box, logical, stored, lost))

    def _note_magnitude(self, name: str, array: AnyArray) -> None:
        largest, infinity = values.largest_magnitude_bits(array)
        with self.outcome.lock:
            before = self.outcome.largest.get(name, (0, infinity))
            self.outcome.largest[name] = (max(before[0], largest), infinity)


def chunk_pieces(source: Source, move: Move) -> Iterator[Move]:
    """The move cut at the source's chunk borders, so that each read decodes one chunk."""
    chunk = source.chunk(move.source)
    if chunk is None:
        yield move
        return
    turned = swapped(move)
    for box in _grid(regions.source_box(move), chunk):
        for part in regions.restrict(turned, box):
            yield swapped(part)


def move_into(target: AnyArray, target_box: Box, source: AnyArray, source_box: Region, move: Move) -> None:
    """Copies a move's elements from a region of its source into a region of its target."""
    width = source.dtype.itemsize
    start = _offset(source, source_box, move.source_base)
    goal = _offset(target, target_box, move.target_base)
    axes = [
        (
            dim.count,
            dim.source_weight * source.strides[dim.source_axis],
            dim.target_weight * target.strides[dim.target_axis],
        )
        for dim in move.dims
    ]
    strided.copy(_from(source, start, width), _from(target, goal, width), axes)


def _fill_with_one(target: AnyArray, box: Box, move: Move) -> None:
    one = np.ones(1, target.dtype)
    axes = [(dim.count, 0, dim.target_weight * target.strides[dim.target_axis]) for dim in move.dims]
    goal = _offset(target, box, move.target_base)
    strided.copy(one, _from(target, goal, target.dtype.itemsize), axes)


def swapped(move: Move) -> Move:
    """The move in the other direction."""
    return dataclasses.replace(
        move,
        source=move.target,
        target=move.source,
        source_shape=move.target_shape,
        target_shape=move.source_shape,
        source_base=move.target_base,
        target_base=move.source_base,
        dims=tuple(
            dataclasses.replace(
                dim,
                source_axis=dim.target_axis,
                source_weight=dim.target_weight,
                target_axis=dim.source_axis,
                target_weight=dim.source_weight,
            )
            for dim in move.dims
        ),
        source_ops=move.target_ops,
        target_ops=move.source_ops,
    )


def _wait(futures: list[Future[None]]) -> None:
    finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in finished:
        error = future.exception()
        if error is not None:
            raise error


def _grid(box: Region, chunk: tuple[int, ...]) -> Iterator[Box]:
    """The parts of a box on either side of the borders of a chunk grid."""
    if not box:
        yield ()
        return
    (start, stop), size = box[0], chunk[0]
    for index in range(start // size, -(-stop // size)):
        edge = (max(start, index * size), min(stop, (index + 1) * size))
        for rest in _grid(box[1:], chunk[1:]):
            yield (edge, *rest)


def _offset(array: AnyArray, box: Region, base: tuple[int, ...]) -> int:
    return sum((b - start) * stride for b, (start, _), stride in zip(base, box, array.strides, strict=True))


def _from(array: AnyArray, offset: int, width: int) -> AnyArray:
    """The array's memory from a byte offset on."""
    elements = offset // width
    return np.lib.stride_tricks.as_strided(array, (elements + 1,), (width,))[elements:]
