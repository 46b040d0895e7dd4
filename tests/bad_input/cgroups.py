"""Memory limits by the kernel itself, for tests, where this user may make a cgroup."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bad_input.running import environment

_MOUNTS = {"memory": Path("/sys/fs/cgroup/memory"), "": Path("/sys/fs/cgroup")}


class Group:
    """A cgroup of the test's own, inside of the one that the tests run in."""

    def __init__(self, folder: Path):
        self._folder = folder

    def join(self) -> None:
        """Puts the calling process into the group: for `preexec_fn`."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs Python code in the group."""
        return subprocess.run(
            [sys.executable, "-c", script, *arguments],
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=self.join,
        )

    def oom_kills(self) -> int:
        """How many of its processes the kernel has killed for memory."""
        for name in ("memory.oom_control", "memory.events"):
            path = self._folder / name
            if path.exists():
                fields = dict(line.split() for line in path.read_text().splitlines())
                return int(fields["oom_kill"])
        raise AssertionError("the group counts nothing")


@contextlib.contextmanager
def limited(limit: int) -> Iterator[Group]:
    """A group with a limit and without swap; skips the test where none can be made."""
    folder = _own_folder() / f"recast-test-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"this user may not make a cgroup: {error.strerror}")
    try:
        _set_limit(folder, limit)
        yield Group(folder)
    finally:
        _patiently(folder.rmdir)


def _own_folder() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in _MOUNTS:
            mount = _MOUNTS[controllers]
            own = mount / path.lstrip("/")
            # In a container the path may be the host's; its own group is then the mount.
            own = own if own.is_dir() else mount
            if (own / "memory.stat").is_file():
                return own
    pytest.skip("this machine has no cgroup for memory")


def _set_limit(folder: Path, limit: int) -> None:
    version_1 = folder / "memory.limit_in_bytes"
    version_2 = folder / "memory.max"
    if not version_1.exists() and not version_2.exists():
        pytest.skip("groups inside of this one have no limit of memory")
    try:
        (version_1 if version_1.exists() else version_2).write_text(str(limit))
        for name, value in (("memory.memsw.limit_in_bytes", limit), ("memory.swap.max", 0)):
            if (folder / name).exists():
                (folder / name).write_text(str(value))
    except OSError as error:
        pytest.skip(f"this user may not limit a cgroup: {error.strerror}")


def _patiently(remove: Callable[[], None]) -> None:
    """A group is busy for a moment after its last process."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            return remove()
        time.sleep(0.05)
    remove()
