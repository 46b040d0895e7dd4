"""The conversions that are measured, and the checkpoints that they start from."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from converters.benchmarking import default_grid, measuring, served, synthetic
from converters.benchmarking.measuring import Measurement
from converters.benchmarking.synthetic import Size
from reporting.diagnostics import Diagnostic, RecastError

HF = "hf"
STACKED = "maxtext-stacked"
UNSTACKED = "maxtext-unstacked"
DEFAULT_GRID = "maxtext-default-zstd"
SERVED = "served"
_CONFIG = "config"
_REPORT = "report"


@dataclasses.dataclass(frozen=True)
class Job:
    """One conversion.

    Attributes:
        name: as on the command line.
        source: the checkpoint that it starts from.
        module: the binary that converts.
        arguments: of that binary, without the paths of source and destination.
    """

    name: str
    source: str
    module: str
    arguments: tuple[str, ...]

    @property
    def missing(self) -> str:
        """Why it cannot run in this version, or ""."""
        try:
            importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name != self.module:
                raise
            return f"this version has no {self.module.rpartition('.')[2].replace('_', '-')}"
        return ""


_FORWARD = "converters.hf_to_maxtext"
_BACK = "converters.maxtext_to_hf"
_WITHIN = "converters.maxtext_to_maxtext"
_PREPARE = "converters.prepare_ckpt"
_NAMED = f"--model_name={synthetic.MODEL_NAME}"

# In this order no more than four checkpoints lie on the disk at once.
JOBS: Mapping[str, Job] = {
    job.name: job
    for job in (
        Job("prepare-ckpt", SERVED, _PREPARE, (f"--model={served.MODEL}",)),
        Job("hf-to-maxtext-stacked", HF, _FORWARD, (_NAMED, "--scan_layers=true")),
        Job("hf-to-maxtext-unstacked", HF, _FORWARD, (_NAMED, "--scan_layers=false")),
        Job("maxtext-to-hf-stacked", STACKED, _BACK, ("--weight_dtype=auto",)),
        Job("stacked-to-unstacked", STACKED, _WITHIN, ("--scan_layers=false",)),
        Job("maxtext-default-zstd-to-hf", DEFAULT_GRID, _BACK, (_NAMED, "--weight_dtype=bfloat16")),
        Job("unstacked-to-stacked", UNSTACKED, _WITHIN, ("--scan_layers=true",)),
    )
}
PATH_FLAGS = {
    _FORWARD: ("hf_model_path", "base_output_directory"),
    _BACK: ("load_parameters_path", "base_output_directory"),
    _WITHIN: ("load_parameters_path", "base_output_directory"),
    _PREPARE: ("original_checkpoint_path", "output_checkpoint_path"),
}
"""The flags of source and destination of each binary."""
_PARENTS = {SERVED: HF, STACKED: HF, UNSTACKED: HF, DEFAULT_GRID: STACKED}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a conversion that succeeded.

    Attributes:
        measured: from outside.
        figures: what its report says.
        steps: seconds of each step that its report lists.
    """

    measured: Measurement
    figures: Mapping[str, float]
    steps: Mapping[str, float]


class Workshop:
    """A folder with the checkpoints that jobs start from, made when the first job needs them."""

    def __init__(self, folder: Path, size: Size):
        self._folder = folder
        self._size = size

    def path(self, name: str) -> Path:
        """Where a checkpoint, or the output of a run, lies."""
        return self._folder / name

    def make(self, name: str) -> Path:
        """Makes a checkpoint, and those that it is made from, unless it is there.

        Raises:
            RecastError: the conversion that makes it failed.
        """
        path = self.path(name)
        if path.exists():
            return path
        recipes: Mapping[str, Callable[[Path], object]] = {
            HF: lambda path: synthetic.make(path, self._size),
            SERVED: lambda path: served.make(path, self.make(HF)),
            STACKED: lambda path: self._convert(JOBS["hf-to-maxtext-stacked"], path),
            UNSTACKED: lambda path: self._convert(JOBS["hf-to-maxtext-unstacked"], path),
            DEFAULT_GRID: lambda path: default_grid.rewrite(self.make(STACKED), path),
        }
        recipes[name](path)
        return path

    def unneeded(self, coming: Iterable[Job]) -> list[Path]:
        """The checkpoints that none of the coming jobs needs any more."""
        needed: set[str] = set()
        for job in coming:
            name: str | None = job.source
            while name is not None:
                needed.add(name)
                name = None if self.path(name).exists() else _PARENTS.get(name)
        return [self.path(name) for name in (HF, *_PARENTS) if name not in needed and self.path(name).exists()]

    def run(self, job: Job, destination: Path, budget: int) -> Run:
        """Runs a conversion as its users do, as a process of its own.

        Raises:
            RecastError: with what its report says, if it failed.
        """
        report = self.path(_REPORT) / "report.json"
        report.unlink(missing_ok=True)
        measured = measuring.run(self._command(job, destination, budget), _environment())
        said = json.loads(report.read_text("utf-8")) if report.exists() else {}
        if measured.code:
            raise _failure(job, measured, said)
        steps = {step["name"]: float(step.get("seconds", 0)) for step in said.get("step", ())}
        return Run(measured, {name: float(value) for name, value in said.get("figures", {}).items()}, steps)

    def _convert(self, job: Job, destination: Path) -> None:
        self.make(job.source)
        self.run(job, destination, 1 << 30)

    def _command(self, job: Job, destination: Path, budget: int) -> list[str]:
        command = [sys.executable, "-m", job.module, *job.arguments]
        source, output = PATH_FLAGS[job.module]
        command.append(f"--{source}={self.path(job.source)}")
        command.append(f"--{output}={destination}")
        command.append(f"--memory_budget={budget}")
        command.append(f"--report_directory={self.path(_REPORT)}")
        if job.source == SERVED:
            command.append(f"--server={self._catalogue()}")
        if job.source == DEFAULT_GRID:
            command.append(f"--hf_config_path={self._config()}")
        return command

    def _catalogue(self) -> Path:
        """A catalogue that serves the model."""
        file = self.path("catalogue.textproto")
        file.write_text(served.catalogue(synthetic.config(self._size)), "utf-8")
        return file

    def _config(self) -> Path:
        """A directory with the model's config.json alone: MaxText keeps none beside its checkpoints."""
        folder = self.path(_CONFIG)
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(synthetic.config(self._size)), "utf-8")
        return folder


def _environment() -> dict[str, str]:
    """This process's, with the modules that it sees."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _failure(job: Job, measured: Measurement, said: Mapping[str, Any]) -> RecastError:
    diagnostics = [
        Diagnostic(entry["id"], entry["reason"], entry.get("suggestion", ""), entry.get("subject", ""))
        for step in said.get("step", ())
        for entry in step.get("diagnostic", ())
    ]
    failures = [diagnostic for diagnostic in diagnostics if not diagnostic.warning]
    if failures:
        return RecastError(failures)
    last = (measured.output.strip().splitlines() or ["it printed nothing"])[-1]
    reason = f"{job.name} ended with exit code {measured.code} and without a report: {last}"
    return RecastError.of("INTERNAL", reason, subject=job.name)
