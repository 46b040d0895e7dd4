"""Makes the regions of an output again without writing them: the same gathering, threads and budget as a conversion."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from converters.engine import residue as residue_lib
from converters.engine.execute import Executor, Outcome
from converters.engine.memory_guard import MemoryGuard
from converters.engine.plan import Plan
from converters.engine.values import AnyArray
from converters.formats.base import Declared, Region, Source
from reporting.progress import Progress
from validators import memory

Visit = Callable[[str, Region, AnyArray], None]
"""Takes an array's name, a region of it and the values that belong there; called from several threads."""


def each_region(
    plan: Plan, source: Source, residue: residue_lib.Residue, budget: int, visit: Visit, progress: str
) -> Outcome:
    """Calls `visit` for all regions of a plan, each once.

    Args:
        plan: what an output holds.
        source: where its values come from.
        residue: of the source.
        budget: bytes of buffers, for what `visit` reads as well.
        visit: what is done with each region.
        progress: one of `reporting.progress.MODES`.

    Returns:
        What was seen of the source's values.

    Raises:
        RecastError: OUT_OF_MEMORY before the kernel would kill the process, and what `source` and `visit` raise.
    """
    shown = Progress(plan.bytes_out, stream=sys.stderr, memory=memory.anonymous_bytes, mode=progress, name="compare")
    executor = Executor(
        plan,
        source,
        _Onlooker(visit),
        budget=budget,
        residue_in=residue,
        residue_out=None,
        recorded=lambda record: shown.advance(record.bytes),
    )
    with MemoryGuard(executor.stop, budget=budget), shown:
        return executor.run()


class _Onlooker:
    """A sink that passes on what it is given and keeps nothing."""

    def __init__(self, visit: Visit):
        self._visit = visit

    def declare(self, arrays: Sequence[Declared]) -> None:
        """Needs no announcement."""

    def check_written(self, regions: Iterable[tuple[str, Region]]) -> None:
        """Nothing was written."""

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Passes a region on."""
        self._visit(name, region, values)

    def sync(self) -> None:
        """Nothing was written."""

    def commit(self) -> None:
        """Nothing was written."""

    def abort(self) -> None:
        """Nothing was written."""
