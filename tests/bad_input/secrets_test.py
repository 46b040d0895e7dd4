"""What could be a secret on a command line stands nowhere in what a run says or writes."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from absl import flags

from container import entrypoint
from converters.cli import usage
from tests.bad_input.judging import Fault, refused, triggers
from tests.bad_input.running import recast


@pytest.mark.parametrize(
    "given",
    [
        ("--hf_token", "sk-SECRET123"),
        ("--api_key", "U0VDUkVU=="),
        ("--password", "-SECRET"),
        ("--password", "--SECRET=1"),
        ("hf_token=SECRET",),
        ("--memory_budget=https://u:SECRET@x",),
        ("--save_dtype", "https://u:SECRET@x"),
        ("https://u:SECRET@x",),
        ("--https://u:SECRET@x",),
    ],
)
def test_no_secret_of_the_command_line_is_repeated(given: tuple[str, ...], tmp_path: Path) -> None:
    run = recast("hf-to-maxtext", *given, f"--report_directory={tmp_path}")
    assert run.code == 2
    assert any(failure.id == "INVALID_FLAG" for failure in run.failures)
    for said in (run.output, run.errors, (tmp_path / "report.json").read_text(), (tmp_path / "report.txt").read_text()):
        assert "SECRET" not in said
        assert "U0VDUkVU" not in said


def test_a_flag_that_speaks_of_secrets_is_refused_without_its_value() -> None:
    run = recast("plan", "--kubernetes", "--image_pull_secret=SECRET!", "--model_name=llama3.1-8b", "--to=maxtext")
    assert any("'***' is no name" in failure.reason for failure in run.failures)
    assert "SECRET" not in run.output


# What each needs to get past its flags; those that are not here work for long, or write beside the working directory.
_GIVEN = {
    "hf-to-maxtext": ("--hf_model_path=none", "--base_output_directory=out"),
    "maxtext-to-hf": ("--load_parameters_path=none", "--base_output_directory=out"),
    "maxtext-to-maxtext": ("--load_parameters_path=none", "--base_output_directory=out"),
    "convert": ("none", "out", "--to=maxtext"),
    "verify": ("none", "none"),
    "diff": ("none", "none"),
    "inspect": ("none",),
    "plan": ("--model_name=mistral-7b-v0.1", "--to=maxtext"),
    "explain": ("llama", "hf", "maxtext"),
    "prepare-ckpt": ("--model=llama3-8b", "--original_checkpoint_path=none", "--output_checkpoint_path=out"),
    "validate-speculative-decoding": ("--target_checkpoint_path=none", "--draft_checkpoint_path=none"),
    "download-serving-cache": ("--server=embedded", "--cache_location=cache"),
    "models": (),
    "families": (),
}


@pytest.mark.parametrize("name", _GIVEN)
def test_no_url_that_is_given_to_any_flag_is_repeated(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = flags.FlagValues()
    importlib.import_module(entrypoint.SUBCOMMANDS[name][0]).PROGRAM.define(values)
    usage.define_common(values)
    for flag in sorted(set(values) - {"report_directory"}):
        others = [word for word in _GIVEN[name] if not word.startswith(f"--{flag}=")]
        run = recast(name, *others, f"--{flag}=https://user:SECRET@host", "--report_directory=reports")
        kept = [Path("reports", name).read_text("utf-8") for name in ("report.txt", "report.json")]
        assert f"--{flag}=https://***" in kept[0] or f"--{flag}=***" in kept[0]
        for said in (run.output, run.errors, *kept):
            assert "SECRET" not in said, (flag, said)
    assert not [path for path in tmp_path.rglob("*") if "SECRET" in path.name]


@triggers("UNKNOWN_SUBCOMMAND")
def test_a_subcommand_with_a_value_is_not_repeated() -> None:
    run = recast("hf_token=SECRET", "inspect")
    refused(run, Fault("UNKNOWN_SUBCOMMAND", "hf_token=***"))
    assert "SECRET" not in run.output


def test_a_token_is_not_passed_on_to_a_job() -> None:
    job = (
        "--kubernetes",
        "--image=registry.example.com/recast:1",
        "--claim=work",
        "--job_source=a",
        "--job_destination=b",
    )
    run = recast("plan", "--model_name=llama3.1-8b", "--to=maxtext", "--hf_access_token=SECRET", *job)
    assert run.code == 0, run.output
    assert "kind: Job" in run.output
    assert "SECRET" not in run.output
