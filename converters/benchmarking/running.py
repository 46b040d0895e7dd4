"""Runs a benchmark: jobs, budgets and copies interleaved."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from converters.benchmarking import copying
from converters.benchmarking.copying import Copy
from converters.benchmarking.jobs import Job, Run, Workshop
from converters.benchmarking.results import Result
from reporting import console
from reporting.report import Report, StepFailed, StepRecord


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a benchmark found.

    Attributes:
        results: of the jobs that ran.
        skipped: why others did not, by name.
        failed: names of those that failed; the report says why.
    """

    results: tuple[Result, ...]
    skipped: Mapping[str, str]
    failed: tuple[str, ...]


def run(
    jobs: Sequence[Job],
    budgets: Sequence[int],
    repeats: int,
    workshop: Workshop,
    report: Report,
    *,
    keep: bool = False,
) -> Outcome:
    """Runs all jobs; each is a step of the report, and one that fails does not stop the others.

    Args:
        jobs: in this order.
        budgets: at each of which every job runs.
        repeats: how often it does.
        workshop: where checkpoints lie.
        report: gets the steps.
        keep: whether the checkpoints that the jobs start from stay, and of each job the last output.
    """
    results: list[Result] = []
    skipped: dict[str, str] = {}
    failed: list[str] = []
    for number, job in enumerate(jobs):
        try:
            with report.step(job.name) as step:
                if job.missing:
                    skipped[job.name] = job.missing
                    step.lines.append(f"skipped: {job.missing}")
                    continue
                results += _measure(job, budgets, repeats, workshop, step, keep=keep)
        except StepFailed:
            failed.append(job.name)
        coming = [other for other in jobs[number + 1 :] if not other.missing]
        for path in () if keep else workshop.unneeded(coming):
            copying.remove(path)
    return Outcome(tuple(results), skipped, tuple(failed))


def _measure(
    job: Job, budgets: Sequence[int], repeats: int, workshop: Workshop, step: StepRecord, *, keep: bool
) -> list[Result]:
    source = workshop.make(job.source)
    destination = workshop.path(f"output-{job.name}" if keep else "output")
    size = copying.warm(source)
    copies: list[Copy] = []
    runs: dict[int, list[Run]] = {budget: [] for budget in budgets}
    written: dict[int, int] = {}
    for repeat in range(repeats):
        try:
            copying.remove(destination)
            copying.warm_memory(destination.parent, size)
            copies.append(copying.copy_durably(source, destination))
            for budget in budgets:
                copying.remove(destination)
                copying.warm_memory(destination.parent, size)
                runs[budget].append(workshop.run(job, destination, budget))
                written[budget] = copying.bytes_of(destination)
        finally:
            if not keep:
                copying.remove(destination)
        console.tell(_progress(job, repeat, repeats, copies[-1], {budget: runs[budget][-1] for budget in budgets}))
    step.lines.append(f"{size} bytes of source, {repeats} runs at each of {len(budgets)} budgets")
    return [Result(job.name, budget, size, written[budget], tuple(copies), tuple(runs[budget])) for budget in budgets]


def _progress(job: Job, repeat: int, repeats: int, copy: Copy, runs: Mapping[int, Run]) -> str:
    times = ", ".join(f"{budget >> 20} MiB {run.measured.wall_seconds:.2f} s" for budget, run in runs.items())
    return f"{job.name} {repeat + 1}/{repeats}: cp + fsync {copy.wall_seconds:.2f} s; {times}"
