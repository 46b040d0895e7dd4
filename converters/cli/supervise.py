"""Runs work in a process of its own, so that somebody is left to report when the kernel kills it.

The parent does nothing but wait, pass signals on and look at memory now and then. A worker that ends by itself has
printed its own report; for one that was killed, the parent prints what the worker had reported and what killed it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NoReturn

from reporting.diagnostics import Diagnostic
from reporting.report import Report, StepRecord
from reporting.snapshot import SharedReport
from validators import memory
from validators.memory import Bound

_FORWARDED = (signal.SIGTERM, signal.SIGINT)
_HELD = frozenset((*_FORWARDED, signal.SIGCHLD))
_LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1
# A worker that SIGKILL ended with less than this share of a limit left was probably killed for memory.
_NEAR = 0.1
_LONGEST_TRACE = 1 << 16
_EXIT_LIBRARY = 3
_WHY: Mapping[int, str] = {
    signal.SIGKILL: "somebody, or what runs this machine, killed it.",
    signal.SIGBUS: "probably a file of the source was shortened, or could not be read any more, while it was mapped.",
    signal.SIGHUP: "its terminal or session ended.",
    **dict.fromkeys(
        (signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE), "code that is not Python's crashed."
    ),
}
_SENT = "somebody, or what runs this machine, sent it."


@dataclasses.dataclass(frozen=True, slots=True)
class _Look:
    """The memory that was seen last: the bound with the least left, and the worker's own anonymous and shared bytes."""

    bound: Bound | None
    worker: int


def run(work: Callable[[Callable[[], None]], int], report: Report, name: str, conclude: Callable[[], int]) -> int:
    """Does `work` in a child of this process, which must have one thread only.

    Args:
        work: prints its own report and returns the exit code. It must call its argument once it is ready for SIGTERM
            and SIGINT, which are held until then.
        report: filled by `work` in the child, and in this process only where the child is killed.
        name: of the step to blame where the child is killed between steps.
        conclude: prints the report of this process and returns the exit code.

    Returns:
        The exit code.
    """
    shared = SharedReport()
    traces = os.memfd_create("traces")
    # Were it ignored, as whoever started this process may have left it, the child's end would go unseen.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    kills = memory.oom_kills()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    worker = os.fork()
    if worker == 0:
        _be_worker(lambda: work(lambda: _release(mask)), report, shared, traces, parent)
    # Signals stay held here to the end: one that comes after the work must not take its exit code away.
    ended, look = _wait(worker)
    code = os.waitstatus_to_exitcode(ended)
    if code >= 0:
        return code
    if shared.concluded is not None:
        return shared.concluded
    shared.restore(report)
    found = _describe(-code, memory.oom_kills() - kills, look)
    _blame(report, dataclasses.replace(found, stack=_trace(traces)), name)
    return conclude()


def _be_worker(work: Callable[[], int], report: Report, shared: SharedReport, traces: int, parent: int) -> NoReturn:
    code = _EXIT_LIBRARY
    try:
        for number in _FORWARDED:
            # Not SIG_IGN, which would drop what is held: before and after the work there is nothing to stop.
            signal.signal(number, _let_pass)
        _end_with(parent)
        faulthandler.enable(traces)
        report.on_change = lambda: shared.write(report)
        code = work()
        shared.concluded = code
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        # The parent's code is below on this stack, and must not run twice.
        os._exit(code)


def _let_pass(_signal: int, _frame: FrameType | None) -> None:
    return


def _release(mask: set[signal.Signals | int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end_with(parent: int) -> None:
    """Asks for SIGTERM when the parent is gone: nobody waits for a worker without one."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _wait(worker: int) -> tuple[int, _Look]:
    """Waits for the worker, and for any orphan where this process is a container's first; returns its status."""
    look = _Look(None, 0)
    everybody = os.getpid() == 1
    while True:
        told = signal.sigtimedwait(_HELD, _LOOK_SECONDS)
        if told is None:
            look = _looked(worker, look)
        elif told.si_signo in _FORWARDED:
            # The worker cannot be gone yet: this process is the one that lets it go, below.
            os.kill(worker, told.si_signo)
        ended = 1
        while ended > 0:
            ended, status = os.waitpid(-1 if everybody else worker, os.WNOHANG)
            if ended == worker:
                return status, look


def _looked(worker: int, before: _Look) -> _Look:
    held = memory.anonymous_bytes(process=worker)
    if not held:
        # On its way out, it holds nothing any more.
        return before
    return _Look(min(memory.bounds(), key=lambda bound: bound.left + bound.swap, default=None), held)


def _describe(number: int, oom_kills: int, look: _Look) -> Diagnostic:
    bound = look.bound
    seen = ""
    if bound is not None:
        seen = (
            f" When last seen, {bound.used} of {bound.limit} bytes of memory were used, {look.worker} of them by the "
            f"worker; the bound is {bound.limited_by}."
        )
    if number == signal.SIGKILL and oom_kills > 0:
        return Diagnostic("OUT_OF_MEMORY", f"The kernel killed the worker process for memory (SIGKILL).{seen}")
    if number == signal.SIGKILL and bound is not None and bound.left + bound.swap < _NEAR * bound.limit:
        return Diagnostic("OUT_OF_MEMORY", f"The worker process was killed (SIGKILL), probably for memory.{seen}")
    if number in _FORWARDED:
        return Diagnostic("TERMINATED", "The run was told to stop; no output was completed.")
    why = _WHY.get(number, _SENT)
    return Diagnostic("WORKER_KILLED", f"The worker process was ended by {_signal_name(number)}: {why}{seen}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        # Real-time signals have no names of their own but the first and the last.
        return f"signal {number}"


def _blame(report: Report, found: Diagnostic, name: str) -> None:
    """Adds a failure to the step that was running, or else to a new one."""
    if not report.steps or report.steps[-1].began is None:
        report.steps.append(StepRecord(name))
    step = report.steps[-1]
    if step.began is not None:
        step.seconds, step.began = time.monotonic() - step.began, None
    step.diagnostics.append(found)


def _trace(traces: int) -> tuple[str, ...]:
    """Where each thread of a worker that crashed was, as its last act wrote it down."""
    return tuple(os.pread(traces, _LONGEST_TRACE, 0).decode("utf-8", "replace").splitlines())
