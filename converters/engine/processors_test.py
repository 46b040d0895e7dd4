import os
from pathlib import Path

from converters.engine import processors


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_the_quota_of_a_group_around_counts_in_version_2(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/pod/main\n",
        "sys/fs/cgroup/pod/cpu.max": "100000 100000\n",
        "sys/fs/cgroup/pod/main/cpu.max": "max 100000\n",
    }
    assert processors.available(_tree(tmp_path, files)) == 1


def test_a_quota_of_version_1_is_rounded_up(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "3:cpu,cpuacct:/pod\n",
        "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "50000\n",
        "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000\n",
    }
    assert processors.available(_tree(tmp_path, files)) == 1


def test_without_a_quota_the_scheduler_decides(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "3:cpu,cpuacct:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"}
    assert processors.available(_tree(tmp_path, files)) == len(os.sched_getaffinity(0))
