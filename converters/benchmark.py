"""benchmark: how long conversions of a synthetic model take and how much memory, beside a copy of its files."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from converters.cli import sizes
from converters.cli.program import Program, main
from reporting.diagnostics import Diagnostic, raise_all
from reporting.report import Report

_DEFAULT_BUDGETS = ("256MiB", "1GiB")
_REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Request:
    """What is measured, and where.

    Attributes:
        folder: where the work space is made; None for the system's temporary folder.
        keep: whether the work space stays.
        scale: of the model.
        jobs: names, in the order of running.
        budgets: in bytes.
        json: file for the results.
    """

    folder: Path | None
    keep: bool
    scale: float
    jobs: tuple[str, ...]
    budgets: tuple[int, ...]
    repeats: int
    json: Path | None


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    flags.DEFINE_string(
        "directory",
        None,
        "Directory in which the work space is made: about four times the model. Default: the system's temporary one.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "keep",
        False,
        "Keep the work space: the checkpoints that the conversions started from, and of each the last output. It then "
        "takes about twelve times the model.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "scale",
        1.0,
        "Size of the model. 1 is a bfloat16 Llama of 3.0 GB: 16 layers, 2048 wide, MLP 8192, vocabulary 128256, 32/8 "
        "heads of 64. Layers and vocabulary are multiplied by it (0.25: 4 and 32064; 4: 64 and 513024), so that bytes "
        "are too; where that would leave fewer than two layers the model becomes narrower instead.",
        lower_bound=0.0001,
        upper_bound=1000,
        flag_values=values,
    )
    flags.DEFINE_list("jobs", [], "What to measure, comma-separated. Default: everything.", flag_values=values)
    flags.DEFINE_list("budgets", list(_DEFAULT_BUDGETS), "Values of --memory_budget.", flag_values=values)
    flags.DEFINE_integer(
        "repeats",
        _REPEATS,
        "Runs of each conversion and of each copy; the fastest counts.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string("json", None, "File that gets all figures of all runs.", flag_values=values)


def prepare(values: flags.FlagValues, _: Sequence[str]) -> Request:
    """What the flags ask for."""
    from converters.benchmarking.jobs import JOBS

    given = [name for name in values.jobs if name]
    found = [
        Diagnostic("INVALID_FLAG", f"There is no job {name}; there are {', '.join(JOBS)}.", subject="--jobs")
        for name in given
        if name not in JOBS
    ]
    for text in values.budgets:
        found += sizes.problem(text, "budgets")
    if not values.budgets:
        found.append(Diagnostic("INVALID_FLAG", "--budgets names no budget.", subject="--budgets"))
    folder = Path(values.directory) if values.directory else None
    if folder is not None and not folder.is_dir():
        found.append(Diagnostic("INVALID_FLAG", f"{folder} is not a directory.", subject="--directory"))
    kept = Path(values.json) if values.json else None
    if kept is not None and (kept.is_dir() or not kept.absolute().parent.is_dir()):
        found.append(Diagnostic("INVALID_FLAG", f"{kept} cannot be written.", subject="--json"))
    raise_all(found)
    return Request(
        folder=folder,
        keep=values.keep,
        scale=values.scale,
        jobs=tuple(name for name in JOBS if name in given or not given),
        budgets=tuple(sorted({sizes.parse(text, "budgets") for text in values.budgets})),
        repeats=values.repeats,
        json=kept,
    )


def execute(request: Request, report: Report) -> str:
    """Measures; the table is the output."""
    from converters.benchmarking import copying, results, running, synthetic
    from converters.benchmarking.jobs import JOBS, Workshop

    size = synthetic.scaled(request.scale)
    work = Path(tempfile.mkdtemp(prefix="recast-benchmark-", dir=request.folder))
    try:
        machine = results.machine(work)
        jobs = [JOBS[name] for name in request.jobs]
        outcome = running.run(jobs, request.budgets, request.repeats, Workshop(work, size), report, keep=request.keep)
    finally:
        if not request.keep:
            copying.remove(work)
    model = {"scale": request.scale, "size": str(size), "bytes": size.nbytes}
    found = results.to_json(
        outcome.results, outcome.skipped, outcome.failed, machine=machine, model=model, repeats=request.repeats
    )
    if request.json is not None:
        request.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    lines = [
        f"A bfloat16 Llama of {sizes.show(size.nbytes)} ({size}), warm, minimum of {request.repeats}, on "
        f"{machine['cores']} cores, {machine['memory_bytes'] / (1 << 30):.0f} GiB, {machine['file_system']}:",
        "",
        results.table(outcome.results),
        "read, written: by the run's report; rchar, wchar: of all its processes, by the kernel, without mapped files",
        *(f"{name}: skipped, {reason}" for name, reason in outcome.skipped.items()),
        *(f"{name}: failed" for name in outcome.failed),
        *([f"The work space stays at {work}"] if request.keep else []),
        "",
    ]
    return "\n".join(lines)


PROGRAM = Program(
    name="benchmark",
    summary="Makes a Llama of random weights, converts it in every direction at every memory budget, and says for each "
    "conversion its time, its ratio to `cp` of the same files followed by fsync of each, what it read and wrote, and "
    "the most memory that all of its processes took. Needs the core packages only. No time is ever judged.",
    define=define,
    prepare=prepare,
    execute=execute,
)

if __name__ == "__main__":
    main(PROGRAM)
