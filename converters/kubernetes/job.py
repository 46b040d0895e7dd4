"""The Kubernetes Job of a planned conversion. What does not depend on the plan is as in container/jobs/base."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from converters.engine import memory_guard
from converters.kubernetes import yaml_text
from converters.kubernetes.settings import Settings
from recast_proto import error_pb2, plan_pb2
from reporting import version
from validators import preflight
from validators.memory import Bound

NAME = "recast"
MOUNT = "/checkpoints"
SOURCE_MOUNT = "/source"
USER = 65532
GRACE_SECONDS = 120
KEPT_SECONDS = 7 * 86400
TRIES = 6

FINAL = (
    error_pb2.EXIT_DIFFERENT,
    error_pb2.EXIT_USAGE,
    error_pb2.EXIT_LIBRARY,
    error_pb2.EXIT_OUT_OF_MEMORY,
)
"""Exit codes after which the same again would end the same."""

SIGKILL = 137
RETRIED = (error_pb2.EXIT_RETRY, SIGKILL, error_pb2.EXIT_TERMINATED)
"""Exit codes after which another try goes on from the finished units."""

_MIB = 1 << 20
_MEMORY_STEP = 64 * _MIB
_LARGEST_MARGIN = 512 * _MIB
_GIB = 1 << 30

Json = dict[str, Any]


def text(settings: Settings, plan: plan_pb2.Plan, flags: Sequence[str]) -> str:
    """The Job as YAML, with the claim where it is asked for.

    Args:
        settings: where it runs.
        plan: of the conversion.
        flags: of the conversion, but for source and destination.
    """
    made = [claim(settings, plan)] if settings.create_claim else []
    remarks = [
        f"{plan.source_format} to {plan.target_format}, model {plan.model_name or 'any'}: {plan.bytes_in} bytes in, "
        f"{plan.bytes_out} out.",
        f"The claim {settings.claim} must have {plan.disk_bytes} bytes free, which user {USER} may write.",
        f"Memory: {plan.memory_budget} bytes of buffers, {preflight.START_UP_BYTES} for the process; the rest stays "
        "free.",
    ]
    return yaml_text.render([*made, job(settings, plan, flags)], remarks)


def job(settings: Settings, plan: plan_pb2.Plan, flags: Sequence[str]) -> Json:
    """The Job."""
    source = f"{SOURCE_MOUNT if settings.bucket else MOUNT}/{settings.source}"
    arguments = ["convert", source, f"{MOUNT}/{settings.destination}", *flags]
    labels = {"app.kubernetes.io/name": NAME, "app.kubernetes.io/version": version.VERSION}
    template: Json = {"metadata": {"labels": labels}, "spec": _pod(settings, plan, arguments)}
    if settings.bucket:
        template["metadata"]["annotations"] = {"gke-gcsfuse/volumes": "true"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name(plan, [settings.image, *arguments]),
            **_namespace(settings),
            "labels": labels,
            "annotations": {
                "recast/model": plan.model_name or "any",
                "recast/plan": plan.digest,
                "recast/bytes-in": str(plan.bytes_in),
                "recast/bytes-out": str(plan.bytes_out),
            },
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": TRIES,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _rules()},
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": template,
        },
    }


def claim(settings: Settings, plan: plan_pb2.Plan) -> Json:
    """A claim with room for the output."""
    spec: Json = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": f"{-(-plan.disk_bytes // _GIB)}Gi"}},
    }
    if settings.storage_class:
        spec["storageClassName"] = settings.storage_class
    metadata = {"name": settings.claim, **_namespace(settings), "labels": {"app.kubernetes.io/name": NAME}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def memory_bytes(plan: plan_pb2.Plan) -> int:
    """The limit under which a run has its budget, the process its share, and the guard what must stay free."""
    needed = max(plan.memory_budget + preflight.START_UP_BYTES, plan.peak_memory_bytes)
    margin = memory_guard.margin_of(Bound(needed + _LARGEST_MARGIN, 0, ""))
    return -(-(needed + margin) // _MEMORY_STEP) * _MEMORY_STEP


def name(plan: plan_pb2.Plan, said: Sequence[str]) -> str:
    """A name for people that is the same for the same run, and differs for others."""
    words = f"{NAME}-{plan.model_name or plan.source_format}-to-{plan.target_format}".lower()
    digest = hashlib.sha256(json.dumps([plan.digest, *said]).encode()).hexdigest()[:8]
    return f"{re.sub('[^a-z0-9]+', '-', words)[:54].strip('-')}-{digest}"


def _namespace(settings: Settings) -> Json:
    return {"namespace": settings.namespace} if settings.namespace else {}


def _rules() -> list[Json]:
    def on_exit(action: str, codes: Sequence[int]) -> Json:
        return {"action": action, "onExitCodes": {"containerName": NAME, "operator": "In", "values": sorted(codes)}}

    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [on_exit("FailJob", FINAL), disrupted, on_exit("Count", RETRIED)]


def _pod(settings: Settings, plan: plan_pb2.Plan, arguments: Sequence[str]) -> Json:
    pod: Json = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(settings, plan, arguments)],
        "volumes": [
            {"name": "checkpoints", "persistentVolumeClaim": {"claimName": settings.claim}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
    if settings.pull_secret:
        pod["imagePullSecrets"] = [{"name": settings.pull_secret}]
    if settings.bucket:
        pod["volumes"].append(_bucket(settings.bucket))
    return pod


def _container(settings: Settings, plan: plan_pb2.Plan, arguments: Sequence[str]) -> Json:
    memory = f"{memory_bytes(plan) // _MIB}Mi"
    mounts: list[Json] = [
        {"name": "checkpoints", "mountPath": MOUNT},
        {"name": "scratch", "mountPath": "/tmp"},
    ]
    if settings.bucket:
        mounts.append({"name": "source", "mountPath": SOURCE_MOUNT, "readOnly": True})
    return {
        "name": NAME,
        "image": settings.image,
        "args": list(arguments),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {
            "requests": {
                "cpu": str(settings.cpus or max(1, plan.threads)),
                "memory": memory,
                "ephemeral-storage": "1Gi",
            },
            "limits": {"memory": memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _bucket(bucket: str) -> Json:
    driver = {
        "driver": "gcsfuse.csi.storage.gke.io",
        "readOnly": True,
        "volumeAttributes": {"bucketName": bucket, "mountOptions": "implicit-dirs"},
    }
    return {"name": "source", "csi": driver}
