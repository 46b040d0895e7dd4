"""Stops a run before the kernel kills it: watches how much memory is left, and calls back while there is still some."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from reporting.diagnostics import RecastError
from validators import memory
from validators.memory import Bound

_ROOT = Path("/")
_MIB = 1 << 20
# What must stay free. A run that is told to stop finishes its units, whose buffers it has already, writes its journal
# and its report: tens of MiB, hence the floor. Statistics of a cgroup lag by up to 64 pages per processor and level,
# which grows with the machine as limits do, hence the share. Beyond half a GiB nothing more is gained.
_LEAST_MARGIN = 64 * _MIB
_MARGIN_SHARE = 0.03
_LARGEST_MARGIN = 512 * _MIB
# Faster than threads of one process fill fresh pages: the next look comes before the room above the margin can be gone.
_FILL_RATE = 8 << 30
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1

OnDanger = Callable[[RecastError], None]


class MemoryGuard:
    """Watches memory from a thread while a block runs: tells of danger, and lets `check` raise it.

    Attributes:
        peak_bytes: the most anonymous and shared memory of this process that was seen.
        peak_used: the most that was seen in use under the limit with the least left, by all of its processes.
        limit: that limit; 0 if nothing tells.
    """

    def __init__(self, on_danger: OnDanger | None = None, *, budget: int = 0, root: Path = _ROOT):
        """Watches once the block begins.

        Args:
            on_danger: called once, from the guard's thread, with OUT_OF_MEMORY; must return quickly.
            budget: --memory_budget, which the error names; 0 where there is none.
            root: where /proc and /sys are.
        """
        self.peak_bytes = 0
        self.peak_used = 0
        self.limit = 0
        self._listeners = [on_danger] if on_danger is not None else []
        self._danger: RecastError | None = None
        self._telling = threading.Lock()
        self._budget = budget
        self._root = root
        self._margins: dict[str, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory guard", daemon=True)

    def __enter__(self) -> MemoryGuard:
        self._margins = {bound.limited_by: margin_of(bound) for bound in memory.bounds(self._root)}
        self._tightest()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._tightest()

    def check(self) -> None:
        """For work that has borders of its own: raises OUT_OF_MEMORY once there was danger."""
        if self._danger is not None:
            raise self._danger

    @contextlib.contextmanager
    def telling(self, on_danger: OnDanger) -> Iterator[None]:
        """Tells another one while a block runs; at once, if the danger came before."""
        with self._telling:
            self._listeners.append(on_danger)
            if self._danger is not None:
                on_danger(self._danger)
        try:
            yield
        finally:
            with self._telling:
                self._listeners.remove(on_danger)

    def _tell(self, error: RecastError) -> None:
        with self._telling:
            self._danger = error
            for listener in self._listeners:
                listener(error)

    def _watch(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            bound = self._tightest()
            if bound is None:
                pause = _LONGEST_PAUSE
                continue
            room = self._room(bound)
            if room <= 0 and self._danger is None:
                own = memory.anonymous_bytes(self._root)
                self._tell(danger(bound, self._margin(bound), own, self._budget))
            pause = _LONGEST_PAUSE if self._danger is not None else pause_before(room)

    def _tightest(self) -> Bound | None:
        """Looks, and notes the peaks; returns the bound that is nearest to its margin."""
        self.peak_bytes = max(self.peak_bytes, memory.anonymous_bytes(self._root))
        bound = min(memory.bounds(self._root), key=self._room, default=None)
        if bound is not None:
            if bound.limit != self.limit:
                self.limit, self.peak_used = bound.limit, 0
            self.peak_used = max(self.peak_used, bound.used)
        return bound

    def _margin(self, bound: Bound) -> int:
        # A limit may be set or moved while the run goes on.
        return self._margins.setdefault(bound.limited_by, margin_of(bound))

    def _room(self, bound: Bound) -> int:
        return bound.left + bound.swap - self._margin(bound)


def margin_of(bound: Bound) -> int:
    """What must stay free under a limit; half of what is free where that is less, so that small runs can do."""
    wanted = min(_LARGEST_MARGIN, max(_LEAST_MARGIN, int(bound.limit * _MARGIN_SHARE)))
    return min(wanted, (bound.left + bound.swap) // 2)


def pause_before(room: int) -> float:
    """Seconds until the next look, when so many bytes are left above the margin."""
    return min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, room / _FILL_RATE))


def danger(bound: Bound, margin: int, anonymous: int, budget: int) -> RecastError:
    """OUT_OF_MEMORY with the numbers."""
    reason = (
        f"The run stopped itself before the kernel would have killed it: {bound.left} bytes are left, and {margin} "
        f"must stay free. The bound is {bound.limited_by}: {bound.used} of {bound.limit} bytes are used, "
        f"{anonymous} of them by this process."
    )
    suggestion = ""
    if budget:
        reason += f" The memory budget is {budget} bytes."
        less = max(1, budget // 2 // _MIB)
        suggestion = (
            f"Pass a smaller --memory_budget, such as --memory_budget={less}MiB, or give the process more memory."
        )
    return RecastError.of("OUT_OF_MEMORY", reason, suggestion=suggestion)
