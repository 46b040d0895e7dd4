"""How many processors this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path("/")


def available(root: Path = _ROOT) -> int:
    """Processors that the scheduler and the cgroup's quota (v1 or v2) leave to this process; at least 1.

    Args:
        root: where /proc and /sys are.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota, period in _quotas(root):
        if quota > 0 and period > 0:
            count = min(count, -(-quota // period))
    return max(1, count)


def workers(root: Path = _ROOT) -> int:
    """Threads that keep all processors busy: while some wait for the disk, the others compute."""
    return available(root) + 2


def _quotas(root: Path) -> list[tuple[int, int]]:
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", "", ""][:3]
        if not controllers:
            folders = _folders(root / "sys/fs/cgroup", path)
            found += [_numbers(_text(folder / "cpu.max")) for folder in folders]
        elif "cpu" in controllers.split(","):
            folders = _folders(root / "sys/fs/cgroup/cpu", path)
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            found += [_numbers(" ".join(_text(folder / name).strip() for name in names)) for folder in folders]
    return found


def _folders(mount: Path, path: str) -> list[Path]:
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _numbers(text: str) -> tuple[int, int]:
    words = text.split()
    if len(words) != 2 or not all(word.isdecimal() for word in words):
        return 0, 0
    return int(words[0]), int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
