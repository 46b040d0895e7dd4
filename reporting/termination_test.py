from __future__ import annotations

from pathlib import Path

import pytest

from reporting import termination
from reporting.diagnostics import Diagnostic
from reporting.report import Report


@pytest.fixture
def report() -> Report:
    report = Report("convert")
    report.add_failure("open_source", Diagnostic("UNKNOWN_SUBCOMMAND", "none"))
    report.finish()
    return report


def test_the_message_is_the_status_and_the_ids(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(termination.FILE, str(tmp_path / "log"))
    termination.leave(report)
    status, code, step = (tmp_path / "log").read_text().splitlines()
    assert status.endswith("ERROR - One or more failures have occurred. Do not deploy")
    assert (code, step) == (f"exit code {report.exit_code}", "open_source: UNKNOWN_SUBCOMMAND")


def test_it_is_never_longer_than_what_is_kept(report: Report) -> None:
    for number in range(500):
        report.add_failure(f"step_{number}", Diagnostic("UNKNOWN_SUBCOMMAND", "none"))
    assert len(termination.message(report)) == termination.LIMIT


def test_a_place_that_cannot_be_written_is_no_failure(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(termination.FILE, "/no/such/folder/log")
    termination.leave(report)
    monkeypatch.delenv(termination.FILE)
    termination.leave(report)
