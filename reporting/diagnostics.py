"""One thing that went wrong: its id, its owner, the reason, what to do, and what it concerns."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Iterable, Sequence

from recast_proto import error_pb2

# Diagnostics that an exception's own text quotes; all of them are in the report.
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Diagnostic:
    """One violation, as the FINAL REPORT shows it.

    Attributes:
        id: name of a value of `RecastErrorId`.
        reason: what was found, with names and numbers.
        suggestion: what to do about it; the id's own suggestion where empty.
        subject: the tensor, file or field concerned.
        stack: lines of a stack trace, outermost first.
    """

    id: str
    reason: str
    suggestion: str = ""
    subject: str = ""
    stack: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        info = _info(self.id)
        if not self.suggestion:
            object.__setattr__(self, "suggestion", info.suggestion)

    @property
    def owner(self) -> str:
        """USAGE or LIBRARY."""
        return error_pb2.ErrorOwner.Name(_info(self.id).owner)

    @property
    def field(self) -> str:
        """The field that it is about, without the objects that this lies in; the reason where it names none."""
        return self.subject.rpartition(".")[2] or self.reason

    @property
    def warning(self) -> bool:
        """Whether the run goes on after it."""
        return _info(self.id).warning

    @property
    def exit_code(self) -> int:
        """The exit code of a run that fails with this diagnostic."""
        info = _info(self.id)
        if info.exit_code != error_pb2.EXIT_DONE:
            return int(info.exit_code)
        if info.owner == error_pb2.USAGE:
            return int(error_pb2.EXIT_USAGE)
        return int(error_pb2.EXIT_LIBRARY)


def _info(name: str) -> error_pb2.ErrorInfo:
    value = error_pb2.RecastErrorId.DESCRIPTOR.values_by_name.get(name)
    if value is None:
        raise KeyError(f"no error id named {name}")
    info: error_pb2.ErrorInfo = value.GetOptions().Extensions[error_pb2.info]  # type: ignore[index]
    return info


class RecastError(Exception):
    """One or more violations that end a step.

    Attributes:
        diagnostics: all violations that the step found, in the order found.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic]):
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        shown = "; ".join(f"{d.id}: {d.reason}" for d in self.diagnostics[:_SHOWN])
        more = len(self.diagnostics) - _SHOWN
        super().__init__(f"{shown}; and {more} more" if more > 0 else shown)

    @classmethod
    def of(cls, id: str, reason: str, *, subject: str = "", suggestion: str = "") -> RecastError:
        """One violation as an error."""
        return cls([Diagnostic(id, reason, suggestion=suggestion, subject=subject)])


def raise_all(diagnostics: Sequence[Diagnostic]) -> None:
    """Raises one RecastError with all diagnostics, if there are any."""
    if diagnostics:
        raise RecastError(diagnostics)


def stack_of(error: BaseException) -> tuple[str, ...]:
    """The stack trace of an exception as lines, outermost frame first."""
    lines = "".join(traceback.format_exception(error)).rstrip("\n").split("\n")
    return tuple(lines)


def exit_code_of(diagnostics: Iterable[Diagnostic]) -> int:
    """The exit code of a run: 0 without failures, else that of the worst one.

    A library error outweighs a usage error, which outweighs what a retry may cure:
    a retry that cannot succeed must not be suggested.
    """
    order = (
        error_pb2.EXIT_LIBRARY,
        error_pb2.EXIT_USAGE,
        error_pb2.EXIT_OUT_OF_MEMORY,
        error_pb2.EXIT_RETRY,
        error_pb2.EXIT_TERMINATED,
        error_pb2.EXIT_DIFFERENT,
    )
    codes = {d.exit_code for d in diagnostics if not d.warning}
    return next((int(code) for code in order if code in codes), 0)
