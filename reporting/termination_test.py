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


def test_the_message_is_the_status_and_the_ids(report: Report, tmp_path: Path) -> None:
    termination.leave(report, str(tmp_path / "log"))
    status, code, step = (tmp_path / "log").read_text().splitlines()
    assert status.endswith("ERROR - One or more failures have occurred. Do not deploy")
    assert (code, step) == (f"exit code {report.exit_code}", "open_source: UNKNOWN_SUBCOMMAND")


def test_it_is_never_longer_than_what_is_kept(report: Report) -> None:
    for number in range(500):
        report.add_failure(f"step_{number}", Diagnostic("UNKNOWN_SUBCOMMAND", "none"))
    assert len(termination.message(report)) == termination.LIMIT


def test_by_default_it_goes_to_the_file_that_kubernetes_made_and_nowhere_else(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "termination-log"
    monkeypatch.setattr(termination, "DEFAULT", place)
    termination.leave(report)
    assert not place.exists()
    place.symlink_to(tmp_path / "other")
    (tmp_path / "other").touch()
    termination.leave(report)
    assert (tmp_path / "other").read_text() == ""
    place.unlink()
    place.touch()
    termination.leave(report, "")
    assert place.read_text() == ""
    termination.leave(report)
    assert place.read_text() == termination.message(report)


def test_a_place_that_cannot_be_written_is_no_failure(report: Report) -> None:
    termination.leave(report, "/no/such/folder/log")
