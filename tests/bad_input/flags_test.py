"""The command line: every fault of the flags at once, MaxText's own command lines, and --help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from container import entrypoint
from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf, process, recast
from tests.checkpoints import differing, read_safetensors


@triggers("HF_MODEL_PATH_REQUIRED", "INVALID_FLAG")
def test_what_must_be_given_and_was_not() -> None:
    refused(
        recast("hf-to-maxtext"),
        Fault("HF_MODEL_PATH_REQUIRED", "--hf_model_path was not given"),
        Fault("INVALID_FLAG", "--base_output_directory was not given"),
    )
    refused(
        recast("maxtext-to-hf"),
        Fault("INVALID_FLAG", "--load_parameters_path was not given"),
        Fault("INVALID_FLAG", "--base_output_directory was not given"),
    )


@triggers("HF_MODEL_PATH_REQUIRED")
def test_the_command_line_of_maxtext_without_a_model_path(tmp_path: Path) -> None:
    run = recast("hf-to-maxtext", "model_name=llama3.1-8b", f"base_output_directory={tmp_path / 'out'}")
    refused(run, Fault("HF_MODEL_PATH_REQUIRED", "--hf_model_path"))
    assert "config.json" in run.failures[0].suggestion
    assert not (tmp_path / "out").exists()


@triggers("INVALID_FLAG")
def test_every_fault_of_a_forward_command_line_is_listed(hf: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = hf_to_maxtext(
            hf,
            destination,
            "--save_dtype=int8",
            "--scan_layer=true",
            "overwrite=perhaps",
            "--simulated_cpu_devices_count=0",
            "stray",
        )
    refused(
        run,
        Fault("INVALID_FLAG", "--save_dtype", "int8"),
        Fault("INVALID_FLAG", "--scan_layer.", "Did you mean --scan_layers?"),
        Fault("INVALID_FLAG", "--overwrite", "perhaps"),
        Fault("INVALID_FLAG", "--simulated_cpu_devices_count", "0"),
        Fault("INVALID_FLAG", "'stray'"),
    )


@pytest.mark.parametrize("command", ["hf-to-maxtext", "maxtext-to-hf", "maxtext-to-maxtext"])
@triggers("INVALID_FLAG")
def test_a_conversion_that_takes_flags_only_names_the_one_that_takes_paths(command: str) -> None:
    run = recast(command, "qs/hf", "out")
    refused(
        run,
        Fault("INVALID_FLAG", "'qs/hf'", "takes flags only", "`recast convert SOURCE DESTINATION --to=FORMAT`"),
        Fault("INVALID_FLAG", "'out'", "takes flags only", "`recast convert SOURCE DESTINATION --to=FORMAT`"),
    )


@triggers("INVALID_FLAG")
def test_every_fault_of_a_command_line_back_is_listed(maxtext: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = maxtext_to_hf(maxtext, destination, "--weight_dtype=fp8", "--max_shard_sise=1GB", "--scan_layers=maybe")
    refused(
        run,
        Fault("INVALID_FLAG", "--weight_dtype", "fp8"),
        Fault("INVALID_FLAG", "--max_shard_sise", "Did you mean --max_shard_size?"),
        Fault("INVALID_FLAG", "--scan_layers", "maybe"),
    )


@triggers("INVALID_FLAG", "HF_MODEL_PATH_REQUIRED", "REMOTE_NOT_SUPPORTED")
def test_faults_of_different_kinds_are_listed_together() -> None:
    run = recast(
        "hf-to-maxtext",
        "base_output_directory=gs://bucket/out",
        "checkpoint_storage_use_zarr3=0",
        "checkpoint_storage_use_ocdbt=0",
        "compression=zstd:23",
        "memory_budget=lots",
    )
    refused(
        run,
        Fault("HF_MODEL_PATH_REQUIRED"),
        Fault("REMOTE_NOT_SUPPORTED", "--base_output_directory", "gs://"),
        Fault("INVALID_FLAG", "--compression=zstd:23"),
        Fault("INVALID_FLAG", "--memory_budget=lots"),
    )


@triggers("INVALID_FLAG")
def test_a_vision_part_that_the_family_does_not_have(hf: Path, maxtext: Path, destination: Path) -> None:
    for run in (
        hf_to_maxtext(hf, destination, "--use_multimodal"),
        maxtext_to_hf(maxtext, destination, "--use_multimodal=true"),
    ):
        refused(run, Fault("INVALID_FLAG", "--use_multimodal"))
        assert not destination.exists()


@pytest.mark.parametrize("size", ["", "0", "-1", "1XB", "five", "1e999", "nan"])
@triggers("INVALID_FLAG")
def test_sizes_that_are_none(size: str, hf: Path, maxtext: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        first = hf_to_maxtext(hf, destination, f"--memory_budget={size}")
        second = maxtext_to_hf(maxtext, destination, f"--max_shard_size={size}", f"--memory_budget={size}")
    refused(first, Fault("INVALID_FLAG", f"--memory_budget={size}"))
    refused(second, Fault("INVALID_FLAG", f"--memory_budget={size}"), Fault("INVALID_FLAG", f"--max_shard_size={size}"))


@pytest.mark.parametrize("compression", ["", "zstd", "zstd:0", "zstd:03", "zstd:23", "zstd:-1", "gzip:1", "ZSTD:3"])
@triggers("INVALID_FLAG")
def test_compressions_that_are_none(compression: str, hf: Path, destination: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, destination, f"--compression={compression}")
    refused(run, Fault("INVALID_FLAG", f"--compression={compression} "))


def test_the_storage_of_pathways_is_written_and_read(hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    storage = ("checkpoint_storage_use_zarr3=0", "checkpoint_storage_use_ocdbt=0", "compression=zstd:3")
    completed(hf_to_maxtext(hf, out, *storage))
    items = out / "0" / "items"
    described = json.loads((items / "params.params.token_embedder.embedding" / ".zarray").read_text())
    assert described["compressor"] == {"id": "zstd", "level": 3}
    assert not (items / "manifest.ocdbt").exists()
    completed(maxtext_to_hf(out, tmp_path / "back", "weight_dtype=auto"))
    assert differing(read_safetensors(tmp_path / "back"), read_safetensors(hf)) == []


@pytest.mark.parametrize("place", ["gs://bucket/secret-token", "hf://secret-token", "s3://a/secret-token"])
@triggers("REMOTE_NOT_SUPPORTED")
def test_remote_paths_are_refused_and_not_repeated(place: str, hf: Path, tmp_path: Path) -> None:
    scheme = place.partition("secret")[0].partition("://")[0]
    local = tmp_path / "out"
    with unchanged(tmp_path):
        runs = [
            (recast("hf-to-maxtext", f"--hf_model_path={place}", f"--base_output_directory={local}"), "hf_model_path"),
            (recast("hf-to-maxtext", f"--hf_model_path={hf}", f"base_output_directory={place}"), "base_output"),
            (recast("maxtext-to-hf", "--load_parameters_path", place, f"--base_output_directory={local}"), "load_"),
            (recast("inspect", place), "PATH"),
        ]
    for run, flag in runs:
        refused(run, Fault("REMOTE_NOT_SUPPORTED", flag, f"{scheme}://"))
        assert "secret-token" not in "".join(f"{entry.reason}{entry.subject}{entry.stack}" for entry in run.failures)


@triggers("REMOTE_NOT_SUPPORTED")
def test_all_remote_paths_are_listed(maxtext: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = recast(
            "maxtext-to-hf",
            "load_parameters_path=gs://a",
            "base_output_directory=gs://b",
            "hf_config_path=hf://c",
        )
    refused(
        run,
        Fault("REMOTE_NOT_SUPPORTED", "--load_parameters_path"),
        Fault("REMOTE_NOT_SUPPORTED", "--base_output_directory"),
        Fault("REMOTE_NOT_SUPPORTED", "--hf_config_path"),
    )


@pytest.mark.parametrize("level", ["headers", "full"])
@triggers("INVALID_FLAG")
def test_a_seed_is_refused_where_nothing_is_sampled(level: str, hf: Path, maxtext: Path) -> None:
    refused(
        recast("verify", hf, maxtext, f"--level={level}", "--seed=1"),
        Fault("INVALID_FLAG", "--seed", f"--level={level} takes no samples"),
    )


@triggers("REMOTE_NOT_SUPPORTED")
def test_every_flag_that_names_a_place_takes_a_local_one(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (
        ("explain", "llama", "hf", "maxtext", "--config"),
        ("models", "--cache_location"),
        ("plan", hf, "--to=maxtext", "--plan_file"),
        ("inspect", hf, "--report_directory"),
        ("benchmark", "--json"),
        ("verify", "--manifest"),
    ):
        run = recast(*words[:-1], f"{words[-1]}=gs://bucket/a")
        assert ("REMOTE_NOT_SUPPORTED", words[-1]) in [(failure.id, failure.subject) for failure in run.failures]
    refused(recast("models", "--cache_location=gs://b"), Fault("REMOTE_NOT_SUPPORTED", "--cache_location begins with"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


@triggers("UNKNOWN_SUBCOMMAND")
def test_a_misspelt_subcommand() -> None:
    refused(recast("hf-to-maxtex"), Fault("UNKNOWN_SUBCOMMAND", "hf-to-maxtex", "Did you mean hf-to-maxtext?"))
    refused(recast("transmute", "--help"), Fault("UNKNOWN_SUBCOMMAND", "transmute"))


@triggers("INVALID_FLAG")
def test_the_other_subcommands_refuse_what_they_do_not_know() -> None:
    refused(recast("inspect"), Fault("INVALID_FLAG", "path"))
    refused(recast("explain", "llama"), Fault("INVALID_FLAG", "source_format"), Fault("INVALID_FLAG", "target_format"))
    refused(recast("explain", "lama", "hf", "maxtext"), Fault("INVALID_FLAG", "lama", "llama"))
    layout = recast("explain", "llama3.1", "hf", "maxtext")
    refused(layout, Fault("INVALID_FLAG", "llama3.1 is a layout name of the family llama"))
    published = recast("explain", "qwen3-4b", "hf", "maxtext")
    refused(published, Fault("INVALID_FLAG", "qwen3-4b is a published model of the family qwen3"))
    refused(recast("explain", "llama", "hg", "matext"), Fault("INVALID_FLAG", "hg"), Fault("INVALID_FLAG", "matext"))
    refused(recast("families", "all"), Fault("INVALID_FLAG", "'all'"))


@triggers("MODEL_NAME_UNKNOWN")
def test_a_failed_run_leaves_its_report_where_asked(hf: Path, destination: Path, tmp_path: Path) -> None:
    place = tmp_path / "reports" / "today"
    run = hf_to_maxtext(hf, destination, "--model_name=nobody", f"--report_directory={place}")
    refused(run, Fault("MODEL_NAME_UNKNOWN", "nobody"))
    assert (place / "report.txt").read_text("utf-8") == run.output
    kept = json.loads((place / "report.json").read_text("utf-8"))
    (failed,) = [step for step in kept["step"] if step["status"] == "FAILED"]
    assert [diagnostic["id"] for diagnostic in failed["diagnostic"]] == ["MODEL_NAME_UNKNOWN"]
    assert kept["exit_code"] == 2
    assert not kept.get("succeeded")


@triggers("INVALID_FLAG")
def test_a_report_is_not_written_into_a_checkpoint(hf: Path, maxtext: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    beside = f"--report_directory={tmp_path / 'o' / '..' / 'out'}"
    with unchanged(tmp_path):
        runs = [
            (hf_to_maxtext(hf, out, beside), "--base_output_directory"),
            (hf_to_maxtext(hf, out, f"--report_directory={out / 'reports'}"), "--base_output_directory"),
            (hf_to_maxtext(hf, out, f"--report_directory={hf}"), "--hf_model_path"),
            (maxtext_to_hf(maxtext, out, beside), "--base_output_directory"),
            (recast("convert", hf, out, "--to=maxtext", beside), "DESTINATION"),
            (recast("verify", hf, maxtext, f"--report_directory={maxtext}"), "DESTINATION"),
            (
                recast("verify", f"--manifest={maxtext / 'checkpoint-manifest.json'}", f"--report_directory={maxtext}"),
                "--manifest",
            ),
            (
                recast(
                    "prepare-ckpt",
                    "--model=llama3-8b",
                    f"--original_checkpoint_path={hf}",
                    f"--output_checkpoint_path={out}",
                    beside,
                ),
                "--output_checkpoint_path",
            ),
        ]
        several = hf_to_maxtext(hf, out, beside, "--save_dtype=int8")
    for run, place in runs:
        refused(run, Fault("INVALID_FLAG", f"--report_directory lies in {place},"))
    refused(several, Fault("INVALID_FLAG", "--report_directory"), Fault("INVALID_FLAG", "--save_dtype"))


def test_a_report_may_lie_beside_a_checkpoint(hf: Path, tmp_path: Path) -> None:
    completed(hf_to_maxtext(hf, tmp_path / "out", f"--report_directory={tmp_path}"))
    assert (tmp_path / "report.json").is_file()


@triggers("SOURCE_NOT_FOUND")
def test_a_path_that_is_not_utf8_is_in_the_report(tmp_path: Path) -> None:
    run = process("diff", "/tmp/\udcff", tmp_path / "none", f"--report_directory={tmp_path / 'reports'}")
    refused(run, Fault("SOURCE_NOT_FOUND", "/tmp/? does not exist"), Fault("SOURCE_NOT_FOUND", "none does not exist"))
    kept = json.loads((tmp_path / "reports" / "report.json").read_text("utf-8"))
    assert next(found["subject"] for step in kept["step"] for found in step["diagnostic"]) == "/tmp/\\udcff"


def test_a_path_that_is_not_utf8_may_be_compared(hf: Path, tmp_path: Path) -> None:
    place = hf.rename(tmp_path / "\udcff")
    run = process("diff", place, place, f"--report_directory={tmp_path / 'reports'}")
    assert run.code == 0, run.output + run.errors
    kept = json.loads((tmp_path / "reports" / "report.json").read_text("utf-8"))
    assert kept["source"] == f"{tmp_path}/\\udcff"


def test_the_documented_command_line_of_to_maxtext_works(tmp_path: Path) -> None:
    source = cp.write(
        tmp_path / "hf",
        rope_theta=500000.0,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )
    forward = recast(
        "hf-to-maxtext",
        "model_name=llama3.1",
        f"base_output_directory={tmp_path / 'out'}",
        "scan_layers=True",
        "use_multimodal=false",
        "hardware=cpu",
        "skip_jax_distributed_system=true",
        "checkpoint_storage_use_zarr3=1",
        "checkpoint_storage_use_ocdbt=1",
        "--lazy_load_tensors=True",
        "--save_dtype=bfloat16",
        f"--hf_model_path={source}",
    )
    completed(forward)
    assert (tmp_path / "out" / "0" / "items" / "_METADATA").is_file()
    back = recast(
        "maxtext-to-hf",
        "model_name=llama3.1",
        f"load_parameters_path={tmp_path / 'out' / '0' / 'items'}",
        f"base_output_directory={tmp_path / 'back'}",
        "hardware=cpu",
        "skip_jax_distributed_system=true",
        "scan_layers=True",
        "use_multimodal=false",
        "weight_dtype=bfloat16",
    )
    completed(back)
    assert differing(read_safetensors(tmp_path / "back"), read_safetensors(source)) == []


def test_what_older_command_lines_of_maxtext_give_as_well_is_accepted_and_said(hf: Path, tmp_path: Path) -> None:
    forward = hf_to_maxtext(
        hf, tmp_path / "out", "src/maxtext/configs/base.yml", "hf_access_token=SECRET", "hardware=tpu"
    )
    completed(forward)
    details = forward.output.partition("STEP: open_source")[0]
    assert "src/maxtext/configs/base.yml is not read" in details
    assert "--hf_access_token changes nothing: nothing is downloaded" in details
    assert "--hardware changes nothing" in details
    assert "--lazy_load_tensors" not in details
    assert "hf_access_token=***" in forward.output
    assert "SECRET" not in forward.output
    for file in (tmp_path / "out").rglob("*.json"):
        assert "SECRET" not in file.read_text("utf-8")
    completed(maxtext_to_hf(tmp_path / "out", tmp_path / "back", "base.yml", "--override_model_architecture=false"))


@triggers("INVALID_FLAG")
def test_settings_that_would_have_to_be_honoured_are_refused(hf: Path, maxtext: Path, tmp_path: Path) -> None:
    refused(hf_to_maxtext(hf, tmp_path / "out", "my.yml"), Fault("INVALID_FLAG", "'my.yml'"))
    run = maxtext_to_hf(maxtext, tmp_path / "out", "--override_model_architecture=true")
    refused(run, Fault("INVALID_FLAG", "--override_model_architecture"))
    assert "--hf_config_path" in run.failures[0].suggestion


def test_the_documented_command_line_of_the_older_scripts_works(hf: Path, tmp_path: Path) -> None:
    run = recast(
        "hf-to-maxtext",
        "--base_model_path",
        hf,
        "--maxtext_model_path",
        tmp_path / "out",
        "--model_size",
        "llama2",
    )
    completed(run)
    assert (tmp_path / "out" / "DONE").is_file()


@triggers("INVALID_FLAG")
def test_a_path_given_by_two_names_twice_is_not_guessed(hf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    with unchanged(tmp_path):
        run = hf_to_maxtext(hf, tmp_path / "out", f"--base_model_path={other}")
    refused(run, Fault("INVALID_FLAG", "hf_model_path"))


@pytest.mark.parametrize("name", entrypoint.SUBCOMMANDS)
@pytest.mark.parametrize("form", ["--help", "-h", "--helpfull"])
def test_help_of_a_subcommand(name: str, form: str) -> None:
    run = recast(name, form)
    assert run.code == 0
    assert run.output.startswith(f"usage: recast {name} ")
    codes = "0 done, 1 differing (diff), 2 usage, 3 library, 4 out of memory, 5 input/output (retry), 143 stopped"
    assert f"exit codes: {codes}" in run.output
    assert "--report_directory" in run.output
    assert "FINAL REPORT" not in run.output
    assert run.errors == ""


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_help_of_the_entrypoint_names_every_subcommand(words: tuple[str, ...]) -> None:
    run = recast(*words)
    assert run.code == 0
    assert run.output.startswith("usage: recast SUBCOMMAND")
    for name in entrypoint.SUBCOMMANDS:
        assert f"  {name} " in run.output


def test_help_wins_over_faults_in_other_flags() -> None:
    run = recast("hf-to-maxtext", "--save_dtype=int8", "--no_such_flag", "--help")
    assert run.code == 0
    assert run.output.startswith("usage: recast hf-to-maxtext ")


def test_a_report_of_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    for word in ("first", "second"):
        refused(recast("families", word, f"--report_directory={tmp_path}"), Fault("INVALID_FLAG", word))
    assert "'second'" in (tmp_path / "report.json").read_text("utf-8")
