"""The pods of all Jobs, run by `podman kube play` on a volume of small checkpoints. Needs podman and the images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from converters import quickstart
from converters.benchmarking import synthetic
from recast_proto import model_manifest_pb2
from tests import serving_checkpoints
from tests.end_to_end.running import converted
from tests.images import jobs
from tests.images.engine import Container, Engine

pytestmark = pytest.mark.skipif(shutil.which("catatonit") is None, reason="podman's pods need catatonit")

CLAIM = "checkpoints"
NAMED = f"--model_name={synthetic.MODEL_NAME}"
SUCCESS = "INFO - The process is completed without any errors."
FAILURE = "ERROR - One or more failures have occurred. Do not deploy"


@pytest.fixture(scope="module")
def slim(podman: Engine) -> Container:
    """The image, under the name that the overlays give it."""
    image = podman.pull("recast-slim")
    for container in jobs.all_containers(jobs.job("verify")):
        assert podman.podman("tag", image, container["image"]).returncode == 0
    return Container(podman, image)


@pytest.fixture
def claim(slim: Container) -> Iterator[Path]:
    """What the claim of the Jobs is bound to, empty."""
    podman = slim.engine.podman
    assert podman("volume", "create", CLAIM).returncode == 0
    yield Path(podman("volume", "inspect", CLAIM, "--format", "{{.Mountpoint}}").stdout.strip())
    podman("volume", "rm", "--force", CLAIM)


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in both formats."""
    folder = tmp_path_factory.mktemp("tour")
    quickstart.make_model(folder / "hf")
    converted(
        "hf-to-maxtext",
        NAMED,
        hf_model_path=folder / "hf",
        base_output_directory=folder / "maxtext",
    )
    return folder


def both_formats(claim: Path, tour: Path) -> None:
    shutil.copytree(tour, claim, dirs_exist_ok=True)


def hugging_face(claim: Path, tour: Path) -> None:
    shutil.copytree(tour / "hf", claim / "hf")


def training_state(claim: Path, tour: Path) -> None:
    converted(
        "maxtext-to-maxtext",
        "--init_train_state=adam",
        load_parameters_path=tour / "maxtext" / "0" / "items",
        base_output_directory=claim / "maxtext",
    )


def platform_model(claim: Path, _: Path) -> None:
    serving_checkpoints.write(claim / "hf")
    platform(claim)


def pair(claim: Path, _: Path) -> None:
    serving_checkpoints.write(claim / "target")
    serving_checkpoints.write(claim / "draft", num_hidden_layers=1, hidden_size=8, intermediate_size=16)
    platform(claim)


def platform(claim: Path) -> None:
    """A catalogue of tiny models in place of the embedded one of published sizes."""
    (claim / "platform").mkdir()
    speculated = model_manifest_pb2.Deployment(sequence_length=256, batch_size=[1], speculative_decoding=True)
    serving_checkpoints.catalogue(claim / "platform" / "catalog.textproto", deployment=[speculated])


TINY = {
    "--server=embedded": "--server=/checkpoints/platform",
    "--target_model=llama3-70b": "--target_model=llama3-8b",
    "--draft_model=llama3-1b": "",
}
"""Arguments of overlays and what stands in their place with small checkpoints, "" for nothing."""

Fill = Callable[[Path, Path], None]
FLOWS: Mapping[str, tuple[Fill, str, str]] = {
    "hf-to-maxtext": (hugging_face, "maxtext/DONE", "open_source: SOURCE_NOT_FOUND"),
    "maxtext-to-hf": (both_formats, "hf-again/DONE", "open_source: SOURCE_NOT_FOUND"),
    "maxtext-to-maxtext": (training_state, "maxtext-unstacked/DONE", "open_source: SOURCE_NOT_FOUND"),
    "prepare-ckpt": (platform_model, "prepared/DONE", "validate_files: SOURCE_NOT_FOUND"),
    "validate-speculative-decoding": (pair, "speculative-decoding/report.json", "validate_target: SOURCE_NOT_FOUND"),
    "verify": (both_formats, "verification/report.json", "parse_args: SOURCE_NOT_FOUND"),
}
"""What each overlay finds on the volume, what is there in the end, and what is said first where it finds nothing."""


class Played:
    """A Job's pod in podman, with what kubelet adds: a file for the termination message of each container.

    Attributes:
        messages: the file of each container, by its name.
    """

    def __init__(self, podman: Engine, job: jobs.Json, folder: Path) -> None:
        self.messages: dict[str, Path] = {}
        pod = job["spec"]["template"]["spec"]
        for container in jobs.all_containers(job):
            name = container["name"]
            file = self.messages[name] = folder / f"message-{name}"
            file.touch()
            file.chmod(0o666)
            pod["volumes"].append({"name": f"message-{name}", "hostPath": {"path": str(file), "type": "File"}})
            container["volumeMounts"].append({"name": f"message-{name}", "mountPath": "/dev/termination-log"})
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "job"}, "spec": pod}
        path = folder / "pod.yaml"
        path.write_text(yaml.safe_dump(manifest))
        self.started = podman.podman("kube", "play", "--network=none", str(path))
        self.code = podman.podman("wait", "job-recast").stdout.strip()
        self.said = podman.podman("logs", "job-recast").stdout
        podman.podman("kube", "down", str(path))

    def message(self, container: str = "recast") -> list[str]:
        """The lines of a termination message, without the time at its beginning."""
        first, *rest = self.messages[container].read_text().splitlines()
        return [first.partition(" - recast_lib - ")[2], *rest]


def give_away(claim: Path, job: jobs.Json) -> int:
    """Makes the pod's user the owner of the volume, as kubelet does by fsGroup; gives the user."""
    user = int(job["spec"]["template"]["spec"]["securityContext"]["runAsUser"])
    for path in (claim, *claim.rglob("*")):
        os.chown(path, user, user)
    return user


def test_every_overlay_is_run() -> None:
    assert sorted(FLOWS) == jobs.overlays()


@pytest.mark.parametrize("overlay", FLOWS)
def test_the_pod_of_a_job_runs(overlay: str, slim: Container, claim: Path, tour: Path, tmp_path: Path) -> None:
    job = jobs.job(overlay)
    fill, made, _ = FLOWS[overlay]
    fill(claim, tour)
    user = give_away(claim, job)
    for container in jobs.all_containers(job):
        container["args"] = list(filter(None, (TINY.get(word, word) for word in container["args"])))
    if overlay == "hf-to-maxtext":
        jobs.container(job)["args"].append(NAMED)
    played = Played(slim.engine, job, tmp_path)
    assert played.started.returncode == 0, played.started.stderr
    assert played.code == "0", played.said
    assert (claim / made).exists()
    assert {path.stat().st_uid for path in claim.rglob("*")} == {user}
    for name in played.messages:
        assert played.message(name) == [SUCCESS, "exit code 0"]


@pytest.mark.parametrize("overlay", FLOWS)
def test_the_pod_of_a_job_without_its_source_says_so(
    overlay: str, slim: Container, claim: Path, tmp_path: Path
) -> None:
    job = jobs.job(overlay)
    give_away(claim, job)
    played = Played(slim.engine, job, tmp_path)
    assert (played.code, played.message()[:3]) == ("2", [FAILURE, "exit code 2", FLOWS[overlay][2]])
    assert not list(claim.rglob("DONE"))


def test_a_catalogue_that_cannot_be_downloaded_ends_the_pod_before_its_run(
    slim: Container, claim: Path, tmp_path: Path
) -> None:
    job = jobs.job("prepare-ckpt")
    give_away(claim, job)
    catalogue, run = jobs.all_containers(job)
    for container in (catalogue, run):
        container["args"] = [TINY.get(word, word) for word in container["args"]]
    played = Played(slim.engine, job, tmp_path)
    assert played.message("catalogue") == [FAILURE, "exit code 2", "download: METADATA_NOT_FOUND"]
    assert played.messages["recast"].read_text() == ""
    assert list(claim.iterdir()) == []


def test_the_pod_of_a_job_that_a_plan_printed_runs(slim: Container, claim: Path, tour: Path, tmp_path: Path) -> None:
    where = [
        "--image=localhost/recast/planned:1",
        "--claim=checkpoints",
        "--job_source=hf",
        "--job_destination=maxtext",
    ]
    options = [f"--volume={tour / 'hf'}:/model:ro"]
    printed = slim.run("plan", "/model", NAMED, "--to=maxtext", "--kubernetes", *where, options=options)
    assert printed.returncode == 0, printed.stdout
    job = yaml.safe_load(printed.stdout)
    assert slim.engine.podman("tag", slim.image, jobs.container(job)["image"]).returncode == 0
    hugging_face(claim, tour)
    user = give_away(claim, job)
    played = Played(slim.engine, job, tmp_path)
    assert (played.code, played.message()) == ("0", [SUCCESS, "exit code 0"]), played.said
    assert (claim / "maxtext" / "DONE").exists()
    assert {path.stat().st_uid for path in claim.rglob("*")} == {user}
