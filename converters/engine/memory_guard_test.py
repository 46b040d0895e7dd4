"""Tests of the guard: on made-up machines; tests/bad_input has a real cgroup."""

from __future__ import annotations

import mmap
import threading
import time
from pathlib import Path

import pytest

from converters.engine import memory_guard
from converters.engine.memory_guard import MemoryGuard
from reporting.diagnostics import RecastError
from validators import memory
from validators.memory import Bound

MIB = 1 << 20
GIB = 1 << 30


def _machine(root: Path, *, limit: int, used: int, cache: int = 0, free: int = 64 * GIB) -> Path:
    """A process in a group of cgroup version 2."""
    files = {
        "proc/meminfo": f"MemTotal: {64 * GIB // 1024} kB\nMemAvailable: {free // 1024} kB\nSwapFree: 0 kB\n",
        "proc/self/cgroup": "0::/job\n",
        "proc/self/status": f"RssAnon: {used // 1024} kB\nRssShmem: 0 kB\n",
        "sys/fs/cgroup/job/memory.max": f"{limit}\n",
        "sys/fs/cgroup/job/memory.stat": f"inactive_file {cache}\nactive_file 0\n",
        "sys/fs/cgroup/job/memory.current": f"{used + cache}\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(text)
        new.rename(path)
    return root


class Heard:
    """What a guard said."""

    def __init__(self) -> None:
        self.errors: list[RecastError] = []
        self.came = threading.Event()

    def __call__(self, error: RecastError) -> None:
        self.errors.append(error)
        self.came.set()


def test_a_run_that_fills_its_cgroup_is_told_once_with_the_numbers(tmp_path: Path) -> None:
    heard = Heard()
    _machine(tmp_path, limit=GIB, used=300 * MIB)
    with MemoryGuard(heard, budget=256 * MIB, root=tmp_path) as guard:
        assert not heard.came.wait(0.3)
        _machine(tmp_path, limit=GIB, used=GIB - 63 * MIB)
        assert heard.came.wait(10)
        time.sleep(0.3)
    assert len(heard.errors) == 1
    (found,) = heard.errors[0].diagnostics
    assert (found.id, found.exit_code) == ("OUT_OF_MEMORY", 4)
    for number in (GIB, GIB - 63 * MIB, 63 * MIB, 64 * MIB, 256 * MIB):
        assert str(number) in found.reason
    assert "--memory_budget=128MiB" in found.suggestion
    assert (guard.limit, guard.peak_used, guard.peak_bytes) == (GIB, GIB - 63 * MIB, GIB - 63 * MIB)


def test_pages_that_the_kernel_can_take_back_are_no_danger(tmp_path: Path) -> None:
    heard = Heard()
    _machine(tmp_path, limit=GIB, used=300 * MIB)
    with MemoryGuard(heard, root=tmp_path) as guard:
        _machine(tmp_path, limit=GIB, used=300 * MIB, cache=724 * MIB)
        assert not heard.came.wait(0.3)
    assert guard.peak_used == 300 * MIB


def test_a_machine_that_fills_up_is_a_danger_whatever_the_cgroup_allows(tmp_path: Path) -> None:
    heard = Heard()
    _machine(tmp_path, limit=GIB, used=300 * MIB)
    with MemoryGuard(heard, root=tmp_path):
        _machine(tmp_path, limit=GIB, used=300 * MIB, free=500 * MIB)
        assert heard.came.wait(10)
    assert "what the machine has free" in str(heard.errors[0])


def test_a_run_that_begins_with_little_room_may_use_half_of_it(tmp_path: Path) -> None:
    heard = Heard()
    _machine(tmp_path, limit=256 * MIB, used=196 * MIB)
    with MemoryGuard(heard, root=tmp_path):
        _machine(tmp_path, limit=256 * MIB, used=220 * MIB)
        assert not heard.came.wait(0.3)
        _machine(tmp_path, limit=256 * MIB, used=227 * MIB)
        assert heard.came.wait(10)


def test_a_limit_that_is_lowered_during_the_run_counts(tmp_path: Path) -> None:
    heard = Heard()
    _machine(tmp_path, limit=8 * GIB, used=900 * MIB)
    with MemoryGuard(heard, root=tmp_path):
        _machine(tmp_path, limit=900 * MIB, used=900 * MIB)
        assert heard.came.wait(10)


def test_a_system_that_tells_nothing_is_never_in_danger(tmp_path: Path) -> None:
    heard = Heard()
    with MemoryGuard(heard, root=tmp_path) as guard:
        assert not heard.came.wait(0.3)
    assert guard.limit == 0


@pytest.mark.parametrize(
    ("limit", "used", "swap", "margin"),
    [
        (1 * GIB, 0, 0, 64 * MIB),
        (10 * GIB, 0, 0, 10 * GIB * 3 // 100),
        (512 * GIB, 0, 0, 512 * MIB),
        (1 * GIB, 1 * GIB - 50 * MIB, 0, 25 * MIB),
        (1 * GIB, 1 * GIB - 50 * MIB, 1 * GIB, 64 * MIB),
    ],
)
def test_the_margin_follows_the_limit(limit: int, used: int, swap: int, margin: int) -> None:
    assert memory_guard.margin_of(Bound(limit, used, "", swap)) == margin


def test_looks_come_before_the_room_can_be_gone() -> None:
    assert memory_guard.pause_before(100 * GIB) == 0.1
    assert memory_guard.pause_before(80 * MIB) < 0.01
    assert memory_guard.pause_before(-5) == 0.005


def test_a_peak_in_the_middle_is_seen_and_mapped_files_are_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "mapped").write_bytes(b"x" * (64 * MIB))
    before = memory.anonymous_bytes()
    with MemoryGuard(Heard()) as guard, open(tmp_path / "mapped", "rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert sum(mapped[i] for i in range(0, 64 * MIB, 4096)) == 16384 * ord("x")
            time.sleep(0.3)
        assert guard.peak_bytes < before + 32 * MIB
        with mmap.mmap(-1, 64 * MIB) as held:
            held.write(b"x" * (64 * MIB))
            deadline = time.monotonic() + 10
            while guard.peak_bytes < before + 60 * MIB and time.monotonic() < deadline:
                time.sleep(0.01)
    assert guard.peak_bytes >= before + 60 * MIB
    assert guard.peak_used > 0
