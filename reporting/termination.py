"""What Kubernetes shows of a container that has ended, its termination message: the final status and the error ids."""

from __future__ import annotations

import os
from pathlib import Path

from reporting import text
from reporting.report import Report

FILE = "RECAST_TERMINATION_LOG"
"""The environment variable that names the file; the Jobs set it."""

LIMIT = 4096
"""How much Kubernetes keeps."""


def message(report: Report) -> str:
    """The status line, the exit code, and a line for each step with errors."""
    lines = [text.status_line(report), f"exit code {report.exit_code}"]
    for step in report.steps:
        ids = dict.fromkeys(found.id for found in step.diagnostics if not found.warning)
        if ids:
            lines.append(f"{step.name}: {' '.join(ids)}")
    return "\n".join(lines)[:LIMIT]


def leave(report: Report) -> None:
    """Writes the message where it is asked for; a run does not fail for it."""
    path = os.environ.get(FILE)
    if path:
        try:
            Path(path).write_text(message(report), "utf-8")
        except OSError:
            return
