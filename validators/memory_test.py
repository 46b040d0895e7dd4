"""Tests of what memory can be had, on made-up machines."""

from __future__ import annotations

from pathlib import Path

from validators import memory

GIB = 1 << 30
STAT_V2 = "anon 400\nfile 700\ninactive_file 300\nactive_file 200\nslab_reclaimable 100\n"
STAT_V1 = "inactive_file 1\nactive_file 2\ntotal_inactive_file 300\ntotal_active_file 200\n"


def _machine(root: Path, *, free_kib: int = 1 << 20, cgroup: str = "0::/\n", own_kib: int = 0) -> Path:
    _write(root / "proc/meminfo", f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable: {free_kib} kB\n")
    _write(root / "proc/self/cgroup", cgroup)
    _write(root / "proc/self/status", f"VmHWM: 77777 kB\nRssAnon: {own_kib} kB\nRssFile: 555 kB\nRssShmem: 0 kB\n")
    return root


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _v2(root: Path, group: str, limit: object, usage: object, stat: str = "") -> None:
    folder = root / "sys/fs/cgroup" / group
    _write(folder / "memory.max", f"{limit}\n")
    _write(folder / "memory.current", f"{usage}\n")
    _write(folder / "memory.stat", stat)


def _v1(root: Path, group: str, limit: object, usage: object, stat: str = "") -> None:
    folder = root / "sys/fs/cgroup/memory" / group
    _write(folder / "memory.limit_in_bytes", f"{limit}\n")
    _write(folder / "memory.usage_in_bytes", f"{usage}\n")
    _write(folder / "memory.stat", stat)


def _bytes(root: Path) -> int:
    bound = memory.available(root)
    assert bound is not None
    return bound.bytes


def test_without_a_limit_the_machine_bounds(tmp_path: Path) -> None:
    bound = memory.available(_machine(tmp_path))
    assert bound == memory.Available(GIB, "what the machine has free")


def test_what_the_process_already_has_counts_as_had(tmp_path: Path) -> None:
    assert _bytes(_machine(tmp_path, own_kib=64)) == GIB + (64 << 10)


def test_a_limit_of_version_2_bounds_and_pages_that_can_be_taken_back_do_not_count(tmp_path: Path) -> None:
    _v2(_machine(tmp_path, cgroup="0::/job\n"), "job", 10_000, 1_500, STAT_V2)
    assert memory.available(tmp_path) == memory.Available(10_000 - 900, "the cgroup limit of 10000 bytes")


def test_a_limit_of_version_1_bounds_with_the_totals_of_its_groups(tmp_path: Path) -> None:
    cgroup = "9:name=systemd:/\n4:cpu,memory:/job\n0::/\n"
    _v1(_machine(tmp_path, cgroup=cgroup), "job", 10_000, 1_500, STAT_V1)
    assert _bytes(tmp_path) == 10_000 - 1_000


def test_the_tightest_of_nested_groups_bounds(tmp_path: Path) -> None:
    _machine(tmp_path, cgroup="0::/pod/container\n")
    _v2(tmp_path, "pod", 5_000, 1_000)
    _v2(tmp_path, "pod/container", 9_000, 1_000)
    assert _bytes(tmp_path) == 4_000


def test_a_container_that_sees_only_its_own_group_is_bounded_by_it(tmp_path: Path) -> None:
    _v1(_machine(tmp_path, cgroup="4:memory:/libpod_parent/libpod-0123\n"), "", 5_000, 1_000)
    assert _bytes(tmp_path) == 4_000


def test_groups_without_a_limit_do_not_bound(tmp_path: Path) -> None:
    _machine(tmp_path, cgroup="4:memory:/job\n0::/job\n")
    _v2(tmp_path, "job", "max", 1_000)
    _v1(tmp_path, "job", 9223372036854771712, 1_000)
    assert _bytes(tmp_path) == GIB


def test_a_machine_with_less_than_the_limit_bounds(tmp_path: Path) -> None:
    _v2(_machine(tmp_path, free_kib=1, cgroup="0::/job\n"), "job", GIB, 0)
    assert _bytes(tmp_path) == 1024


def test_a_group_over_its_limit_gives_nothing(tmp_path: Path) -> None:
    _v2(_machine(tmp_path, cgroup="0::/job\n"), "job", 1_000, 2_000)
    assert _bytes(tmp_path) == 0


def test_a_group_of_another_controller_does_not_bound(tmp_path: Path) -> None:
    _v1(_machine(tmp_path, cgroup="4:memoryless:/job\n"), "job", 1_000, 0)
    assert _bytes(tmp_path) == GIB


def test_nonsense_in_the_files_does_not_bound(tmp_path: Path) -> None:
    _machine(tmp_path, cgroup="\nx\n0::/job\n0::/../..\n")
    _v2(tmp_path, "job", "many", "few", "inactive_file\n\nx y\n")
    assert _bytes(tmp_path) == GIB


def test_a_system_that_tells_nothing_bounds_nothing(tmp_path: Path) -> None:
    assert memory.available(tmp_path) is None
    assert memory.anonymous_bytes(tmp_path) == 0


def test_this_machine_tells_something() -> None:
    assert _bytes(Path("/")) > 0
    assert memory.anonymous_bytes() > 1 << 20


def test_swap_space_counts_apart_and_is_not_planned_with(tmp_path: Path) -> None:
    _v2(_machine(tmp_path, cgroup="0::/job\n"), "job", 10_000, 4_000)
    _write(tmp_path / "proc/meminfo", "MemTotal: 1024 kB\nMemAvailable: 1024 kB\nSwapFree: 3 kB\n")
    for given, expected in (("", 0), ("2000", 1_500), ("max", 3072), ("400", 0)):
        _write(tmp_path / "sys/fs/cgroup/job/memory.swap.max", given)
        _write(tmp_path / "sys/fs/cgroup/job/memory.swap.current", "500")
        (group,) = (bound for bound in memory.bounds(tmp_path) if bound.limit == 10_000)
        assert (group.left, group.swap) == (6_000, expected), given
    assert _bytes(tmp_path) == 6_000


def test_version_1_counts_swap_space_together_with_memory(tmp_path: Path) -> None:
    _v1(_machine(tmp_path, cgroup="4:memory:/job\n"), "job", 10_000, 4_000)
    _write(tmp_path / "proc/meminfo", "MemTotal: 1024 kB\nMemAvailable: 1024 kB\nSwapFree: 1000 kB\n")
    folder = tmp_path / "sys/fs/cgroup/memory/job"
    _write(folder / "memory.memsw.limit_in_bytes", "15000")
    _write(folder / "memory.memsw.usage_in_bytes", "4200")
    for swappiness, expected in (("60", 4_800), ("0", 0)):
        _write(folder / "memory.swappiness", swappiness)
        (group,) = (bound for bound in memory.bounds(tmp_path) if bound.limit == 10_000)
        assert group.swap == expected


def test_kills_are_counted_in_the_group_of_the_process(tmp_path: Path) -> None:
    _machine(tmp_path, cgroup="0::/pod/container\n")
    _write(tmp_path / "sys/fs/cgroup/pod/memory.events", "low 0\noom 9\noom_kill 9\n")
    _write(tmp_path / "sys/fs/cgroup/pod/container/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert memory.oom_kills(tmp_path) == 2


def test_kills_of_version_1_and_of_the_machine_are_counted(tmp_path: Path) -> None:
    _machine(tmp_path, cgroup="4:memory:/job\n0::/\n")
    _write(tmp_path / "proc/vmstat", "nr_free_pages 5\noom_kill 7\n")
    assert memory.oom_kills(tmp_path) == 7
    _write(tmp_path / "sys/fs/cgroup/memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert memory.oom_kills(tmp_path) == 1
