from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from converters.engine import memory_guard
from converters.kubernetes import job
from converters.kubernetes.settings import Settings
from recast_proto import plan_pb2
from validators import preflight
from validators.memory import Bound

SETTINGS = Settings(
    image="r/recast:1",
    namespace="",
    service_account="default",
    claim="checkpoints",
    create_claim=False,
    storage_class="",
    bucket="",
    source=PurePosixPath("llama"),
    destination=PurePosixPath("out"),
    pull_secret="",
    cpus=0,
)
GIB = 1 << 30


def plan(**changed: object) -> plan_pb2.Plan:
    return plan_pb2.Plan(
        **{
            "source_format": "hf",
            "target_format": "maxtext",
            "model_name": "llama3.1-8b",
            "memory_budget": 2 * GIB,
            "disk_bytes": 3 * GIB + 1,
            "threads": 6,
            "digest": "0" * 64,
            **changed,
        }  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("budget", [64 << 20, 2 * GIB, 15 * GIB, 200 * GIB])
def test_with_budget_and_start_up_used_the_guard_still_has_its_margin(budget: int) -> None:
    limit = job.memory_bytes(plan(memory_budget=budget))
    used = budget + preflight.START_UP_BYTES
    assert limit - used >= memory_guard.margin_of(Bound(limit, 0, ""))
    assert limit - used <= 640 << 20


def test_a_plan_that_takes_more_than_its_budget_gets_it() -> None:
    assert job.memory_bytes(plan(peak_memory_bytes=9 * GIB)) > 9 * GIB


def test_processors_are_the_threads_unless_told() -> None:
    requests = job.job(SETTINGS, plan(), [])["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    assert requests["cpu"] == "6"
    assert '"--dtype=bfloat16"' in job.text(SETTINGS, plan(), ["--dtype=bfloat16"])


def test_a_claim_has_room_for_the_output() -> None:
    assert job.claim(SETTINGS, plan())["spec"]["resources"]["requests"]["storage"] == "4Gi"
    assert job.claim(SETTINGS, plan(disk_bytes=3 * GIB))["spec"]["resources"]["requests"]["storage"] == "3Gi"


@pytest.mark.parametrize("model", ["llama3.1-8b", "", "Weird_/" * 30])
def test_names_are_short_and_differ_where_the_runs_do(model: str) -> None:
    names = [job.name(plan(model_name=model), [flag]) for flag in ("--a", "--a", "--b")]
    assert names[0] == names[1] != names[2]
    assert all(re.fullmatch("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])", name) for name in names)


def test_every_exit_code_is_either_final_or_tried_again() -> None:
    assert not set(job.FINAL) & set(job.RETRIED)
