"""`plan --kubernetes`: what it prints is a valid Job that agrees with the base of container/jobs and with its plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from absl import flags

from converters import convert_checkpoint
from converters.cli import arguments, usage
from converters.kubernetes import job
from converters.kubernetes.settings import FLAGS
from tests.bad_input import checkpoints
from tests.bad_input.judging import Fault, refused
from tests.bad_input.running import recast
from tests.images import jobs

Json = dict[str, Any]

WHERE = {
    "image": "registry.example.com/recast/recast-slim:0.1.0",
    "claim": "checkpoints",
    "job_source": "llama",
    "job_destination": "out/llama",
}
MODEL = ("--model_name=llama3.2-1b", "--to=maxtext")


def printed(*more: str, **changed: str) -> list[Json]:
    """The documents that a plan prints, and nothing but them."""
    run = recast(
        "plan", *MODEL, "--kubernetes", *(f"--{name}={value}" for name, value in (WHERE | changed).items()), *more
    )
    assert run.code == 0, run.output
    documents = list(yaml.safe_load_all(run.output))
    for document in documents:
        for version in ("1.31", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(document, version, strict=True)
    return documents


def test_the_job_is_the_base_but_for_what_a_plan_knows() -> None:
    (made,) = printed()
    base = jobs.built_base()
    for key in ("completions", "parallelism", "backoffLimit", "podReplacementPolicy", "ttlSecondsAfterFinished"):
        assert made["spec"][key] == base["spec"][key], key
    assert made["spec"]["podFailurePolicy"] == base["spec"]["podFailurePolicy"]
    pod, of_base = made["spec"]["template"]["spec"], base["spec"]["template"]["spec"]
    for name in ("serviceAccountName", "containers"):
        pod.pop(name)
        of_base_value = of_base.pop(name)
        assert of_base_value
    assert pod == of_base
    container, of_base = jobs.container(printed()[0]), jobs.container(jobs.built_base())
    for name in ("image", "args", "resources"):
        container.pop(name)
        of_base.pop(name)
    assert container == of_base


def test_a_bucket_is_mounted_as_the_component_mounts_it() -> None:
    (made,) = printed("--bucket=checkpoints", "--image_pull_secret=registry")
    base = jobs.job("hf-to-maxtext", "bucket-source", "registry-secret")
    pod, of_base = made["spec"]["template"], base["spec"]["template"]
    for name in ("volumes", "imagePullSecrets"):
        assert pod["spec"][name] == of_base["spec"][name]
    assert pod["metadata"]["annotations"] == of_base["metadata"]["annotations"]
    assert jobs.container(made)["volumeMounts"] == jobs.container(base)["volumeMounts"]


def test_its_resources_are_those_of_the_plan(tmp_path: Path) -> None:
    claim, made = printed(
        "--bucket=models", "--create_claim", "--memory_budget=1GiB", f"--plan_file={tmp_path / 'plan.json'}"
    )
    plan = json.loads((tmp_path / "plan.json").read_text())
    resources = jobs.container(made)["resources"]
    assert resources["requests"]["cpu"] == str(plan["threads"])
    assert resources["limits"]["memory"] == resources["requests"]["memory"] == f"{1024 + 256 + 64}Mi"
    gibibytes = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    assert (gibibytes - 1) << 30 < int(plan["disk_bytes"]) <= gibibytes << 30
    assert made["spec"]["template"]["spec"]["volumes"][-1]["csi"]["volumeAttributes"]["bucketName"] == "models"
    assert jobs.container(made)["args"][1] == "/source/llama"


def test_its_command_line_is_one_that_convert_takes() -> None:
    (made,) = printed("--scan_layers=false", "--require_exact", "--image_pull_secret=registry", "--job_cpus=3")
    name, *words = jobs.container(made)["args"]
    assert name == "convert"
    values = flags.FlagValues()
    convert_checkpoint.define(values)
    usage.define_common(values)
    positional = arguments.parse(values, [name, *words], convert_checkpoint.PROGRAM.positional)
    assert positional == [f"{job.MOUNT}/llama", f"{job.MOUNT}/out/llama"]
    assert (values.scan_layers, values.require_exact, values.to) == (False, True, "maxtext")
    # What this machine has does not decide about the Job.
    assert values.memory_budget == "2GiB"
    assert made["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert not {word.removeprefix("--").partition("=")[0] for word in words} & set(FLAGS)


def test_a_checkpoint_that_is_here_is_planned_like_a_published_model(tmp_path: Path) -> None:
    checkpoints.write(tmp_path / "hf")
    where = [f"--{name}={value}" for name, value in WHERE.items()]
    run = recast("plan", tmp_path / "hf", "--to=maxtext", "--kubernetes", *where)
    assert run.code == 0, run.output
    assert str(tmp_path) not in run.output
    assert yaml.safe_load(run.output)["kind"] == "Job"


def test_what_cannot_be_known_is_refused_with_all_faults_at_once() -> None:
    wanted = [Fault("INVALID_FLAG", f"--{name}", "must be given") for name in WHERE]
    refused(recast("plan", *MODEL, "--kubernetes"), *wanted)


@pytest.mark.parametrize("flag", ["--image=a:1", "--bucket=models", "--create_claim"])
def test_flags_of_the_cluster_mean_nothing_without_it(flag: str) -> None:
    refused(recast("plan", *MODEL, flag), Fault("INVALID_FLAG", flag.partition("=")[0], "--kubernetes only"))
