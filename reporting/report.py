"""The report of one run: its steps, what each found, and the figures at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping

from recast_proto import error_pb2, report_pb2
from reporting import version
from reporting.diagnostics import Diagnostic, RecastError, exit_code_of, stack_of

PREFIX = "Recast"
"""Of the names in a report: `RecastErrorId`, `RecastErrorOwner`, the logger `recast_lib`."""


@dataclasses.dataclass(frozen=True)
class TensorOutcome:
    """One array of the target.

    Attributes:
        exactness: EXACT, INVERTIBLE, ROUNDING or LOSSY.
        residue_elements: how many of its elements are kept in the residue file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    exactness: str
    source_dtype: str
    residue_elements: int = 0


@dataclasses.dataclass(frozen=True)
class NoteLine:
    """Something that only one side has, with the reason."""

    kind: str
    tensor: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One line of a table that holds two checkpoints against each other.

    Attributes:
        outcome: accepted, refused, warning or not applicable.
        target: what the target states, and `draft` what the draft does; may be empty.
    """

    check: str
    outcome: str
    target: str
    draft: str
    reason: str


@dataclasses.dataclass
class StepRecord:
    """A step as it runs.

    Attributes:
        lines: facts for the reader of the text form.
        began: by the monotonic clock, while it runs; then None.
    """

    name: str
    diagnostics: list[Diagnostic] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    began: float | None = None

    @property
    def failed(self) -> bool:
        """Whether anything but warnings was found."""
        return any(not d.warning for d in self.diagnostics)


class Report:
    """Collects what happens in one run.

    Attributes:
        command: the subcommand and its arguments, as given.
        steps: the steps so far, in order.
        mappings: the digest of the mappings that the run converts with; empty where it is not known.
        on_change: called when a step has begun or ended; may be None.
        prefix: of the names of error ids and owners, and of the logger, in the text form.
        parts: steps that are shown as parts of another one, by their own names; parts that follow each other are one.
        quiet: steps whose lines the next step shows, as far as they succeed.
        conceal: takes out of a text of the report what nobody may read there. Suggestions are words of the program.
    """

    def __init__(self, command: str):
        self.command = command
        self.steps: list[StepRecord] = []
        self.source = ""
        self.destination = ""
        self.model_name = ""
        self.detail = ""
        self.mappings = ""
        self.options: dict[str, str] = {}
        self.tensors: list[TensorOutcome] = []
        self.notes: list[NoteLine] = []
        self.comparisons: list[Comparison] = []
        self.figures: dict[str, float] = {}
        self.finished = ""
        self.on_change: Callable[[], None] | None = None
        self.prefix = PREFIX
        self.parts: Mapping[str, str] = {}
        self.quiet: frozenset[str] = frozenset()
        self.conceal: Callable[[str], str] = str

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[StepRecord]:
        """Runs a step: errors raised inside become its diagnostics and end the run.

        Raises:
            StepFailed: after recording, for any RecastError, OSError, MemoryError, SIGTERM or unexpected exception.
        """
        start = time.monotonic()
        record = self._begun(self.parts.get(name, name))
        before, record.began = record.seconds, start
        self._changed()
        try:
            yield record
        except StepFailed:
            raise
        except (Exception, KeyboardInterrupt) as error:
            record.diagnostics.extend(_concealed(d, self.conceal) for d in diagnostics_of(error))
            raise StepFailed(name) from error
        finally:
            record.lines = [self.conceal(line) for line in record.lines]
            record.seconds, record.began = before + time.monotonic() - start, None
            self._changed()

    @property
    def failed(self) -> bool:
        """Whether any step failed."""
        return any(step.failed for step in self.steps)

    @property
    def exit_code(self) -> int:
        """The process's exit code."""
        return exit_code_of(d for step in self.steps for d in step.diagnostics)

    def add_failure(self, name: str, diagnostic: Diagnostic) -> None:
        """Records a failure outside of any running step."""
        self.steps.append(StepRecord(name, [diagnostic]))

    def finish(self, now: float | None = None) -> None:
        """Stamps the end of the run; `now` is seconds since the epoch."""
        self.finished = time.strftime("%Y-%m-%dT%H:%M:%SUTC", time.gmtime(now))

    def _begun(self, name: str) -> StepRecord:
        """The record of a step that begins: a new one, or that of the parts before it."""
        last = self.steps[-1] if self.steps else None
        if last is not None and last.name == name and name in self.parts.values():
            return last
        record = StepRecord(name)
        if last is not None and last.name in self.quiet:
            record.lines, last.lines = last.lines, []
        self.steps.append(record)
        return record

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()

    def to_proto(self) -> report_pb2.Report:
        """The report as a message; what no UTF-8 can hold, as in a path of other bytes, is spelled out in it."""
        message = report_pb2.Report(
            command=_utf8(self.command),
            version=version.VERSION,
            revision=version.revision(),
            mappings=self.mappings,
            succeeded=not self.failed,
            exit_code=self.exit_code,
            finished=self.finished,
            source=_utf8(self.conceal(self.source)),
            destination=_utf8(self.conceal(self.destination)),
            model_name=_utf8(self.conceal(self.model_name)),
            options={name: _utf8(self.conceal(value)) for name, value in self.options.items()},
            detail=_utf8(self.conceal(self.detail)),
        )
        for step in self.steps:
            message.step.append(_step_proto(step))
        for tensor in self.tensors:
            message.tensor.append(
                report_pb2.TensorEntry(
                    name=_utf8(tensor.name),
                    dtype=tensor.dtype,
                    shape=tensor.shape,
                    exactness=tensor.exactness,
                    source_dtype=tensor.source_dtype,
                    residue_elements=tensor.residue_elements,
                )
            )
        for note in self.notes:
            message.note.append(report_pb2.Note(kind=note.kind, tensor=_utf8(note.tensor), reason=_utf8(note.reason)))
        for comparison in self.comparisons:
            said = {name: _utf8(value) for name, value in dataclasses.asdict(comparison).items()}
            message.comparison.append(report_pb2.Comparison(**said))
        _set_figures(message.figures, self.figures)
        return message


class StepFailed(Exception):
    """Ends a run whose failing step is already in the report."""


def diagnostics_of(error: BaseException) -> tuple[Diagnostic, ...]:
    """What an exception means to the user; anything unforeseen is INTERNAL.

    Of several violations the first carries the stack trace, which is the same for all.
    """
    stack = stack_of(error)
    if isinstance(error, RecastError):
        first, *rest = error.diagnostics
        return (first if first.stack else dataclasses.replace(first, stack=stack), *rest)
    if isinstance(error, KeyboardInterrupt):
        return (Diagnostic("TERMINATED", "The run was told to stop; no output was completed.", stack=stack),)
    if isinstance(error, MemoryError):
        return (Diagnostic("OUT_OF_MEMORY", f"An allocation failed: {error or 'no memory left'}.", stack=stack),)
    if isinstance(error, OSError):
        return (_os_diagnostic(error, stack),)
    said = (str(error).splitlines() or [""])[0]
    return (Diagnostic("INTERNAL", f"{type(error).__name__}: {said}", stack=stack),)


def _concealed(found: Diagnostic, conceal: Callable[[str], str]) -> Diagnostic:
    return dataclasses.replace(
        found,
        reason=conceal(found.reason),
        subject=conceal(found.subject),
        stack=tuple(map(conceal, found.stack)),
    )


def _os_diagnostic(error: OSError, stack: tuple[str, ...]) -> Diagnostic:
    import errno

    subject = str(error.filename or "")
    reason = error.strerror or str(error)
    ids = {errno.ENOSPC: "DISK_FULL", errno.EDQUOT: "DISK_FULL", errno.ENOENT: "SOURCE_NOT_FOUND"}
    ids |= {
        errno.ENAMETOOLONG: "SOURCE_NOT_FOUND",
        errno.ELOOP: "SOURCE_NOT_FOUND",
        errno.EACCES: "SOURCE_NOT_READABLE",
        errno.ENOMEM: "OUT_OF_MEMORY",
    }
    return Diagnostic(ids.get(error.errno or 0, "INPUT_OUTPUT"), f"{reason}.", subject=subject, stack=stack)


def _step_proto(step: StepRecord) -> report_pb2.Step:
    status = report_pb2.FAILED if step.failed else report_pb2.SUCCEEDED
    message = report_pb2.Step(name=step.name, status=status, seconds=round(step.seconds, 6))
    for d in step.diagnostics:
        message.diagnostic.add(
            id=error_pb2.RecastErrorId.Value(d.id),
            owner=error_pb2.ErrorOwner.Value(d.owner),
            reason=_utf8(d.reason),
            suggestion=_utf8(d.suggestion),
            subject=_utf8(d.subject),
            stack=map(_utf8, d.stack),
            warning=d.warning,
        )
    return message


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _set_figures(message: report_pb2.Figures, figures: Mapping[str, float]) -> None:
    for field in message.DESCRIPTOR.fields:
        value = figures.get(field.name)
        if value is None:
            continue
        whole = field.cpp_type != field.CPPTYPE_DOUBLE
        setattr(message, field.name, int(value) if whole else round(value, 6))
