"""What a benchmark found, as a table and as JSON."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.benchmarking.copying import Copy
from converters.benchmarking.jobs import Run
from converters.cli import sizes
from reporting import tables, version

SCHEMA = 1
ALLOWANCE = 200 << 20
"""Memory that a run may take beside its budget."""

_HEAD = (
    "job",
    "budget",
    "wall s",
    "cp+fsync s",
    "ratio",
    "CPU s",
    "cp CPU s",
    "read",
    "written",
    "rchar",
    "wchar",
    "peak MiB",
    "limit",
    "within",
)


@dataclasses.dataclass(frozen=True)
class Result:
    """A job at a budget.

    Attributes:
        source_bytes: bytes of the source's files.
        output_bytes: bytes of the output's files.
        copies: the copies of the source's files that ran between the conversions.
        runs: all runs of the conversion.
    """

    job: str
    budget: int
    source_bytes: int
    output_bytes: int
    copies: tuple[Copy, ...]
    runs: tuple[Run, ...]

    @property
    def best(self) -> Run:
        """The fastest run."""
        return min(self.runs, key=lambda run: run.measured.wall_seconds)

    @property
    def best_copy(self) -> Copy:
        """The fastest copy."""
        return min(self.copies, key=lambda copy: copy.wall_seconds)

    @property
    def ratio(self) -> float:
        """Wall seconds of the fastest run over those of the fastest copy."""
        return self.best.measured.wall_seconds / self.best_copy.wall_seconds

    @property
    def peak_bytes(self) -> int:
        """The most memory that any of the runs took."""
        return max(run.measured.peak_bytes for run in self.runs)

    @property
    def limit_bytes(self) -> int:
        """The most memory that a run may take."""
        return self.budget + ALLOWANCE


def table(results: Sequence[Result]) -> str:
    """One row for each job and budget: minima of the times, the largest peak."""
    return tables.render(_HEAD, [_row(result) for result in results])


def to_json(
    results: Sequence[Result], skipped: Mapping[str, str], failed: Sequence[str], **facts: Any
) -> dict[str, Any]:
    """Everything, for programs; `facts` are of the machine and the model."""
    return {
        "schema": SCHEMA,
        "recast": version.VERSION,
        **facts,
        "results": [_result(result) for result in results],
        "skipped": dict(skipped),
        "failed": list(failed),
    }


def machine(folder: Path) -> dict[str, Any]:
    """Facts about this machine that the figures depend on; `folder` is where the files are."""
    device, kind = _file_system(folder.resolve())
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _first("/proc/cpuinfo", "model name"),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file_system": kind,
        "device": device,
        "allocator": {name: value for name, value in sorted(os.environ.items()) if name.startswith("MALLOC_")},
    }


def _row(result: Result) -> list[str]:
    best, copy = result.best, result.best_copy
    return [
        result.job,
        _mebibytes(result.budget) + " MiB",
        f"{best.measured.wall_seconds:.2f}",
        f"{copy.wall_seconds:.2f}",
        f"{result.ratio:.2f}",
        f"{min(run.measured.cpu_seconds for run in result.runs):.2f}",
        f"{min(copy.cpu_seconds for copy in result.copies):.2f}",
        sizes.show(best.figures.get("bytes_read", 0)),
        sizes.show(best.figures.get("bytes_written", 0)),
        sizes.show(best.measured.characters_read),
        sizes.show(best.measured.characters_written),
        _mebibytes(result.peak_bytes),
        _mebibytes(result.limit_bytes),
        "yes" if result.peak_bytes <= result.limit_bytes else "NO",
    ]


def _result(result: Result) -> dict[str, Any]:
    return {
        "job": result.job,
        "budget_bytes": result.budget,
        "source_bytes": result.source_bytes,
        "output_bytes": result.output_bytes,
        "wall_seconds": result.best.measured.wall_seconds,
        "copy_seconds": result.best_copy.wall_seconds,
        "ratio": result.ratio,
        "cpu_seconds": min(run.measured.cpu_seconds for run in result.runs),
        "copy_cpu_seconds": min(copy.cpu_seconds for copy in result.copies),
        "peak_bytes": result.peak_bytes,
        "limit_bytes": result.limit_bytes,
        "within_limit": result.peak_bytes <= result.limit_bytes,
        "runs": [_run(run) for run in result.runs],
        "copies": [dataclasses.asdict(copy) for copy in result.copies],
    }


def _run(run: Run) -> dict[str, Any]:
    measured = dataclasses.asdict(run.measured)
    del measured["output"]
    return {**measured, "report": dict(run.figures), "steps": dict(run.steps)}


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f}"


def _first(path: str, field: str) -> str:
    try:
        lines = Path(path).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _file_system(folder: Path) -> tuple[str, str]:
    """Device and type of the file system that a directory lies in."""
    found: tuple[int, str, str] = (-1, "", "")
    for line in Path("/proc/self/mounts").read_text("utf-8", errors="replace").splitlines():
        device, place, kind = line.split()[:3]
        if folder.is_relative_to(place.replace("\\040", " ")) and len(place) >= found[0]:
            found = (len(place), device, kind)
    return found[1:]
