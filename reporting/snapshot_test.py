"""Tests of reports that outlive their process."""

from __future__ import annotations

import os
import signal

from reporting import text
from reporting.diagnostics import Diagnostic
from reporting.report import Report, StepRecord
from reporting.snapshot import SharedReport


def _report(command: str = "hf-to-maxtext") -> Report:
    report = Report(command)
    report.source, report.destination = "/in", "/out"
    report.options = {"scan": "true"}
    with report.step("open_source") as step:
        step.lines.append("3 arrays")
        step.diagnostics.append(
            Diagnostic("TENSOR_ALL_ZERO", "w is zero.\nReally: \u0436.", subject="w", stack=("a", "b"))
        )
    return report


def test_what_a_killed_child_had_reported_is_still_there() -> None:
    shared, report = SharedReport(), Report("hf-to-maxtext")
    child = os.fork()
    if child == 0:
        try:
            told = _report()
            shared.write(told)
            told.steps.append(StepRecord("convert", began=1.5))
            shared.write(told)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    shared.restore(report)
    assert [(step.name, step.began) for step in report.steps] == [("open_source", None), ("convert", 1.5)]
    report.steps.pop()
    assert text.render(report) == text.render(_report())
    assert report.steps[0].diagnostics == _report().steps[0].diagnostics
    assert (report.source, report.destination, report.options) == ("/in", "/out", {"scan": "true"})


def test_nothing_is_restored_where_nothing_was_kept() -> None:
    report = _report()
    SharedReport().restore(report)
    assert text.render(report) == text.render(_report())


def test_a_write_that_was_cut_off_leaves_the_one_before() -> None:
    shared, report = SharedReport(), Report("x")
    shared.write(_report())
    later = _report()
    later.steps.append(StepRecord("later"))
    shared.write(later)
    shared._memory[200] ^= 1
    shared.restore(report)
    assert [step.name for step in report.steps] == ["open_source"]


def test_a_report_that_is_too_long_is_kept_with_the_first_of_its_lines() -> None:
    shared, told, report = SharedReport(), _report(), Report("x")
    told.steps.append(StepRecord("check", lines=[f"line {n} " + "x" * 1000 for n in range(10_000)]))
    shared.write(told)
    shared.restore(report)
    assert report.steps[1].lines == told.steps[1].lines[:100]


def test_a_report_can_be_watched_step_by_step() -> None:
    report = Report("x")
    seen: list[tuple[str, bool]] = []
    report.on_change = lambda: seen.append((report.steps[-1].name, report.steps[-1].began is not None))
    with report.step("one"):
        pass
    with report.step("two"):
        pass
    assert seen == [("one", True), ("one", False), ("two", True), ("two", False)]
