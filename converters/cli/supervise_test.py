"""Tests of what is said about a killed worker; tests/bad_input kills real ones."""

from __future__ import annotations

import signal

import pytest

from converters.cli import supervise
from converters.cli.supervise import _Look
from reporting.report import Report, StepRecord
from validators.memory import Bound

GIB = 1 << 30
ROOMY = Bound(4 * GIB, GIB, "the cgroup limit of 4294967296 bytes")
FULL = Bound(4 * GIB, 4 * GIB - 100, "the cgroup limit of 4294967296 bytes")


@pytest.mark.parametrize(
    ("number", "kills", "bound", "id", "code", "says"),
    [
        (signal.SIGKILL, 1, ROOMY, "OUT_OF_MEMORY", 4, "The kernel killed the worker process for memory"),
        (signal.SIGKILL, 2, None, "OUT_OF_MEMORY", 4, "The kernel killed the worker process for memory"),
        (signal.SIGKILL, 0, FULL, "OUT_OF_MEMORY", 4, "probably for memory"),
        (signal.SIGKILL, 0, ROOMY, "WORKER_KILLED", 5, "SIGKILL: somebody, or what runs this machine"),
        (signal.SIGKILL, 0, None, "WORKER_KILLED", 5, "SIGKILL"),
        # Memory is no reason for any other signal, however little of it there was.
        (signal.SIGBUS, 1, FULL, "WORKER_KILLED", 5, "SIGBUS: probably a file of the source was shortened"),
        (signal.SIGSEGV, 0, FULL, "WORKER_KILLED", 5, "SIGSEGV: code that is not Python's crashed"),
        (signal.SIGHUP, 0, ROOMY, "WORKER_KILLED", 5, "SIGHUP: its terminal"),
        (signal.SIGUSR1, 0, ROOMY, "WORKER_KILLED", 5, "SIGUSR1: somebody, or what runs this machine, sent it"),
        (signal.SIGRTMIN + 1, 0, ROOMY, "WORKER_KILLED", 5, f"by signal {signal.SIGRTMIN + 1}: somebody"),
        (signal.SIGTERM, 0, ROOMY, "TERMINATED", 143, "told to stop"),
    ],
)
def test_the_signal_and_the_memory_decide_what_is_said(
    number: int, kills: int, bound: Bound | None, id: str, code: int, says: str
) -> None:
    found = supervise._describe(number, kills, _Look(bound, 123_456_789))
    assert (found.id, found.exit_code) == (id, code)
    assert says in found.reason
    figures = () if bound is None or id == "TERMINATED" else (bound.used, bound.limit, 123_456_789)
    assert all(str(figure) in found.reason for figure in figures)


def test_swap_space_that_is_left_speaks_against_memory() -> None:
    bound = Bound(4 * GIB, 4 * GIB - 100, "", swap=GIB)
    assert supervise._describe(signal.SIGKILL, 0, _Look(bound, 0)).id == "WORKER_KILLED"


def test_the_step_that_was_running_is_blamed_else_a_new_one() -> None:
    found = supervise._describe(signal.SIGKILL, 0, _Look(None, 0))
    running, between = Report("x"), Report("x")
    running.steps = [StepRecord("open_source"), StepRecord("convert", began=0.0)]
    between.steps = [StepRecord("open_source")]
    for report, names in ((running, ["open_source", "convert"]), (between, ["open_source", "name"])):
        supervise._blame(report, found, "name")
        assert [step.name for step in report.steps] == names
        assert [step.failed for step in report.steps] == [False, True]
    assert running.steps[1].seconds > 0
