"""Runs a command and measures it with all processes that it starts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

_SAMPLE_SECONDS = 0.02
_STOP_SECONDS = 20.0
_PROC = Path("/proc")
_KEPT_OUTPUT = 4000


@dataclasses.dataclass(frozen=True)
class Measurement:
    """How a command went.

    Attributes:
        code: its exit code, negative for a signal.
        wall_seconds: from its start to its end.
        cpu_seconds: user and system time of all of its processes.
        characters_read: bytes that its processes took by `read` and its like, cached or not; mapped files do not count.
        characters_written: bytes that they gave to `write` and its like.
        peak_bytes: the most anonymous and shared memory that its processes held together. Pages that two of them share
            after a fork count twice.
        output: the end of what it printed.
    """

    code: int
    wall_seconds: float
    cpu_seconds: float
    characters_read: int
    characters_written: int
    peak_bytes: int
    output: str


class TreeSampler:
    """Watches the memory of a process and of its descendants while a block runs.

    Attributes:
        peak_bytes: the most that was seen.
        processes: the most processes that were seen at once.
    """

    def __init__(self, pid: int, seconds: float = _SAMPLE_SECONDS):
        self.peak_bytes = 0
        self.processes = 0
        self._pid = pid
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="tree memory", daemon=True)

    def __enter__(self) -> TreeSampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            found = list(tree(self._pid))
            self.peak_bytes = max(self.peak_bytes, sum(memory_of(pid) for pid in found))
            self.processes = max(self.processes, len(found))
            self._stop.wait(self._seconds)


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measurement:
    """Runs a command to its end.

    Args:
        command: program and arguments.
        environment: its variables; those of this process if left out.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            with TreeSampler(process.pid) as sampler:
                # Not reaped yet, so that its counters can still be read.
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
                wall = time.perf_counter() - start
            characters = io_of(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _stop(process)
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        return Measurement(
            code=process.returncode,
            wall_seconds=wall,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            characters_read=characters.get("rchar", 0),
            characters_written=characters.get("wchar", 0),
            peak_bytes=sampler.peak_bytes,
            output=_tail(output.fileno()),
        )


def tree(pid: int) -> Iterator[int]:
    """A process and its descendants, as far as they still run."""
    yield pid
    for thread in _listed(_PROC / str(pid) / "task"):
        for child in _text(_PROC / str(pid) / "task" / thread / "children").split():
            yield from tree(int(child))


def memory_of(pid: int) -> int:
    """Anonymous and shared bytes of a process now; 0 once it has ended."""
    fields = _fields(_PROC / str(pid) / "status")
    return 1024 * (fields.get("RssAnon", 0) + fields.get("RssShmem", 0))


def io_of(pid: int) -> dict[str, int]:
    """The counters of /proc/PID/io, with those of descendants that were waited for."""
    return _fields(_PROC / str(pid) / "io")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a command: first as a user would, so that it can end the processes that it started."""
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _fields(path: Path) -> dict[str, int]:
    values = {}
    for line in _text(path).splitlines():
        name, _, rest = line.partition(":")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            values[name] = int(number[0])
    return values


def _listed(path: Path) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _tail(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, _KEPT_OUTPUT, max(0, size - _KEPT_OUTPUT)).decode("utf-8", "replace")
