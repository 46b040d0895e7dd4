"""Reads the second side of a comparison, within the bytes that the plan counts for one read."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable

from converters.engine.gather import within
from converters.engine.grouping import chunk_box, grid_boxes
from converters.engine.plan import Box, Group, Plan
from converters.engine.values import AnyArray
from converters.formats.base import Region, Source, piece_of

Take = Callable[[Region, AnyArray], None]
"""Is given a region and what is stored there, and keeps nothing of it."""


@dataclasses.dataclass
class _Held:
    """What a thread keeps until all of it has been compared.

    Attributes:
        name: of the array.
        box: where it lies.
        stored: its values.
        left: elements that were not asked for yet.
    """

    name: str
    box: Box
    stored: AnyArray
    left: int


class SecondSide:
    """Gives the stored values of units' regions: a chunk is decoded once for all units of a group. Thread-safe."""

    def __init__(self, source: Source, plan: Plan):
        """Args: the second side; the plan by whose units and groups it is read."""
        self._source = source
        self._shared = {
            (unit.array.info.name, unit.box): _hull(group)
            for group in plan.shared
            if group.in_turn
            for unit in group.units
        }
        self._thread = threading.local()

    def each(self, name: str, region: Region, take: Take) -> None:
        """Calls `take` for the parts of a unit's region, which together are all of it, and lets go of each.

        Raises:
            RecastError: what reading raises.
        """
        whole = self._shared.get((name, region))
        if whole is None:
            self._each_part(name, region, take)
        else:
            self._of_held(name, region, whole, take)
        self._source.release(name, region)

    def _each_part(self, name: str, region: Region, take: Take) -> None:
        shape = self._source.tensors[name].shape
        # All of a region at once would decode many chunks at a time.
        grid = self._source.chunk(name) or piece_of(self._source, name)
        if grid is None:
            take(region, self._source.read(name, region))
            return
        for position in grid_boxes(region, grid):
            part = _common(region, chunk_box(position, grid, shape))
            take(part, self._source.read(name, part))

    def _of_held(self, name: str, region: Region, whole: Box, take: Take) -> None:
        held: _Held | None = getattr(self._thread, "held", None)
        if held is None or (held.name, held.box) != (name, whole):
            self._thread.held = None
            held = _Held(name, whole, self._source.read(name, whole), _elements(whole))
            self._thread.held = held
        take(region, within(held.stored, whole, region))
        held.left -= _elements(region)
        if held.left <= 0:
            self._thread.held = None


def _hull(group: Group) -> Box:
    axes = zip(*(unit.box for unit in group.units), strict=True)
    return tuple((min(start for start, _ in axis), max(stop for _, stop in axis)) for axis in axes)


def _common(first: Region, second: Region) -> Region:
    return tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(first, second, strict=True))


def _elements(box: Region) -> int:
    return math.prod(stop - start for start, stop in box)
