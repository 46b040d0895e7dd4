"""Rows of the compatibility table: what was compared, what came out, and why."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable

from reporting.diagnostics import Diagnostic

ADVICE = "DRAFT_ADVICE"
"""The id of all warnings."""


class Outcome(enum.Enum):
    """What a check says of a pair."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    WARNING = "warning"
    NOT_APPLICABLE = "not applicable"


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One check of a pair.

    Attributes:
        check: what was compared.
        outcome: what came out.
        reason: a sentence.
        target: what the target states; may be empty.
        draft: what the draft states; may be empty.
        error_id: of the violation, where it is refused.
        suggestion: what to do; that of the error id where empty.
    """

    check: str
    outcome: Outcome
    reason: str
    target: str = ""
    draft: str = ""
    error_id: str = ""
    suggestion: str = ""


def accepted(check: str, reason: str, target: object = "", draft: object = "") -> Row:
    """A check that holds."""
    return Row(check, Outcome.ACCEPTED, reason, str(target), str(draft))


def not_applicable(check: str, reason: str, target: object = "", draft: object = "") -> Row:
    """A check that there is nothing for."""
    return Row(check, Outcome.NOT_APPLICABLE, reason, str(target), str(draft))


def warned(check: str, reason: str, target: object = "", draft: object = "", *, suggestion: str = "") -> Row:
    """A check that finds a difference which does not forbid the pair."""
    return Row(check, Outcome.WARNING, reason, str(target), str(draft), ADVICE, suggestion)


def refused(
    error_id: str, check: str, reason: str, target: object = "", draft: object = "", suggestion: str = ""
) -> Row:
    """A check that does not hold."""
    return Row(check, Outcome.REFUSED, reason, str(target), str(draft), error_id, suggestion)


def diagnostics(rows: Iterable[Row]) -> list[Diagnostic]:
    """What the rows mean for the run: an error for each that is refused, a warning for each that warns."""
    return [
        Diagnostic(row.error_id, row.reason, suggestion=row.suggestion, subject=row.check)
        for row in rows
        if row.outcome in (Outcome.REFUSED, Outcome.WARNING)
    ]
