"""Memory: what a process may still take, and what it took at most.

Memory here is what the kernel cannot take back: anonymous and shared pages. Mapped files do not count.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_ROOT = Path("/")
# cgroup v1 says "no limit" by a number near 2**63.
_NO_LIMIT = 1 << 60


@dataclasses.dataclass(frozen=True, slots=True)
class Available:
    """Memory that this process may have altogether.

    Attributes:
        bytes: what it has now and what it may still take.
        limited_by: what sets this bound, in words.
    """

    bytes: int
    limited_by: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Version:
    """Names of one version of cgroups."""

    limit: str
    usage: str
    reclaimable: tuple[str, ...]


_V1 = _Version("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = _Version("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))


def available(root: Path = _ROOT) -> Available | None:
    """The tightest bound of the machine and of all cgroups that this process is in; None if nothing tells.

    Args:
        root: where /proc and /sys are.
    """
    bounds = [*_machine(root), *_cgroups(root)]
    tightest = min(bounds, key=lambda bound: bound.bytes, default=None)
    if tightest is None:
        return None
    return dataclasses.replace(tightest, bytes=tightest.bytes + anonymous_bytes(root))


def anonymous_bytes(root: Path = _ROOT) -> int:
    """Anonymous and shared bytes of this process now; 0 if nothing tells."""
    return sum(_fields(root / "proc/self/status").get(name, 0) for name in ("RssAnon", "RssShmem"))


class PeakSampler:
    """Watches the memory of this process while a block runs: the kernel keeps a peak only for pages of all kinds.

    Attributes:
        bytes: the most that was seen, of anonymous and shared pages.
    """

    def __init__(self, seconds: float = 0.05):
        self.bytes = 0
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory peak", daemon=True)

    def __enter__(self) -> PeakSampler:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self._seconds):
            self._sample()

    def _sample(self) -> None:
        self.bytes = max(self.bytes, anonymous_bytes())


def _machine(root: Path) -> Iterator[Available]:
    free = _fields(root / "proc/meminfo").get("MemAvailable")
    if free is not None:
        yield Available(free, "what the machine has free")


def _cgroups(root: Path) -> Iterator[Available]:
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", "", ""][:3]
        if not controllers:
            yield from _hierarchy(root / "sys/fs/cgroup", path, _V2)
        elif "memory" in controllers.split(","):
            yield from _hierarchy(root / "sys/fs/cgroup/memory", path, _V1)


def _hierarchy(mount: Path, path: str, version: _Version) -> Iterator[Available]:
    """The bounds of a group and of those around it. In a container the path may be the host's and not exist here."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for depth in range(len(parts) + 1):
        folder = mount.joinpath(*parts[:depth])
        limit = _number(folder / version.limit)
        used = _number(folder / version.usage)
        if limit is None or used is None or limit >= _NO_LIMIT:
            continue
        statistics = _fields(folder / "memory.stat")
        kept = max(0, used - sum(statistics.get(name, 0) for name in version.reclaimable))
        yield Available(max(0, limit - kept), f"the cgroup limit of {limit} bytes")


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _fields(path: Path) -> dict[str, int]:
    """Lines such as `RssAnon:   112 kB` or `inactive_file 4096`, in bytes."""
    values = {}
    for line in _text(path).splitlines():
        name, *rest = line.replace(":", " ").split()[:3] or [""]
        if rest and rest[0].isdecimal():
            values[name] = int(rest[0]) * (1024 if rest[1:] == ["kB"] else 1)
    return values


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
