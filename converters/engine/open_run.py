"""The open-run marker: what a run that is killed with all of its processes leaves for the next one to tell.

It lies in the staging folder from the first byte to the end. A run that ends with a report removes it, whether it
succeeded or failed; so what is found there belongs to a run that could not say anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from reporting import version
from reporting.diagnostics import Diagnostic

FILE = "run.json"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LARGEST_FILE = 4096
_LARGEST_NUMBER = 1 << 62
# Memory this close to its limit, as a share, is the probable reason of a kill.
_NEAR = 0.85
# Peaks are written when they have grown by so much: often enough to tell, and seldom enough to cost nothing.
_GROWTH = 32 << 20

_TEXTS = {
    "request": r"[0-9a-f]{0,128}",
    "plan": r"[0-9a-f]{0,128}",
    "boot_id": r"[0-9a-f-]{0,40}",
    "started": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dUTC",
    "version": r"[0-9A-Za-z.+-]{1,40}",
    "step": r"[a-z_]{0,40}",
}


@dataclasses.dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has not ended.

    Attributes:
        request: digest of the request, `plan` that of the plan.
        pid: its process, in its own container's numbers.
        boot_id: which start of the machine it ran in; empty if nothing tells.
        started: when, as in reports.
        version: of Recast.
        memory_limit: the bound that had the least left, 0 if nothing told; `memory_budget` as asked for.
        peak_bytes: the most anonymous and shared memory of its process so far.
        peak_used: the most that was used under `memory_limit` so far, by all processes.
        step: what it was doing.
    """

    request: str
    plan: str
    pid: int
    boot_id: str
    started: str
    version: str
    memory_limit: int
    memory_budget: int
    peak_bytes: int = 0
    peak_used: int = 0
    step: str = ""

    @classmethod
    def of_this_process(cls, request: str, plan: str, memory_budget: int) -> OpenRun:
        """A run that begins now, here."""
        started = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SUTC")
        return cls(request, plan, os.getpid(), boot_id(), started, version.VERSION, 0, memory_budget)


class Keeper:
    """Keeps a run's marker in a folder up to date while a block runs; the marker stays when the block ends."""

    def __init__(self, folder: Path, run: OpenRun, figures: Callable[[], tuple[int, int, int]], seconds: float = 1.0):
        """Args: `figures` returns memory_limit, peak_bytes and peak_used, as MemoryGuard has them."""
        self._folder = folder
        self._run = run
        self._figures = figures
        self._seconds = seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="open run", daemon=True)

    def __enter__(self) -> Keeper:
        write(self._folder, self._run)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._seconds):
            limit, peak_bytes, peak_used = self._figures()
            # A disk that is full or gone is for the run itself to report.
            with contextlib.suppress(OSError):
                self._run = update_peak(self._folder, self._run, limit, peak_bytes, peak_used)


def write(folder: Path, run: OpenRun) -> None:
    """Puts the marker into a folder, whole, and waits until it is on the disk."""
    _replace(folder, run, durable=True)


def update_peak(folder: Path, run: OpenRun, memory_limit: int, peak_bytes: int, peak_used: int) -> OpenRun:
    """Notes new figures if they have grown enough to matter; returns the run as it is noted.

    Not made durable: a kill does not take what the kernel holds, and a machine that stops tells nothing about memory.
    """
    grown = max(peak_bytes - run.peak_bytes, peak_used - run.peak_used)
    if grown < _GROWTH and memory_limit == run.memory_limit:
        return run
    run = dataclasses.replace(run, memory_limit=memory_limit, peak_bytes=peak_bytes, peak_used=peak_used)
    _replace(folder, run, durable=False)
    return run


def read(folder: Path) -> OpenRun | None:
    """The marker of a run that was left open; None if there is none, or if something else has its name.

    Others may be able to write to the folder: nothing is followed, waited for or believed beyond its form.
    """
    try:
        descriptor = os.open(folder / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = os.read(descriptor, _LARGEST_FILE + 1)
        said = json.loads(content.decode("ascii")) if len(content) <= _LARGEST_FILE else None
    except (OSError, ValueError, RecursionError):
        return None
    finally:
        os.close(descriptor)
    return _checked(said)


def clear(folder: Path) -> None:
    """Removes the marker: the run has ended, and says so itself."""
    for name in (FILE, _part(folder).name):
        (folder / name).unlink(missing_ok=True)


def describe_abandoned(found: OpenRun, now: datetime.datetime) -> Diagnostic:
    """What the next run says about one that was left open."""
    used = _memory(found)
    age = _age(found.started, now)
    where = f" in step {found.step}" if found.step else ""
    head = f"The previous run (started {found.started}{age}, process {found.pid}, Recast {found.version}) ended{where} "
    here = boot_id()
    if found.boot_id and here and found.boot_id != here:
        why = "without a report of its own: the machine has restarted since, or this is another one."
    elif _near(found):
        why = "without a report of its own: probably it was killed for memory."
    else:
        why = "without a report of its own: it was killed from outside, or its container or machine was."
    suggestion = "Pass a smaller --memory_budget, or give the process more memory." if _near(found) else ""
    return Diagnostic("PREVIOUS_RUN_KILLED", f"{head}{why} {used}", suggestion=suggestion, subject=FILE)


def boot_id() -> str:
    """Which start of the machine this is; empty if nothing tells."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""


def _near(run: OpenRun) -> bool:
    return run.memory_limit > 0 and run.peak_used >= _NEAR * run.memory_limit


def _memory(run: OpenRun) -> str:
    own = f"{run.peak_bytes} bytes by the process itself; its memory budget was {run.memory_budget} bytes"
    if not run.memory_limit:
        return f"It was last seen using {own}."
    return f"It was last seen with {run.peak_used} of {run.memory_limit} bytes of memory in use, {own}."


def _age(started: str, now: datetime.datetime) -> str:
    try:
        then = datetime.datetime.strptime(started, "%Y-%m-%dT%H:%M:%SUTC").replace(tzinfo=datetime.UTC)
    except ValueError:
        return ""
    seconds = int((now - then).total_seconds())
    if seconds < 0:
        return ""
    days, rest = divmod(seconds, 86400)
    return f", {days} days ago" if days else f", {rest // 3600}:{rest % 3600 // 60:02}:{rest % 60:02} ago"


def _checked(said: Any) -> OpenRun | None:
    fields = dataclasses.fields(OpenRun)
    if not isinstance(said, dict) or said.keys() != {field.name for field in fields}:
        return None
    for field in fields:
        value = said[field.name]
        if field.name in _TEXTS:
            if not isinstance(value, str) or not re.fullmatch(_TEXTS[field.name], value, re.ASCII):
                return None
        elif type(value) is not int or not 0 <= value <= _LARGEST_NUMBER:
            return None
    return OpenRun(**said)


def _part(folder: Path) -> Path:
    return folder / f"{FILE}.part"


def _replace(folder: Path, run: OpenRun, *, durable: bool) -> None:
    part = _part(folder)
    part.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(part, flags, 0o644), "wb") as file:
        file.write(json.dumps(dataclasses.asdict(run), indent=1).encode("ascii") + b"\n")
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.replace(part, folder / FILE)
    if durable:
        _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
