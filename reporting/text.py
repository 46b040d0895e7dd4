"""The FINAL REPORT as text, in the form that log readers of the serving platform know."""

from __future__ import annotations

from collections.abc import Iterator

from reporting.diagnostics import Diagnostic
from reporting.report import Report, StepRecord

_RULE = "-" * 47
_STARS = "*" * 51

SUCCESS = "The process is completed without any errors."
FAILURE = "One or more failures have occurred. Do not deploy"


def render(report: Report) -> str:
    """The whole report."""
    lines = [f"FINAL REPORT FOR: `{_one_line(report.command)}`", _STARS, ""]
    for number, step in enumerate(report.steps, start=1):
        lines.extend(_step(number, step, report.prefix))
    if report.failed:
        lines.append("")
    lines.append(_STARS)
    lines.append(status_line(report))
    return "\n".join(lines) + "\n"


def status_line(report: Report) -> str:
    """The last line: time, logger, level and outcome."""
    level, text = ("ERROR", FAILURE) if report.failed else ("INFO", SUCCESS)
    return f"{report.finished} - {report.prefix.lower()}_lib - {level} - {text}"


def _step(number: int, step: StepRecord, prefix: str) -> Iterator[str]:
    status = "Failed" if step.failed else "Succeeded"
    yield _RULE
    yield f"[{number}] STEP: {step.name} - {status}"
    yield _RULE
    yield ""
    yield ""
    errors = [d for d in step.diagnostics if not d.warning]
    warnings = [d for d in step.diagnostics if d.warning]
    yield "> Errors" if errors else "> Errors (None)"
    for error in errors:
        yield from _diagnostic(error, prefix)
    if not errors:
        yield ""
    if warnings:
        yield "> Warnings"
        for warning in warnings:
            yield from _diagnostic(warning, prefix)
    if step.lines:
        yield "> Details"
        yield from (f"  {_one_line(line)}" for line in step.lines)
        yield ""


def _diagnostic(d: Diagnostic, prefix: str) -> Iterator[str]:
    yield f"  Id: {prefix}ErrorId.{d.id}"
    yield f"  Responsible: {prefix}ErrorOwner.{d.owner}"
    yield f"  Reason: {_one_line(d.reason)}"
    if d.subject:
        yield f"  Subject: {_one_line(d.subject)}"
    yield f"  Suggestion: {_one_line(d.suggestion)}"
    yield ""
    if d.stack:
        yield "  Stack Trace:"
        yield from (f"    {line}" for line in _one_line_each(d.stack))
        yield ""


def _one_line(text: str) -> str:
    """A text whose line breaks and control characters cannot imitate a report."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def _one_line_each(stack: tuple[str, ...]) -> list[str]:
    return [_one_line(part.strip()) for line in stack for part in line.split("\n") if part.strip()]
