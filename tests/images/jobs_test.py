"""The Jobs are valid for Kubernetes, agree with the exit codes, and their command lines are understood."""

from __future__ import annotations

import importlib

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
from absl import flags

from container import entrypoint
from converters.cli import arguments, usage
from recast_proto import error_pb2
from reporting.version import VERSION
from tests.images import jobs

KUBERNETES = "1.31"
"""The first version in which podFailurePolicy and podReplacementPolicy are both there by default and stable."""


@pytest.mark.parametrize("overlay", jobs.overlays())
@pytest.mark.parametrize("version", [KUBERNETES, kubernetes_validate.latest_version()])
def test_every_resource_is_valid(overlay: str, version: str) -> None:
    kinds = []
    for resource in jobs.built(overlay):
        kubernetes_validate.validate(resource, version, strict=True)
        kinds.append(resource["kind"])
    assert kinds == ["Job", "ServiceAccount"]


@pytest.mark.parametrize("version", [KUBERNETES, kubernetes_validate.latest_version()])
def test_components_add_to_an_overlay_what_they_say(version: str) -> None:
    assert jobs.components() == ["bucket-source", "registry-secret"]
    (job, _) = built = jobs.built("hf-to-maxtext", *jobs.components())
    for resource in built:
        kubernetes_validate.validate(resource, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["checkpoints", "scratch", "source"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in jobs.container(job)["volumeMounts"]}
    assert mounts == {"/checkpoints": False, "/tmp": False, "/source": True}
    plain = jobs.job("hf-to-maxtext")
    assert jobs.container(plain)["args"] == jobs.container(job)["args"]


@pytest.mark.parametrize("overlay", jobs.overlays())
def test_a_job_runs_a_subcommand_with_flags_that_it_has(overlay: str) -> None:
    name, *words = jobs.container(jobs.job(overlay))["args"]
    assert name == overlay
    program = importlib.import_module(entrypoint.SUBCOMMANDS[name][0]).PROGRAM
    values = flags.FlagValues()
    program.define(values)
    usage.define_common(values)
    positional = arguments.parse(values, [name, *words], program.positional)
    assert all(path.startswith("/checkpoints/") for path in positional)


def test_every_exit_code_is_final_or_tried_again() -> None:
    job = jobs.job("verify")
    rules = [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    by_action = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules}
    # 137 is SIGKILL, of which the supervisor could not report.
    assert set(by_action["Count"]) == {error_pb2.EXIT_RETRY, error_pb2.EXIT_TERMINATED, 137}
    disrupted = [rule for rule in job["spec"]["podFailurePolicy"]["rules"] if "onPodConditions" in rule]
    assert [rule["action"] for rule in disrupted] == ["Ignore"]
    known = {code for code in error_pb2.ExitCode.values() if code}
    assert known <= set(by_action["FailJob"]) | set(by_action["Count"])
    assert all(values == sorted(values) for values in by_action.values())
    assert job["spec"]["ttlSecondsAfterFinished"] >= 86400


@pytest.mark.parametrize("overlay", jobs.overlays())
def test_a_job_is_restricted_as_far_as_a_pod_can_be(overlay: str) -> None:
    job = jobs.job(overlay)
    pod, container = job["spec"]["template"]["spec"], jobs.container(job)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert container["image"].endswith(f":{VERSION}")
