"""Memory: what a process may still take, and what it has.

Memory here is what the kernel cannot take back: anonymous and shared pages. Mapped files do not count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

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
class Bound:
    """A limit on memory, and what is used of it: by all processes under the limit.

    Attributes:
        limit: bytes that may be used.
        used: what is used and the kernel cannot take back.
        limited_by: what sets the limit, in words.
        swap: bytes that could still go to swap space.
    """

    limit: int
    used: int
    limited_by: str
    swap: int = 0

    @property
    def left(self) -> int:
        """What may still be taken without swap space."""
        return max(0, self.limit - self.used)


@dataclasses.dataclass(frozen=True, slots=True)
class _Version:
    """Names of one version of cgroups."""

    limit: str
    usage: str
    reclaimable: tuple[str, ...]
    events: str


_V1 = _Version(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"), "memory.oom_control"
)
_V2 = _Version("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"), "memory.events")


def available(root: Path = _ROOT) -> Available | None:
    """The tightest bound of the machine and of all cgroups that this process is in; None if nothing tells.

    Args:
        root: where /proc and /sys are.
    """
    tightest = min(bounds(root), key=lambda bound: bound.left, default=None)
    if tightest is None:
        return None
    return Available(tightest.left + anonymous_bytes(root), tightest.limited_by)


def bounds(root: Path = _ROOT) -> list[Bound]:
    """The bounds of the machine and of all cgroups that this process is in, now."""
    machine = _fields(root / "proc/meminfo")
    swap = machine.get("SwapFree", 0)
    found = []
    if "MemAvailable" in machine:
        free = machine["MemAvailable"]
        total = max(free, machine.get("MemTotal", free))
        found.append(Bound(total, total - free, "what the machine has free", swap))
    for folder, version in _groups(root):
        limit = _number(folder / version.limit)
        used = _number(folder / version.usage)
        if limit is None or used is None or limit >= _NO_LIMIT:
            continue
        statistics = _fields(folder / "memory.stat")
        kept = max(0, used - sum(statistics.get(name, 0) for name in version.reclaimable))
        more = min(swap, _swap_room(folder, limit, used))
        found.append(Bound(limit, kept, f"the cgroup limit of {limit} bytes", more))
    return found


def oom_kills(root: Path = _ROOT) -> int:
    """How many processes the kernel has killed for memory: in this process's cgroup, else on the machine."""
    counts = [_fields(folder / version.events).get("oom_kill") for folder, version in _groups(root)]
    # Groups come from the outside in: the last that tells is the process's own.
    own = next((count for count in reversed(counts) if count is not None), None)
    return own if own is not None else _fields(root / "proc/vmstat").get("oom_kill", 0)


def anonymous_bytes(root: Path = _ROOT, process: int | str = "self") -> int:
    """Anonymous and shared bytes of a process now; 0 if nothing tells."""
    return sum(_fields(root / f"proc/{process}/status").get(name, 0) for name in ("RssAnon", "RssShmem"))


def _groups(root: Path) -> Iterator[tuple[Path, _Version]]:
    """The cgroups that hold this process, each after those around it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", "", ""][:3]
        if not controllers:
            yield from ((folder, _V2) for folder in _hierarchy(root / "sys/fs/cgroup", path))
        elif "memory" in controllers.split(","):
            yield from ((folder, _V1) for folder in _hierarchy(root / "sys/fs/cgroup/memory", path))


def _hierarchy(mount: Path, path: str) -> Iterator[Path]:
    """A group's folder and those around it. In a container the path may be the host's and not exist here."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for depth in range(len(parts) + 1):
        yield mount.joinpath(*parts[:depth])


def _swap_room(folder: Path, limit: int, used: int) -> int:
    """What a group lets go to swap space; version 1 counts it together with memory, version 2 apart."""
    both, taken = (_number(folder / f"memory.memsw.{name}_in_bytes") for name in ("limit", "usage"))
    if both is not None and taken is not None:
        return 0 if _number(folder / "memory.swappiness") == 0 else max(0, (both - taken) - (limit - used))
    if _text(folder / "memory.swap.max").strip() == "max":
        return _NO_LIMIT
    return max(0, (_number(folder / "memory.swap.max") or 0) - (_number(folder / "memory.swap.current") or 0))


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
