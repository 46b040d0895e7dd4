"""The images, run for real as users run them. Needs podman, and RECAST_IMAGES with what Bazel built."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from converters.benchmarking import synthetic
from reporting.version import VERSION
from tests.images.engine import CALLER, Container, Engine

NAMED = f"--model_name={synthetic.MODEL_NAME}"


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A directory of a caller who is not root, and whom the engine does not know."""
    folder = tmp_path / "work"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, *CALLER)
    return folder


@pytest.fixture(scope="module")
def tour(slim: Container, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What quickstart leaves, with a small model in it."""
    folder = tmp_path_factory.mktemp("tour")
    os.chown(folder, *CALLER)
    ended = slim.run("quickstart", "--directory=/data/tour", options=[f"--volume={folder}:/data"])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "tour"


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.stat().st_uid, path.stat().st_gid) for path in folder.rglob("*")}


def source(tour: Path) -> Path:
    return next(path.parent for path in sorted(tour.rglob("config.json")) if list(path.parent.glob("*.safetensors")))


def test_version_and_help(slim: Container) -> None:
    assert re.match(rf"recast {VERSION}\nrevision \S+\nmappings sha256:", slim.run("version").stdout)
    assert "  hf-to-maxtext  " in slim.run("--help").stdout
    ended = slim.run("hf-to-maxtex")
    assert (ended.returncode, "Did you mean hf-to-maxtext?" in ended.stdout) == (2, True)


def test_what_root_writes_belongs_to_the_owner_of_the_mount(tour: Path) -> None:
    assert (tour / "maxtext-stacked" / "DONE").exists()
    assert owners(tour) == {CALLER}


def test_a_conversion_there_and_back_as_any_user(slim: Container, tour: Path, work: Path) -> None:
    model = source(tour)
    as_user = [f"--user={CALLER[0]}:{CALLER[1]}", f"--volume={model}:/model:ro", f"--volume={work}:/data"]
    there = slim.run(
        "hf-to-maxtext",
        NAMED,
        "--hf_model_path",
        "/model",
        "--base_output_directory",
        "/data/there",
        options=[*as_user, "--memory=600m", "--cap-drop=all", "--security-opt=no-new-privileges"],
    )
    assert there.returncode == 0, there.stdout
    back = slim.run(
        "maxtext-to-hf",
        "--load_parameters_path=/data/there/0/items",
        "--weight_dtype=auto",
        "--base_output_directory=/data/back",
        options=as_user,
    )
    assert back.returncode == 0, back.stdout
    assert (work / "there" / "0" / "DONE").exists() or list((work / "there").rglob("DONE"))
    assert owners(work) == {CALLER}
    same = slim.run("diff", "/model", "/data/back", options=as_user)
    assert same.returncode == 0, same.stdout


def test_too_little_memory_is_said_in_the_report(slim: Container, tour: Path, work: Path) -> None:
    model = source(tour)
    ended = slim.run(
        "hf-to-maxtext",
        NAMED,
        "--hf_model_path=/model",
        "--base_output_directory=/data/out",
        options=["--memory=96m", f"--volume={model}:/model:ro", f"--volume={work}:/data"],
    )
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert "MEMORY_PLAN" in ended.stdout or "OUT_OF_MEMORY" in ended.stdout


@pytest.mark.parametrize(
    ("mount", "user", "reason"),
    [
        ([], "65532", "nothing is mounted there"),
        ([":/data:ro"], "", "the mount cannot be written"),
        ([":/data"], "65532", "another user owns the mount"),
    ],
)
def test_a_mount_that_cannot_be_written_is_a_usage_error(
    slim: Container, tour: Path, work: Path, mount: list[str], user: str, reason: str
) -> None:
    options = [f"--volume={work}{suffix}" for suffix in mount]
    options += [f"--user={user}"] if user else []
    ended = slim.run("quickstart", "--directory=/data/tour", options=options)
    assert ended.returncode in (2, 5), f"{reason}: {ended.stdout}"
    assert "FINAL REPORT" in ended.stdout
    assert list(work.iterdir()) == []


def test_a_stop_reaches_the_worker_and_is_reported(slim: Container, work: Path, tmp_path: Path) -> None:
    synthetic.make(tmp_path / "model", synthetic.scaled(0.25))
    options = [f"--volume={tmp_path / 'model'}:/model:ro", f"--volume={work}:/data", "--name=stopped"]
    words = ["hf-to-maxtext", NAMED, "--hf_model_path=/model", "--base_output_directory=/data/out"]
    with subprocess.Popen(
        slim.engine.command(*slim.arguments(options, words)),
        env=slim.engine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        until = time.monotonic() + 60
        while time.monotonic() < until and not list(work.rglob("*.recast-staging*")) and process.poll() is None:
            time.sleep(0.05)
        slim.engine.podman("stop", "--time=60", "stopped")
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "TERMINATED" in said
    assert not list(work.rglob("DONE"))
    again = slim.run(*words, options=options[:2])
    assert again.returncode == 0, again.stdout
    assert owners(work) == {CALLER}


@pytest.mark.campaign
def test_three_gigabytes_convert_in_600_mib_with_the_page_cache(slim: Container, work: Path, tmp_path: Path) -> None:
    synthetic.make(tmp_path / "model", synthetic.scaled(1))
    options = ["--memory=600m", f"--volume={tmp_path / 'model'}:/model:ro", f"--volume={work}:/data"]
    words = ["hf-to-maxtext", NAMED, "--hf_model_path=/model", "--base_output_directory=/data/out"]
    ended = slim.run(*words, options=options)
    assert ended.returncode == 0, ended.stdout


def test_the_image_for_flags_says_which_subcommand_it_wants_and_does_not_have(podman: Engine) -> None:
    flags = Container(podman, podman.pull("inference-checkpoint"))
    assert "  hf-to-maxtext  " in flags.run("--help").stdout
    ended = flags.run("--bucket_name=b", "--model_path=m")
    assert (ended.returncode, ended.stderr) == (2, "")
    assert "FINAL REPORT FOR: `checkpoint`" in ended.stdout
    assert "There is no subcommand checkpoint. It is what this image gives --bucket_name to" in ended.stdout
    assert "Traceback" not in ended.stdout


def test_the_termination_message_is_left_where_kubernetes_asks_for_it(slim: Container, work: Path) -> None:
    message = work / "message"
    message.touch()
    message.chmod(0o666)
    options = [f"--volume={message}:/dev/termination-log", "--user=65532"]
    assert slim.run("inspect", "/nothing", options=options).returncode == 2
    assert message.read_text().splitlines()[1:] == ["exit code 2", "parse_args: SOURCE_NOT_FOUND"]
