"""diff: what differs between two checkpoints of one model, in whatever formats they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from converters.cli import comparison_flags, sizes
from converters.cli.program import Program, main
from reporting.diagnostics import raise_all
from reporting.report import Report

if TYPE_CHECKING:
    from converters.engine.pairing import Question


@dataclasses.dataclass(frozen=True)
class Request:
    """What to compare.

    Attributes:
        first: one checkpoint.
        second: the other.
        question: what was said of the model.
        ignore_dtype: compare values only.
        budget: bytes of buffers.
        progress: how it is shown.
    """

    first: Path
    second: Path
    question: Question
    ignore_dtype: bool
    budget: int
    progress: str


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    comparison_flags.define(values)
    flags.DEFINE_bool(
        "ignore_dtype",
        False,
        "Take tensors of different dtypes as equal where all their values are.",
        flag_values=values,
    )


def prepare(values: flags.FlagValues, positional: Sequence[str]) -> Request:
    """Checks paths and flags."""
    raise_all(comparison_flags.problems(values, positional))
    return Request(
        Path(positional[0]),
        Path(positional[1]),
        comparison_flags.question(values),
        values.ignore_dtype,
        comparison_flags.budget(values),
        values.progress,
    )


def execute(request: Request, report: Report) -> str:
    """Compares; all that differs is in the report."""
    from converters.engine import comparison_plan, difference, pairing, processors

    report.source, report.destination = str(request.first), str(request.second)
    threads = processors.workers()
    with ExitStack() as stack:
        with report.step("open") as step:
            first = stack.enter_context(pairing.opened_checkpoint(request.first))
            second = stack.enter_context(pairing.opened_checkpoint(request.second))
            for side in (first, second):
                step.lines.append(f"{side.path}: {len(side.opened.source.tensors)} arrays in {side.opened.description}")
        with report.step("match") as step:
            comparison = difference.prepare(
                first,
                second,
                request.question,
                ignore_dtype=request.ignore_dtype,
                threads=threads,
                budget=request.budget,
            )
            step.lines.append("by the family's mapping" if comparison.mapped else "by name")
            step.lines.extend(comparison_plan.lines(comparison.plan))
        with report.step("compare") as step:
            size, differing = difference.compare(comparison, request.budget, request.progress)
            compared = f"{len(comparison.plan.arrays)} tensors, {sizes.show(size)}"
            step.lines.append(f"{compared} compared, {len(differing)} differ in values")
            raise_all([*comparison.found, *differing])
    return f"equal: {compared}\n"


PROGRAM = Program(
    name="diff",
    summary="Compares two checkpoints of one model, in any formats: tensors that only one has, shapes, dtypes and all "
    "values. Ends with exit code 0 and one line where they are equal, else with exit code 1 and a report that names "
    "each difference.",
    define=define,
    prepare=prepare,
    execute=execute,
    positional=("first", "second"),
    supervised=True,
    reports=False,
)

if __name__ == "__main__":
    main(PROGRAM)
