"""The termination message: however a run ends, the status and the error ids are where Kubernetes reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.judging import Fault, refused
from tests.bad_input.running import hf_to_maxtext, process, recast

_PROGRAM = """
import os, signal
from converters.cli.program import Program, main
from reporting.diagnostics import RecastError

def execute(prepared, report):
    with report.step("work"):
        {body}
    return ""

main(Program("trial", "", lambda _: None, lambda *_: None, execute, supervised=True))
"""


@pytest.mark.parametrize(
    ("body", "code", "step"),
    [
        ("pass", 0, ""),
        ("raise RecastError.of('DISK_FULL', 'x')", 5, "work: DISK_FULL"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 5, "work: WORKER_KILLED"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 1)", 5, "work: WORKER_KILLED"),
        ("os.kill(os.getppid(), signal.SIGTERM); signal.pause()", 143, "work: TERMINATED"),
    ],
)
def test_a_supervised_run_leaves_its_end(body: str, code: int, step: str, tmp_path: Path) -> None:
    place = tmp_path / "message"
    run = process(f"--termination_message_path={place}", script=_PROGRAM.format(body=body))
    assert run.code == code, run.output
    status, said, *steps = place.read_text().splitlines()
    assert status in run.output.splitlines()
    assert said == f"exit code {code}"
    assert steps == ([step] if step else [])


def test_a_conversion_leaves_its_end(hf: Path, destination: Path, tmp_path: Path) -> None:
    place = tmp_path / "message"
    flag = f"--termination_message_path={place}"
    assert hf_to_maxtext(hf, destination, flag).code == 0
    assert place.read_text().splitlines()[1:] == ["exit code 0"]
    refused(hf_to_maxtext(tmp_path / "none", destination / "other", flag), Fault("SOURCE_NOT_FOUND", "none"))
    assert place.read_text().splitlines()[1:] == ["exit code 2", "open_source: SOURCE_NOT_FOUND"]


def test_commands_without_a_report_leave_their_end_as_well(tmp_path: Path) -> None:
    place = tmp_path / "message"
    assert recast("families", "--models", f"--termination_message_path={place}").code == 0
    assert place.read_text().endswith("exit code 0")


def test_the_flag_is_not_one_of_the_conversion(hf: Path, tmp_path: Path) -> None:
    place = tmp_path / "message"
    run = recast("convert", hf, tmp_path / "out", "--to=maxtext", f"--termination_message_path={place}")
    assert run.code == 0, run.output
    assert "exit code 0" in place.read_text()
