"""Plans that cannot be made: one clear report each, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, recast


@triggers("INVALID_FLAG")
def test_without_a_source_the_model_must_be_named_and_the_format_given() -> None:
    refused(recast("plan"), Fault("INVALID_FLAG", "--model_name"), Fault("INVALID_FLAG", "--to"))
    refused(recast("plan", "--to=maxtext"), Fault("INVALID_FLAG", "--model_name", "`recast families --models`"))
    refused(recast("plan", "--model_name=llama3.1-8b"), Fault("INVALID_FLAG", "--to must be given"))


@triggers("MODEL_NAME_UNKNOWN")
def test_a_model_that_nobody_published() -> None:
    refused(
        recast("plan", "--model_name=llama3.1-8", "--to=maxtext"),
        Fault("MODEL_NAME_UNKNOWN", "no published model named llama3.1-8", "llama3.1-8b"),
    )


@triggers("MODEL_NAME_UNKNOWN")
def test_only_published_names_are_near_names() -> None:
    run = recast("plan", "--model_name=llama3.1-9b", "--to=maxtext")
    (failure,) = run.failures
    near = failure.reason.partition("Near names: ")[2].rstrip(".").split(", ")
    assert len(near) == 3
    assert "llama3.1-8b" in near
    for name in near:
        completed(recast("plan", f"--model_name={name}", "--to=maxtext"))
    refused(run, Fault("MODEL_NAME_UNKNOWN", "llama3.1-9b"))


@triggers("MODEL_NAME_UNKNOWN", "INVALID_FLAG")
def test_a_layout_name_has_no_sizes_to_plan_with() -> None:
    refused(
        recast("plan", "--model_name=llama3.1", "--to=hf"),
        Fault("MODEL_NAME_UNKNOWN", "layout name", "SOURCE", "llama3.1-405b, llama3.1-70b, llama3.1-8b"),
        Fault("INVALID_FLAG", "--to=hf is also the format of the source"),
    )


@triggers("SOURCE_NOT_FOUND")
def test_a_published_name_in_the_place_of_a_source() -> None:
    run = recast("plan", "llama3.1-8b", "--to=maxtext")
    refused(run, Fault("SOURCE_NOT_FOUND", "llama3.1-8b"))
    assert "--model_name=llama3.1-8b" in run.failures[0].suggestion
    layout = recast("plan", "llama3.1", "--to=maxtext")
    refused(layout, Fault("SOURCE_NOT_FOUND", "llama3.1"))
    assert "layout name" in layout.failures[0].suggestion


@triggers("INVALID_FLAG")
def test_flags_that_change_nothing_of_a_plan(hf: Path) -> None:
    for flag in ("--plan_only", "--progress=none"):
        refused(recast("plan", hf, "--to=maxtext", flag), Fault("INVALID_FLAG", f"no flag {flag.partition('=')[0]}"))
    refused(recast("plan", hf, "--to=maxtext", "--overwrite"), Fault("INVALID_FLAG", "--overwrite", "--kubernetes"))
    shown = recast("plan", "--help").output
    assert "--plan_only" not in shown
    assert "--progress" not in shown


@pytest.mark.parametrize("format", ["hf", "maxtext"])
@triggers("INVALID_FLAG")
def test_a_published_model_is_not_planned_into_its_own_format(format: str) -> None:
    run = recast("plan", "--model_name=llama3.1-8b", f"--from={format}", f"--to={format}")
    refused(run, Fault("INVALID_FLAG", f"--to={format} is also the format of the source"))


@triggers("INVALID_FLAG")
def test_a_format_that_is_the_default_of_the_other_one() -> None:
    run = recast("plan", "--model_name=llama3.1-8b", "--to=hf")
    refused(run, Fault("INVALID_FLAG", "give --from=maxtext (--from is hf when left out)"))
    completed(recast("plan", "--model_name=llama3.1-8b", "--to=hf", "--from=maxtext"))


@triggers("INVALID_FLAG")
def test_from_means_nothing_beside_a_source(hf: Path) -> None:
    refused(recast("plan", hf, "--from=hf", "--to=maxtext"), Fault("INVALID_FLAG", "--from", "SOURCE"))
    refused(recast("plan", hf), Fault("INVALID_FLAG", "--to was not given"))


@triggers("INVALID_FLAG")
def test_formats_and_flags_that_there_are_not(hf: Path) -> None:
    refused(
        recast("plan", hf, "elsewhere", "--to=gguf", "--hf_model_path=x"),
        Fault("INVALID_FLAG", "--to", "gguf"),
        Fault("INVALID_FLAG", "--hf_model_path"),
        Fault("INVALID_FLAG", "'elsewhere'"),
    )
    refused(
        recast("plan", "--model_name=llama3.1-8b", "--to=maxtext", "--max_shard_size=1GB"),
        Fault("INVALID_FLAG", "--max_shard_size has no meaning on the way from hf to maxtext"),
    )


@triggers("SOURCE_NOT_FOUND", "REMOTE_NOT_SUPPORTED", "MISSING_TENSOR")
def test_sources_that_cannot_be_planned(hf: Path, tmp_path: Path) -> None:
    cp.changed_tensors(lambda held: held.pop("model.norm.weight"))(hf)
    with unchanged(tmp_path):
        refused(recast("plan", tmp_path / "none", "--to=maxtext"), Fault("SOURCE_NOT_FOUND", str(tmp_path / "none")))
        refused(recast("plan", "gs://bucket/a", "--to=maxtext"), Fault("REMOTE_NOT_SUPPORTED", "SOURCE"))
        run = recast("plan", hf, "--to=maxtext")
    refused(run, Fault("MISSING_TENSOR", "model.norm.weight"))
    assert "PLAN" not in run.output.split("\n")[0]


@triggers("EXACTNESS_NOT_MET")
def test_a_plan_that_is_not_exact_enough() -> None:
    run = recast("plan", "--model_name=mistral-7b-v0.1", "--to=maxtext", "--dtype=float16", "--require_exact")
    assert len(run.failures) == 12
    refused(run, *(Fault("EXACTNESS_NOT_MET", "bfloat16 rounded to float16") for _ in run.failures))


@triggers("MEMORY_PLAN")
def test_a_budget_that_no_unit_of_a_large_model_fits() -> None:
    run = recast("plan", "--model_name=llama3.1-405b", "--to=maxtext", "--memory_budget=16kB")
    refused(run, Fault("MEMORY_PLAN", "16000 bytes"))
    assert run.code == 4
    (advised,) = [word for word in run.failures[0].suggestion.split() if word.startswith("--memory_budget=")]
    completed(recast("plan", "--model_name=llama3.1-405b", "--to=maxtext", advised))


@triggers("INVALID_FLAG")
def test_a_plan_that_cannot_be_kept(hf: Path, destination: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("other")
    with unchanged(tmp_path):
        lost = hf_to_maxtext(hf, destination, f"--plan_file={tmp_path / 'plan.json'}")
        barred = recast("plan", hf, "--to=maxtext", f"--plan_file={tmp_path / 'file' / 'plan.json'}")
        folder = recast("plan", hf, "--to=maxtext", f"--plan_file={tmp_path}")
    refused(lost, Fault("INVALID_FLAG", "--plan_file", "--plan_only"))
    refused(barred, Fault("INVALID_FLAG", f"--plan_file is to lie in {tmp_path / 'file'}, which is not a directory"))
    refused(folder, Fault("INVALID_FLAG", f"--plan_file is the directory {tmp_path}"))


@triggers("INVALID_FLAG")
def test_a_plan_never_replaces_a_file_of_a_checkpoint(hf: Path, maxtext: Path, destination: Path) -> None:
    weights = hf / "model.safetensors"
    with unchanged(hf, maxtext):
        runs = {
            "SOURCE": recast("plan", hf, "--to=maxtext", f"--plan_file={weights}"),
            "--hf_model_path": hf_to_maxtext(hf, destination, "--plan_only", f"--plan_file={weights}"),
            "--base_output_directory": hf_to_maxtext(
                hf, destination, "--plan_only", f"--plan_file={destination / 'plan.json'}"
            ),
            "finished output": recast("plan", hf, "--to=maxtext", f"--plan_file={maxtext / 'DONE'}"),
        }
    for place, run in runs.items():
        refused(run, Fault("INVALID_FLAG", "--plan_file lies in", place, "a plan is no part of a checkpoint"))


@triggers("INVALID_FLAG")
def test_a_plan_replaces_nothing_but_a_plan(hf: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"version": "1"}')
    (tmp_path / "link.json").symlink_to("other.json")
    with unchanged(tmp_path):
        for name in ("other.json", "link.json"):
            run = recast("plan", hf, "--to=maxtext", f"--plan_file={tmp_path / name}")
            refused(run, Fault("INVALID_FLAG", f"would replace {tmp_path / name}", "is not a plan"))
    kept = tmp_path / "plan.json"
    completed(recast("plan", hf, "--to=maxtext", f"--plan_file={kept}"))
    completed(recast("plan", hf, "--to=maxtext", "--dtype=float32", f"--plan_file={kept}"))
    assert '"exactness": "EXACT"' in kept.read_text("utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "link.json", "other.json", "plan.json"]


def test_reports_and_figures_replace_nothing_of_another_kind(tmp_path: Path) -> None:
    precious = tmp_path / "report.txt"
    precious.write_text("mine")
    for flag, what in (
        (f"--report_directory={tmp_path}", "a report"),
        (f"--termination_message_path={precious}", "a termination message"),
        (f"--json={precious}", "a file of figures"),
    ):
        with unchanged(tmp_path):
            run = recast("benchmark", "--jobs=none", flag)
        told = [(failure.id, failure.subject, failure.reason) for failure in run.failures]
        reason = f"{flag.partition('=')[0]} would replace {precious}, which is there and is not {what}."
        assert ("INVALID_FLAG", flag.partition("=")[0], reason) in told


@pytest.mark.parametrize("words", [("--base_output_directory=~/out",), ("--base_output_directory", "~/out")])
def test_the_home_directory_is_known_by_its_short_name(
    words: tuple[str, ...], hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    completed(recast("hf-to-maxtext", "--hf_model_path=~/hf", *words))
    completed(recast("verify", "~/hf", "~/out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "out"]
