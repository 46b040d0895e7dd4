"""The serving platform's command lines, run with the image as its users type them. Needs podman and the images."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from recast_proto import model_manifest_pb2
from tests import serving_checkpoints
from tests.checkpoints import differing, read_safetensors
from tests.images.engine import CALLER, Container
from tests.serving_logs import FAILURE, RULE, SUCCESS, reduced

MOUNT = "/workspace"
"""DOCKER_WORKING_DIR of the platform's documents; HOST_WORKING_DIR is the fixture `host`."""


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A caller's directory with a catalogue of tiny models and a checkpoint of each of two of them."""
    folder = tmp_path / "host"
    (folder / "platform").mkdir(parents=True)
    speculated = model_manifest_pb2.Deployment(sequence_length=256, batch_size=[1], speculative_decoding=True)
    serving_checkpoints.catalogue(folder / "platform" / "catalog.textproto", deployment=[speculated])
    serving_checkpoints.write(folder / "Llama-3.2-1B", serving_checkpoints.TIED_CONFIG)
    serving_checkpoints.write(folder / "Llama-3.1-8B")
    give_away(folder)
    return folder


def give_away(folder: Path) -> None:
    """Makes the caller the owner of what these tests write as root."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, *CALLER)


@pytest.fixture(params=["", f"{CALLER[0]}:{CALLER[1]}"], ids=["as_root", "as_the_caller"])
def options(request: pytest.FixtureRequest, host: Path) -> list[str]:
    """The options of the platform's command lines, without and with a user."""
    user = [f"--user={request.param}"] if request.param else []
    return ["-v", f"{host}:{MOUNT}", "--platform", "linux/amd64", *user]


def typed(slim: Container, options: list[str], line: str) -> tuple[int, str]:
    """What a command line comes to on a terminal, as `-it` asks for; a backslash and a new line mean nothing in it."""
    return slim.typed(*line.replace("\\\n", " ").split(), options=options)


def downloaded(slim: Container, options: list[str], server: str) -> str:
    """What download-serving-cache says."""
    code, said = typed(
        slim,
        options,
        f"""download-serving-cache \\
        --server {server} \\
        --cache_location {MOUNT}/serving-cache""",
    )
    assert code == 0, said
    return said


def preparing(model: str, source: str, output: str, more: str = "") -> str:
    """The platform's command line for a conversion."""
    return f"""prepare-ckpt \\
    --model {model} \\
    --original_checkpoint_path {MOUNT}/{source} \\
    --output_checkpoint_path {MOUNT}/{output} \\
    --transformers_version 4.45.1 \\
    --server {MOUNT}/platform \\
    --cache_location serving-cache \\
    {more}"""


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.rglob("*"))}


def test_a_checkpoint_is_prepared_with_a_cache_that_was_downloaded_before(
    slim: Container, host: Path, options: list[str]
) -> None:
    downloaded(slim, options, f"{MOUNT}/platform")
    line = preparing("llama3-1b", "Llama-3.2-1B", "outputs/llama3-1b", "--error_prefix=Byoc")
    code, said = typed(slim, options, line)
    assert code == 0, said
    steps = ("parse_args", "legalizer")
    assert reduced(said[said.index(RULE) :], steps) == reduced(SUCCESS, steps)
    output = host / "outputs" / "llama3-1b"
    assert {"DONE", "report.json", "model-00001-of-00001.safetensors"} <= {path.name for path in output.iterdir()}
    assert owners(host) == {CALLER}


def test_a_relative_cache_is_the_one_beside_the_checkpoint(slim: Container, host: Path, options: list[str]) -> None:
    downloaded(slim, options, f"{MOUNT}/platform")
    shutil.rmtree(host / "platform")
    line = preparing("llama3-8b", "Llama-3.1-8B", "outputs/llama3-8b", "--ignore_transformers_version")
    code, said = typed(slim, options, line)
    assert code == 0, said
    prepared = read_safetensors(host / "outputs" / "llama3-8b")
    assert differing(prepared, read_safetensors(host / "Llama-3.1-8B")) == []


def test_a_relative_cache_that_is_nowhere_is_said_with_the_places(
    slim: Container, host: Path, options: list[str]
) -> None:
    code, said = typed(slim, options, preparing("llama3-1b", "Llama-3.2-1B", "outputs/llama3-1b"))
    assert code == 2
    assert "RecastErrorId.METADATA_NOT_FOUND" in said
    assert f"Looked for at: /serving-cache, {MOUNT}/serving-cache, {MOUNT}/outputs/serving-cache." in said
    assert not (host / "outputs").exists()


def test_a_version_that_is_too_new_is_logged_as_the_platform_logs_it(
    slim: Container, host: Path, options: list[str]
) -> None:
    shutil.rmtree(host / "Llama-3.2-1B")
    config = serving_checkpoints.TIED_CONFIG
    serving_checkpoints.write(host / "Llama-3.2-1B", config, transformers_version="4.52.4")
    give_away(host)
    server = f" --server {MOUNT}/platform --error_prefix=Byoc"
    words = f"--original_checkpoint_path {MOUNT}/Llama-3.2-1B --output_checkpoint_path {MOUNT}/outputs/llama3-1b"
    line = f"prepare-ckpt --model llama3-1b {words} --transformers_version 4.45.1{server}"
    code, said = typed(slim, options, line)
    assert code == 2
    steps = ("parse_args", "validate_transformer")
    ours = said.replace(server, "", 1).replace(MOUNT, "/data")
    assert reduced(ours, steps) == reduced(FAILURE, steps)
    assert not (host / "outputs").exists()


def test_the_catalogue_inside_the_image_is_kept_and_read(slim: Container, host: Path, options: list[str]) -> None:
    assert "embedded: version " in downloaded(slim, options, "embedded")
    assert owners(host / "serving-cache") == {CALLER}
    serving_checkpoints.write_published(host / "published", "llama3-1b")
    give_away(host)
    line = preparing("llama3-1b", "published", "outputs/llama3-1b", "--dry_run").replace(
        f"{MOUNT}/platform", "embedded"
    )
    code, said = typed(slim, options, line)
    assert code == 0, said
    assert "from the cache: fetched " in said
    assert not (host / "outputs").exists()


def test_models_lists_the_catalogue_of_a_cache(slim: Container, host: Path, options: list[str]) -> None:
    downloaded(slim, options, f"{MOUNT}/platform")
    line = f"models --server {MOUNT}/platform --cache_location {MOUNT}/serving-cache"
    code, said = typed(slim, options, line)
    assert code == 0, said
    listed = {words[0]: words for words in map(str.split, said.splitlines()) if words}
    assert {"llama3-1b", "llama3-3b", "llama3-8b", "llama3-70b"} <= listed.keys()
    assert "no" in listed["llama3-70b"]
    assert "yes" in listed["llama3-1b"]


@pytest.mark.parametrize(
    ("rows", "code", "last"),
    [
        (serving_checkpoints.VOCABULARY, 0, "INFO - The process is completed without any errors."),
        (serving_checkpoints.VOCABULARY + 8, 2, "ERROR - One or more failures have occurred. Do not deploy"),
    ],
    ids=["accepted", "refused"],
)
def test_a_draft_is_validated_against_its_target(
    slim: Container, host: Path, options: list[str], rows: int, code: int, last: str
) -> None:
    downloaded(slim, options, f"{MOUNT}/platform")
    sizes: dict[str, Any] = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 16, "vocab_size": rows}
    serving_checkpoints.write(host / "draft", **sizes)
    give_away(host)
    line = f"""validate-speculative-decoding \\
    --target_checkpoint_path {MOUNT}/Llama-3.1-8B \\
    --draft_checkpoint_path {MOUNT}/draft \\
    --target_model llama3-8b \\
    --server {MOUNT}/platform \\
    --cache_location serving-cache"""
    before = sorted(host.rglob("*"))
    ended, said = typed(slim, options, line)
    assert ended == code, said
    assert said.splitlines()[-1].endswith(f" - recast_lib - {last}")
    (row,) = [line for line in said.splitlines() if line.lstrip().startswith("vocabulary size ")]
    assert row.split()[2] == ("refused" if code else "accepted")
    assert sorted(host.rglob("*")) == before
