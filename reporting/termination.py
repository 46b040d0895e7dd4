"""What Kubernetes shows of a container that has ended, its termination message: the final status and the error ids."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from reporting import text
from reporting.report import Report

DEFAULT = Path("/dev/termination-log")
"""Where Kubernetes reads the message from, unless a pod says otherwise; it puts an empty file there."""

LIMIT = 4096
"""How many bytes Kubernetes keeps."""


def message(report: Report) -> str:
    """The status line, the exit code, and a line for each step with errors."""
    lines = [text.status_line(report), f"exit code {report.exit_code}"]
    for step in report.steps:
        ids = dict.fromkeys(found.id for found in step.diagnostics if not found.warning)
        if ids:
            lines.append(f"{step.name}: {' '.join(ids)}")
    return "\n".join(lines).encode()[:LIMIT].decode("utf-8", "ignore")


def leave(report: Report, path: str | None = None) -> None:
    """Writes the message; a run does not fail for it.

    Args:
        report: of a run that has ended.
        path: the file; "" for none; if not given, that of Kubernetes where it is there.
    """
    file = DEFAULT if path is None else Path(path)
    if path == "" or (path is None and not _is_there(file)):
        return
    try:
        file.write_text(message(report), "utf-8")
    except OSError:
        return


def _is_there(file: Path) -> bool:
    """Whether a file awaits the message: not a link, a terminal or a pipe that somebody left at its place."""
    try:
        return stat.S_ISREG(os.lstat(file).st_mode)
    except OSError:
        return False
