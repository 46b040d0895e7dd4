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
    (job, _) = built = jobs.built("hf-to-maxtext", "bucket-source", "registry-secret")
    for resource in built:
        kubernetes_validate.validate(resource, version, strict=True)
    pod = job["spec"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["checkpoints", "scratch", "source"]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in jobs.container(job)["volumeMounts"]}
    assert mounts == {"/checkpoints": False, "/tmp": False, "/source": True}
    plain = jobs.job("hf-to-maxtext")
    assert jobs.container(plain)["args"] == jobs.container(job)["args"]


@pytest.mark.parametrize("version", [KUBERNETES, kubernetes_validate.latest_version()])
def test_a_key_is_mounted_where_a_catalogue_is_downloaded_and_nowhere_else(version: str) -> None:
    (job, _) = built = jobs.built("prepare-ckpt", "catalogue-key")
    for resource in built:
        kubernetes_validate.validate(resource, version, strict=True)
    (catalogue,) = job["spec"]["template"]["spec"]["initContainers"]
    assert catalogue["image"] == jobs.container(job)["image"]
    mounts = [{mount["mountPath"] for mount in one["volumeMounts"]} for one in jobs.all_containers(job)]
    assert mounts == [{"/checkpoints", "/tmp", "/run/secrets/catalogue"}, {"/checkpoints", "/tmp"}]
    assert job["spec"]["template"]["spec"]["volumes"][-1]["secret"]["defaultMode"] == 0o440


def test_every_component_is_tested() -> None:
    assert jobs.components() == ["bucket-source", "catalogue-key", "registry-secret"]


@pytest.mark.parametrize("overlay", jobs.overlays())
def test_a_job_runs_a_subcommand_with_flags_that_it_has(overlay: str) -> None:
    job = jobs.job(overlay)
    assert jobs.container(job)["args"][0] == overlay
    for container in jobs.all_containers(job):
        name, *words = container["args"]
        program = importlib.import_module(entrypoint.SUBCOMMANDS[name][0]).PROGRAM
        values = flags.FlagValues()
        program.define(values)
        usage.define_common(values)
        positional = arguments.parse(values, [name, *words], program.positional)
        assert all(path.startswith("/checkpoints/") for path in positional)


@pytest.mark.parametrize("overlay", jobs.overlays())
def test_every_exit_code_of_every_container_is_final_or_tried_again(overlay: str) -> None:
    job = jobs.job(overlay)
    rules = job["spec"]["podFailurePolicy"]["rules"]
    disrupted = [number for number, rule in enumerate(rules) if "onPodConditions" in rule]
    assert [rules[number]["action"] for number in disrupted] == ["Ignore"]
    for container in jobs.all_containers(job):
        codes = {
            (rule["action"], number > disrupted[0]): rule["onExitCodes"]["values"]
            for number, rule in enumerate(rules)
            if rule.get("onExitCodes", {}).get("containerName") == container["name"]
        }
        # The first rule that fits counts: a disruption goes before another try that counts, and behind what is final.
        assert set(codes) == {("FailJob", False), ("Count", True)}
        final, again = codes["FailJob", False], codes["Count", True]
        # 137 is SIGKILL, of which the supervisor could not report.
        assert set(again) == {error_pb2.EXIT_RETRY, error_pb2.EXIT_TERMINATED, 137}
        assert {code for code in error_pb2.ExitCode.values() if code} <= set(final) | set(again)
        assert [*final] == sorted(final)
        assert [*again] == sorted(again)
    assert job["spec"]["ttlSecondsAfterFinished"] >= 86400


@pytest.mark.parametrize("overlay", jobs.overlays())
def test_a_job_is_restricted_as_far_as_a_pod_can_be(overlay: str) -> None:
    job = jobs.job(overlay)
    pod = job["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] != 0
    for container in jobs.all_containers(job):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
        assert container["image"].endswith(f":{VERSION}")
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
