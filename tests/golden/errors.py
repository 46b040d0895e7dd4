"""What a report says of every error id by itself: owner, suggestion, exit code and status line, under both prefixes.

`python -m tests.golden.errors > tests/golden/errors.json` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recast_proto import error_pb2
from reporting import console, text
from reporting.diagnostics import Diagnostic
from reporting.report import Report

FILE = Path(__file__).with_name("errors.json")
PREFIXES = ("Recast", "Byoc")
_SECONDS = 1756144150  # 2025-08-25T17:49:10UTC
_FRAME = "STEP: step - "


def texts() -> dict[str, Any]:
    """By id, its exit code and the lines of its step under each prefix, with the status line."""
    ids = error_pb2.RecastErrorId.DESCRIPTOR.values
    return {id.name: {"exit code": _report(id.name, "").exit_code, **_said(id.name)} for id in ids if id.number}


def _said(id: str) -> dict[str, list[str]]:
    return {prefix: _lines(_report(id, prefix)) for prefix in PREFIXES}


def _report(id: str, prefix: str) -> Report:
    report = Report("command")
    report.prefix = prefix
    diagnostic = Diagnostic(id, "What happened.", subject="what it is about")
    if diagnostic.warning:
        with report.step("step") as step:
            step.diagnostics.append(diagnostic)
    else:
        report.add_failure("step", diagnostic)
    report.finish(now=_SECONDS)
    return report


def _lines(report: Report) -> list[str]:
    lines = text.render(report).splitlines()
    begin = next(number for number, line in enumerate(lines) if _FRAME in line)
    return [line for line in lines[begin:] if line.strip() and set(line) not in ({"-"}, {"*"})]


if __name__ == "__main__":
    console.show(json.dumps(texts(), indent=2))
