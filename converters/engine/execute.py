"""Runs a plan: threads take groups of units, gather what fills them, change values, write them, within a budget."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np

from converters.engine import passing, values
from converters.engine import residue as residue_lib
from converters.engine.gather import Gatherer
from converters.engine.journal import UnitRecord
from converters.engine.passing import Passing
from converters.engine.plan import Box, Group, Plan, Unit
from converters.engine.signals import uninterrupted
from converters.engine.values import AnyArray
from converters.formats.base import Source, Writer
from converters.quantized.source import DecodingSource
from mappings.language import regions

Done = Collection[tuple[str, Box]]


@dataclasses.dataclass
class Outcome:
    """What execution found out, filled by all threads under one lock.

    Attributes:
        largest: for each array of the source: its largest magnitude as a bit pattern, and the pattern of infinity.
        overflowed: for each target array the arrays of the source of which a finite value became infinite in it, each
            with the largest finite magnitude; infinity where decoding made it so.
        digests: for each target array the digest of each unit, by the unit's box.
        residue_elements: for each target array how many elements its residue holds.
        peak_bytes: the most anonymous and shared memory that was seen.
        resumed_bytes: bytes of units that an earlier run had written.
        bytes_read: bytes that were taken from the source.
    """

    largest: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    overflowed: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    digests: dict[str, dict[Box, str]] = dataclasses.field(default_factory=dict)
    residue_elements: dict[str, int] = dataclasses.field(default_factory=dict)
    peak_bytes: int = 0
    resumed_bytes: int = 0
    bytes_read: int = 0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def add(self, record: UnitRecord) -> None:
        """Takes in what is known of a unit."""
        with self.lock:
            self.digests.setdefault(record.array, {})[record.box] = record.digest
            for name, bits in record.largest.items():
                self.largest[name] = passing.higher(self.largest.get(name, bits), bits)
            for name, magnitude in record.overflowed.items():
                held = self.overflowed.setdefault(record.array, {})
                held[name] = max(held.get(name, 0.0), magnitude)
            if record.residue:
                self.residue_elements[record.array] = self.residue_elements.get(record.array, 0) + record.residue

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
        sink: Writer,
        *,
        budget: int,
        residue_in: residue_lib.Residue,
        residue_out: residue_lib.Journal | None,
        recorded: Callable[[UnitRecord], None] | None = None,
        done: Done = (),
    ):
        """Makes an executor.

        Args:
            plan: what to do.
            source: where values come from.
            sink: where they go.
            budget: bytes of buffers held at a time.
            residue_in: the residue of the source.
            residue_out: where that of the target goes; None: it is not kept.
            recorded: is told every unit whose write has returned.
            done: units that need not be written any more, by array and box.
        """
        self._plan = plan
        self._source = source
        self._sink = sink
        self._budget = Budget(budget)
        self._residue_in = residue_in
        self._residue_out = residue_out
        self._recorded = recorded
        self._done = done
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Runs all units; the first failure, SIGTERM, or `stop` ends the others at their group's end."""
        groups = self._open_groups()
        lock = threading.Lock()

        def work() -> None:
            while not self._stop.is_set():
                with lock:
                    group = next(groups, None)
                if group is None:
                    return
                self._run(group)

        with ThreadPoolExecutor(self._plan.threads) as pool:
            try:
                # A thread whose start is broken off would write on, and nobody would wait for it.
                with uninterrupted():
                    futures = [pool.submit(work) for _ in range(self._plan.threads)]
                _wait(futures)
            finally:
                self._stop.set()
        if self._failure is not None:
            raise self._failure
        return self.outcome

    def stop(self, failure: BaseException) -> None:
        """Makes `run` end at the next unit borders and raise a failure; from any thread."""
        self._failure = failure
        self._stop.set()

    def _open_groups(self) -> Iterator[Group]:
        for group in self._plan.groups():
            units = tuple(unit for unit in group.units if (unit.array.info.name, unit.box) not in self._done)
            if units:
                yield Group(units)

    def _run(self, group: Group) -> None:
        share = self._budget.take(group.bytes)
        seen = Passing(self._source.stored if isinstance(self._source, DecodingSource) else ())
        gatherer = Gatherer(self._source, self._residue_in, seen.note)
        try:
            if self._stop.is_set():
                return
            for unit, logical in _made(gatherer, group):
                path = unit.array.path
                stored = values.encode(logical, path.target_ops, path.target_dtype)
                lost = self._keep_residue(unit, logical, stored)
                digest = _digest(stored)
                self._sink.write(unit.array.info.name, unit.box, stored)
                name, (largest, overflowed) = unit.array.info.name, seen.taken(unit)
                self._record(UnitRecord(name, unit.box, digest, largest, lost, stored.nbytes, overflowed))
                # Let go before the next unit is made, which the plan counts on.
                del logical, stored
                if self._stop.is_set():
                    return
        finally:
            self._budget.give_back(share)
            with self.outcome.lock:
                self.outcome.bytes_read += gatherer.bytes_read
        self._release(group)

    def _record(self, record: UnitRecord) -> None:
        self.outcome.add(record)
        if self._recorded is not None:
            self._recorded(record)

    def _keep_residue(self, unit: Unit, logical: AnyArray, stored: AnyArray) -> int:
        """Keeps the elements that would not come back; returns their number."""
        path, name = unit.array.path, unit.array.info.name
        if not path.residue:
            return 0
        lost = values.lost_elements(logical, stored, path.target_ops)
        if lost.size and self._residue_out is not None:
            shape = unit.array.info.shape
            self._residue_out.append(residue_lib.collect(name, shape, unit.box, logical, stored, lost))
        return int(lost.size)

    def _release(self, group: Group) -> None:
        """Gives mapped memory back, which counts against a container until the kernel takes it."""
        for unit in group.units:
            for part in unit.array.parts_in(unit.box):
                self._source.release(part.source, regions.source_box(part))


def _made(gatherer: Gatherer, group: Group) -> Iterator[tuple[Unit, AnyArray]]:
    if not group.in_turn:
        return gatherer.gather(group.units)
    return itertools.chain.from_iterable(gatherer.gather((unit,)) for unit in group.units)


def _digest(stored: AnyArray) -> str:
    import blake3

    data: Any = stored.reshape(-1).view(np.uint8)
    return str(blake3.blake3(data).hexdigest())


def _wait(futures: list[Future[None]]) -> None:
    finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in finished:
        error = future.exception()
        if error is not None:
            raise error
