"""`recast benchmark` on a tiny model. No test asserts a time."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from converters.benchmarking import jobs, running
from converters.benchmarking.jobs import JOBS, Job, Workshop
from converters.benchmarking.synthetic import Size
from reporting.diagnostics import RecastError
from reporting.report import Report
from tests.end_to_end.running import Outcome, converted, recast

_TINY = Size(layers=2, heads=4, vocabulary=64)
_BUDGET = 64 << 20


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "work").mkdir()
    outcome = converted(
        "benchmark",
        directory=folder / "work",
        scale=0.0001,
        repeats=1,
        budgets="64MiB",
        json=folder / "found.json",
    )
    return outcome, json.loads((folder / "found.json").read_text("utf-8")), folder / "work"


def test_every_job_is_measured_or_skipped_with_a_reason(everything: tuple[Outcome, dict[str, Any], Path]) -> None:
    outcome, found, _ = everything
    measured = [result["job"] for result in found["results"]]
    assert sorted([*measured, *found["skipped"]]) == sorted(JOBS)
    assert found["failed"] == []
    assert all(reason.startswith("this version has no ") for reason in found["skipped"].values())
    for name in JOBS:
        assert f"\n{name}" in outcome.text


def test_the_json_holds_what_a_comparison_needs(everything: tuple[Outcome, dict[str, Any], Path]) -> None:
    _, found, _ = everything
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_bytes"] > 1 << 28
    assert found["machine"]["file_system"]
    assert found["model"]["scale"] == 0.0001
    for result in found["results"]:
        assert result["budget_bytes"] == _BUDGET
        assert result["limit_bytes"] == _BUDGET + (200 << 20)
        assert result["within_limit"] == (result["peak_bytes"] <= result["limit_bytes"])
        assert result["ratio"] == pytest.approx(result["wall_seconds"] / result["copy_seconds"])
        (run,) = result["runs"]
        (copy,) = result["copies"]
        assert run["wall_seconds"] == result["wall_seconds"] > 0
        assert copy["wall_seconds"] == result["copy_seconds"] > copy["copy_seconds"] > 0
        assert run["peak_bytes"] == result["peak_bytes"] > 10 << 20
        assert run["code"] == 0
        prepares = result["job"].startswith("prepare-ckpt")
        steps = {"legalizer", "verify"} if prepares else {"open_source", "plan", "convert", "verify", "commit"}
        assert steps <= set(run["steps"])


def test_bytes_are_those_of_the_model(everything: tuple[Outcome, dict[str, Any], Path]) -> None:
    _, found, _ = everything
    model = found["model"]["bytes"]
    for result in found["results"]:
        assert result["runs"][0]["report"]["bytes_written"] >= model
        assert result["runs"][0]["characters_written"] >= model
        assert result["output_bytes"] >= model
        # Only the checkpoint that is compressed is smaller than its model.
        assert (result["source_bytes"] >= model) == ("zstd" not in result["job"])


def test_the_work_space_is_removed(everything: tuple[Outcome, dict[str, Any], Path]) -> None:
    _, _, work = everything
    assert list(work.iterdir()) == []


def test_the_work_space_stays_on_request_with_what_was_made_from_the_model(tmp_path: Path) -> None:
    outcome = converted(
        "benchmark",
        "--keep",
        directory=tmp_path,
        scale=0.0001,
        repeats=2,
        budgets="64MiB,96MiB",
        jobs="maxtext-to-hf-stacked",
        json=tmp_path / "found.json",
    )
    (work,) = tmp_path.glob("recast-benchmark-*")
    assert str(work) in outcome.text
    made = ("hf/config.json", "maxtext-stacked/DONE", "output-maxtext-to-hf-stacked/DONE")
    assert [name for name in made if (work / name).is_file()] == list(made)
    assert not (work / "output").exists()
    results = json.loads((tmp_path / "found.json").read_text("utf-8"))["results"]
    assert [(result["job"], result["budget_bytes"]) for result in results] == [
        ("maxtext-to-hf-stacked", 64 << 20),
        ("maxtext-to-hf-stacked", 96 << 20),
    ]
    for result in results:
        assert len(result["runs"]) == len(result["copies"]) == 2
        assert result["wall_seconds"] == min(run["wall_seconds"] for run in result["runs"])
        assert result["copy_seconds"] == min(copy["wall_seconds"] for copy in result["copies"])


def test_a_conversion_that_fails_gives_its_own_error_and_exit_code(tmp_path: Path) -> None:
    outcome = recast(
        "benchmark",
        directory=tmp_path,
        scale=0.0001,
        repeats=1,
        budgets="1KiB",
        jobs="hf-to-maxtext-stacked",
        json=tmp_path / "found.json",
    )
    assert outcome.code == 4
    assert "ErrorId.MEMORY_PLAN" in outcome.text
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert (found["results"], found["failed"]) == ([], ["hf-to-maxtext-stacked"])
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]


def test_a_process_that_ends_without_a_report_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import sys; sys.exit('gone')", "utf-8")
    workshop = Workshop(tmp_path, _TINY)
    job = Job("broken", jobs.HF, "broken", ())
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(jobs.PATH_FLAGS, "broken", ("hf_model_path", "base_output_directory"))
            with pytest.raises(RecastError, match="broken ended with exit code 1 and without a report: gone"):
                workshop.run(job, tmp_path / "output", _BUDGET)
    finally:
        sys.path.remove(str(tmp_path))


def test_one_job_that_fails_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Workshop.run

    def failing(self: Workshop, job: Job, destination: Path, budget: int) -> jobs.Run:
        if job.name == "hf-to-maxtext-stacked":
            raise RecastError.of("VERIFICATION_FAILED", "wrong")
        return run(self, job, destination, budget)

    monkeypatch.setattr(Workshop, "run", failing)
    report = Report("benchmark")
    chosen = [JOBS["hf-to-maxtext-stacked"], JOBS["hf-to-maxtext-unstacked"]]
    outcome = running.run(chosen, [_BUDGET], 1, Workshop(tmp_path, _TINY), report)
    assert outcome.failed == ("hf-to-maxtext-stacked",)
    assert [result.job for result in outcome.results] == ["hf-to-maxtext-unstacked"]
    assert report.exit_code == 3


def test_a_job_whose_subcommand_is_absent_is_skipped(tmp_path: Path) -> None:
    absent = Job("there", jobs.HF, "converters.hf_to_nowhere", ())
    report = Report("benchmark")
    outcome = running.run([absent], [_BUDGET], 1, Workshop(tmp_path, _TINY), report)
    assert outcome.skipped == {"there": "this version has no hf-to-nowhere"}
    assert report.exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_dropped_when_no_coming_job_needs_them(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path, _TINY)
    workshop.path(jobs.HF).mkdir()
    assert workshop.unneeded([JOBS["maxtext-default-zstd-to-hf"]]) == []
    workshop.path(jobs.STACKED).mkdir()
    assert workshop.unneeded([JOBS["maxtext-default-zstd-to-hf"]]) == [workshop.path(jobs.HF)]
    workshop.path(jobs.DEFAULT_GRID).mkdir()
    assert workshop.unneeded([]) == [workshop.path(name) for name in (jobs.HF, jobs.STACKED, jobs.DEFAULT_GRID)]


def test_a_scale_that_is_no_number_is_refused() -> None:
    outcome = recast("benchmark", scale="nan")
    assert outcome.code == 2
    assert "--scale=nan is not a number in the range" in outcome.text


def test_all_faults_of_the_flags_come_at_once(tmp_path: Path) -> None:
    outcome = recast(
        "benchmark",
        jobs="hf-to-maxtext-stacked,hf-to-nowhere",
        budgets="1GiB,much",
        directory=tmp_path / "none",
        json=tmp_path,
    )
    assert outcome.code == 2
    for text in ("hf-to-nowhere", "--budgets=much", f"{tmp_path / 'none'} is not a directory", "it takes a file"):
        assert text in outcome.text
