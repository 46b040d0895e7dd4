"""However prepare-ckpt ends, its report is there, with the same last line, and nothing that looks whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import serving_checkpoints
from tests.bad_input import preparing
from tests.bad_input.judging import Fault, refused, triggers, unchanged
from tests.bad_input.moments import Usage
from tests.bad_input.preparing import words
from tests.bad_input.running import Run, process, recast

_LAST = "lib - ERROR - One or more failures have occurred. Do not deploy"

# Something happens at the first byte that is written; {body} is it.
_ENDING = """
import errno, os, signal, time
from container import entrypoint
from converters.formats.safetensors_sink import SafetensorsSink

def write(*_):
    {body}

SafetensorsSink.write = write
entrypoint.main()
"""
ENDS = {
    "out of memory": ("raise MemoryError('Unable to allocate 7 GiB')", Fault("OUT_OF_MEMORY", "7 GiB"), 4),
    "full disk": ("raise OSError(errno.ENOSPC, 'No space left on device')", Fault("DISK_FULL"), 5),
    "faulty storage": ("raise OSError(errno.EIO, 'Input/output error')", Fault("INPUT_OUTPUT"), 5),
    "SIGTERM": ("os.kill(os.getppid(), signal.SIGTERM); time.sleep(0.1)", Fault("TERMINATED"), 143),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", Fault("WORKER_KILLED", "SIGKILL"), 5),
    "crashed": ("os.kill(os.getpid(), signal.SIGSEGV)", Fault("WORKER_KILLED", "SIGSEGV", "crashed"), 5),
    "a fault of the library": ("raise RuntimeError('surprise')", Fault("INTERNAL", "surprise"), 3),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a catalogue and a checkpoint."""
    return preparing.write(tmp_path_factory.mktemp("given"))


@pytest.mark.parametrize("end", ENDS)
@triggers()
def test_a_run_that_ends_while_it_writes_says_how(end: str, given: Path, tmp_path: Path) -> None:
    body, fault, code = ENDS[end]
    with unchanged(given):
        run = process(*words(given, tmp_path / "out", "--progress=none"), script=_ENDING.format(body=body))
    refused(run, fault)
    assert (run.code, run.steps["legalizer"]) == (code, "Failed"), run.summary
    assert [name for name, outcome in run.steps.items() if outcome == "Succeeded"][-1] == "validate_tokenizer"
    left = tmp_path / "out"
    assert not left.exists() or {entry.name for entry in left.iterdir()} == {".recast-staging"}


@pytest.mark.parametrize("end", ["out of memory", "full disk", "SIGTERM", "killed"])
def test_the_last_line_is_that_of_the_platforms_tool_where_it_is_asked_for(
    end: str, given: Path, tmp_path: Path
) -> None:
    asked = words(given, tmp_path / "out", "--progress=none", "--error_prefix=Byoc")
    body, fault, _ = ENDS[end]
    run = process(*asked, script=_ENDING.format(body=body))
    assert run.output.splitlines()[-1].endswith(f"byoc_{_LAST}")
    assert f"  Id: ByocErrorId.{fault.id}\n  Responsible: ByocErrorOwner." in run.output
    assert "Recast" not in run.output.replace(str(tmp_path), "")


@triggers("DISK_SPACE")
def test_a_disk_that_is_too_small_is_found_before_the_first_byte(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - 12_345, 12_345))
    with unchanged(tmp_path):
        run = recast(*words(given, tmp_path / "out"))
    refused(run, Fault("DISK_SPACE", "12345 free"))
    assert run.steps["legalizer"] == "Failed"


@triggers("MEMORY_PLAN")
def test_a_memory_that_is_too_small_is_found_before_the_first_byte(given: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path):
        run = recast(*words(given, tmp_path / "out", "--memory_budget=1KB"))
    refused(run, Fault("MEMORY_PLAN", "1000 bytes"))
    assert run.steps["legalizer"] == "Failed"


def _newer_schema(folder: Path) -> str:
    (folder / "catalog.textproto").write_text('schema_version: 2 news: "moon"\n', "utf-8")
    return str(folder)


def _changed(folder: Path) -> str:
    path = serving_checkpoints.catalogue(folder / "catalog.textproto")
    path.write_text(path.read_text("utf-8").replace("hidden_size", "hidden_bias"), "utf-8")
    return str(folder)


def _not_downloaded(_: Path) -> str:
    return "https://models.example.com"


@pytest.mark.parametrize(
    ("server", "fault"),
    [
        (_newer_schema, Fault("METADATA_SCHEMA_NEWER", "schema version 2", "reads 1")),
        (_changed, Fault("METADATA_INVALID", "its content has")),
        (_not_downloaded, Fault("METADATA_NOT_FOUND", "models.example.com")),
        (lambda folder: str(folder / "none"), Fault("METADATA_NOT_FOUND", "none")),
    ],
    ids=["newer schema", "changed", "not downloaded", "not there"],
)
def test_a_catalogue_that_cannot_be_used_ends_the_run_at_once(
    server: Callable[[Path], str], fault: Fault, given: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    named = server(folder)
    with unchanged(tmp_path):
        run: Run = recast(*words(given, tmp_path / "out", "--server", named))
    refused(run, fault)
    assert list(run.steps) == ["parse_args", "load_serving_metadata"]


def test_a_catalogue_is_never_fetched_by_the_way(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(*_: object, **__: object) -> None:
        raise AssertionError("prepare-ckpt used the network")

    monkeypatch.setattr("socket.socket.connect", connected)
    monkeypatch.setattr("socket.getaddrinfo", connected)
    run = recast(*words(given, tmp_path / "out", "--server", "https://models.example.com"))
    refused(run, Fault("METADATA_NOT_FOUND"))
