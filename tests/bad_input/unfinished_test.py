"""Unfinished runs bar others from their destination until they are continued or thrown away, and so do running ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converters.engine import values
from converters.engine.destination import STAGING
from tests.bad_input import checkpoints as cp
from tests.bad_input.continuing import Snapshot, assert_same_output, continued, units_kept
from tests.bad_input.judging import Fault, assert_same, completed, refused, snapshot, triggers, unchanged
from tests.bad_input.running import Convert, Run, environment, hf_to_maxtext, maxtext_to_hf, process


@pytest.fixture
def whole(convert: Convert, tmp_path: Path) -> Path:
    """What the command writes when nothing interrupts it."""
    completed(convert(tmp_path / "whole"))
    return tmp_path / "whole"


@pytest.fixture
def other(request: pytest.FixtureRequest) -> str:
    """A flag that makes another request of the command."""
    forward = request.node.callspec.params["convert"] == "hf-to-maxtext"
    return "--scan_layers=false" if forward else "--weight_dtype=bfloat16"


@pytest.fixture
def source(request: pytest.FixtureRequest) -> Path:
    """Where the command takes its weights from."""
    forward = request.node.callspec.params["convert"] == "hf-to-maxtext"
    found: Path = request.getfixturevalue("hf" if forward else "maxtext")
    return found


def leave_unfinished(convert: Convert, out: Path, *flags: str) -> int:
    """Interrupts a run when it has finished some units; returns how many."""
    calls = []
    real = values.encode

    def encode(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise MemoryError
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(values, "encode", encode)
        refused(convert(out, *flags), Fault("OUT_OF_MEMORY"))
    units = units_kept(out)
    assert units > 0
    return units


def state(place: Path) -> Snapshot:
    """Everything below a directory, but for the lock, which tells who looked last."""
    return {name: found for name, found in snapshot(place).items() if not name.endswith(f"{STAGING}/lock")}


def read_at(source: Path) -> Path:
    """A file of a checkpoint that holds weights."""
    return max((path for path in source.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


# ---- what another run had finished


@triggers("UNFINISHED_RUN")
def test_another_request_is_refused_and_costs_no_finished_unit(
    convert: Convert, other: str, whole: Path, destination: Path, tmp_path: Path
) -> None:
    leave_unfinished(convert, destination)
    before = state(tmp_path)
    run = convert(destination, other)
    refused(run, Fault("UNFINISHED_RUN", "another request", str(destination)))
    assert run.code == 2
    assert "--overwrite" in run.failures[0].suggestion
    assert run.steps["convert"] == "Failed"
    assert_same(state(tmp_path), before)
    # Not at a second try either.
    refused(convert(destination, other), Fault("UNFINISHED_RUN", "another request", str(destination)))
    assert_same(state(tmp_path), before)
    continued(convert, destination, whole)


@triggers("UNFINISHED_RUN")
def test_a_source_that_changed_since_is_refused(
    convert: Convert, source: Path, whole: Path, destination: Path, tmp_path: Path
) -> None:
    leave_unfinished(convert, destination)
    weights = read_at(source)
    content, times = weights.read_bytes(), weights.stat()
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    before = state(tmp_path)
    refused(convert(destination), Fault("UNFINISHED_RUN", "a source that has changed since", str(destination)))
    assert_same(state(tmp_path), before)
    # What was read from it is right as long as the file is the one that was read.
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    continued(convert, destination, whole)


@triggers("UNFINISHED_RUN")
def test_a_config_that_changed_since_is_refused(hf: Path, destination: Path, tmp_path: Path) -> None:
    leave_unfinished(lambda out, *flags: hf_to_maxtext(hf, out, *flags), destination)
    cp.with_fields(rope_theta=20000.0)(hf)
    before = state(tmp_path)
    refused(hf_to_maxtext(hf, destination), Fault("UNFINISHED_RUN", "a source that has changed since"))
    assert_same(state(tmp_path), before)


def test_overwrite_throws_the_finished_units_of_another_request_away(
    convert: Convert, other: str, destination: Path, tmp_path: Path
) -> None:
    completed(convert(tmp_path / "whole", other))
    leave_unfinished(convert, destination)
    run = convert(destination, other, "--overwrite")
    completed(run)
    assert "continued: " not in run.output
    assert not (destination / STAGING).exists()
    assert_same_output(destination, tmp_path / "whole")


def test_overwrite_throws_the_finished_units_of_a_changed_source_away(
    convert: Convert, source: Path, destination: Path, tmp_path: Path
) -> None:
    leave_unfinished(convert, destination)
    os.utime(read_at(source))
    run = convert(destination, "--overwrite")
    completed(run)
    assert "continued: " not in run.output
    completed(convert(tmp_path / "whole"))
    assert_same_output(destination, tmp_path / "whole")


@pytest.mark.parametrize("flag", ["--overwrite", "--memory_budget=64MB", "--progress=none", "--report_directory=there"])
def test_flags_that_change_no_byte_are_no_other_request(
    flag: str, convert: Convert, whole: Path, destination: Path, tmp_path: Path
) -> None:
    leave_unfinished(convert, destination)
    continued(convert, destination, whole, flag.replace("there", str(tmp_path / "there")))


def test_an_unfinished_overwrite_is_continued_beside_the_old_checkpoint(
    convert: Convert, other: str, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    completed(convert(out, other))
    old = snapshot(out)
    leave_unfinished(convert, out, "--overwrite")
    before = state(out)
    assert_same({name: found for name, found in snapshot(out).items() if not name.startswith(STAGING)}, old)
    # Whoever forgets the flag is told of the old checkpoint, and whoever asks for that one has it.
    refused(convert(out), Fault("DESTINATION_EXISTS", str(out)))
    run = convert(out, other)
    completed(run)
    assert "already complete" in run.output
    assert_same(state(out), before)
    continued(convert, out, whole, "--overwrite")


@triggers("MISSING_TENSOR")
def test_a_run_that_is_refused_before_it_writes_costs_no_finished_unit(
    hf: Path, destination: Path, tmp_path: Path
) -> None:
    def convert(out: Path, *flags: str) -> Run:
        return hf_to_maxtext(hf, out, *flags)

    completed(convert(tmp_path / "whole"))
    leave_unfinished(convert, destination)
    damaged = Path(shutil.copytree(hf, tmp_path / "damaged"))
    cp.changed_tensors(lambda held: held.pop("model.norm.weight"))(damaged)
    before = state(tmp_path)
    refused(hf_to_maxtext(damaged, destination, "--overwrite"), Fault("MISSING_TENSOR", "model.norm.weight"))
    assert_same(state(tmp_path), before)
    continued(convert, destination, tmp_path / "whole")


def test_a_lock_that_nobody_holds_bars_nobody(convert: Convert, whole: Path, destination: Path) -> None:
    leave_unfinished(convert, destination)
    # A number that the system has given to another process since.
    (destination / STAGING / "lock").write_text(str(os.getppid()), "utf-8")
    continued(convert, destination, whole)


@triggers("UNFINISHED_RUN")
def test_units_that_a_failing_disk_lost_are_noticed(hf: Path, destination: Path, tmp_path: Path) -> None:
    def convert(out: Path, *flags: str) -> Run:
        return hf_to_maxtext(hf, out, *flags)

    completed(convert(tmp_path / "whole"))
    leave_unfinished(convert, destination)
    for path in (destination / STAGING / "output" / "0" / "items" / "d").iterdir():
        os.truncate(path, 10)
    refused(convert(destination), Fault("UNFINISHED_RUN", "damaged"))
    run = convert(destination)
    completed(run)
    assert "continued: " not in run.output
    assert_same_output(destination, tmp_path / "whole")


@pytest.mark.parametrize("harm", ["removed", "cut short"])
@triggers("UNFINISHED_RUN")
def test_staged_data_files_that_are_gone_are_no_fault_of_the_source(
    harm: str, convert: Convert, whole: Path, destination: Path
) -> None:
    leave_unfinished(convert, destination)
    staged = destination / STAGING / "output"
    for path in (*staged.rglob("d/*"), *staged.rglob("*.safetensors")):
        path.unlink() if harm == "removed" else os.truncate(path, path.stat().st_size - 1)
    _begins_anew(convert, destination, whole)


@pytest.mark.parametrize("gone", ["manifest.ocdbt", "c"])
@triggers("UNFINISHED_RUN")
def test_a_database_without_its_root_and_an_array_without_its_chunks_are_not_continued(
    gone: str, hf: Path, destination: Path, tmp_path: Path
) -> None:
    def convert(out: Path, *flags: str) -> Run:
        return hf_to_maxtext(hf, out, f"--checkpoint_storage_use_ocdbt={int(gone != 'c')}", *flags)

    completed(convert(tmp_path / "whole"))
    leave_unfinished(convert, destination)
    for path in list((destination / STAGING / "output").rglob(gone)):
        path.unlink() if path.is_file() else shutil.rmtree(path)
    _begins_anew(convert, destination, tmp_path / "whole")


def _begins_anew(convert: Convert, destination: Path, whole: Path) -> None:
    run = convert(destination)
    refused(run, Fault("UNFINISHED_RUN", "cannot be continued", "damaged"))
    assert "starts from the beginning" in run.failures[0].suggestion
    again = convert(destination)
    completed(again)
    assert "continued: " not in again.output
    assert_same_output(destination, whole)


# ---- a run that is going on, and one that was killed


# Makes each write slow, makes what is written durable at once, and shows when a unit is recorded.
_SLOW = """
import sys, time
from pathlib import Path
from container import entrypoint
from converters.engine import journal
from converters.formats.safetensors_sink import SafetensorsSink

journal._GROUP_SECONDS = 0.01

def write(self, *arguments, real=SafetensorsSink.write):
    real(self, *arguments)
    time.sleep(0.1)
    if Path({journal!r}).exists():
        Path({marker!r}).touch()

SafetensorsSink.write = write
entrypoint.main(["recast", *sys.argv[1:]])
"""


@pytest.fixture
def running(maxtext: Path, destination: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A conversion of `maxtext` that has finished units, and goes on."""
    marker = tmp_path / "marker"
    script = _SLOW.format(journal=str(destination / STAGING / "journal"), marker=str(marker))
    words = [f"--load_parameters_path={maxtext}", f"--base_output_directory={destination}", "--progress=none"]
    with subprocess.Popen(
        [sys.executable, "-c", script, "maxtext-to-hf", *words],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        deadline = time.monotonic() + 60
        while not marker.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        marker.unlink()
        yield child
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("flags", [(), ("--overwrite",), ("--weight_dtype=bfloat16",)])
@triggers("DESTINATION_BUSY")
def test_a_destination_in_use_is_refused_with_the_process_that_holds_it(
    flags: tuple[str, ...], running: subprocess.Popen[str], maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    run = maxtext_to_hf(maxtext, destination, *flags)
    refused(run, Fault("DESTINATION_BUSY", str(destination)))
    named = re.search(r"process (\d+)", run.failures[0].reason)
    assert named
    # The one that was started, or the worker that it started.
    group = os.getpgid(int(named[1]))
    assert group == running.pid
    output, errors = running.communicate(timeout=60)
    first = Run(("maxtext-to-hf",), running.returncode, output, errors)
    completed(first)
    completed(maxtext_to_hf(maxtext, tmp_path / "whole"))
    assert_same_output(destination, tmp_path / "whole")


@triggers("UNFINISHED_RUN", "PREVIOUS_RUN_KILLED")
def test_what_a_killed_run_had_finished_waits_for_its_own_request(
    running: subprocess.Popen[str], maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    assert units_kept(destination) > 0
    assert json.loads((destination / STAGING / "run.json").read_text())["pid"] > 1
    before = state(tmp_path)
    refused(maxtext_to_hf(maxtext, destination, "--weight_dtype=bfloat16"), Fault("UNFINISHED_RUN", "another request"))
    assert_same(state(tmp_path), before)
    completed(maxtext_to_hf(maxtext, tmp_path / "whole"))
    killed = Fault("PREVIOUS_RUN_KILLED", "run.json")
    continued(lambda out: maxtext_to_hf(maxtext, out), destination, tmp_path / "whole", warnings=(killed,))


@triggers("PREVIOUS_RUN_KILLED")
def test_overwrite_of_what_a_killed_run_left_says_so(
    running: subprocess.Popen[str], maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate(timeout=60)
    run = maxtext_to_hf(maxtext, destination, "--weight_dtype=bfloat16", "--overwrite")
    completed(run, Fault("PREVIOUS_RUN_KILLED", "run.json"))
    assert "continued: " not in run.output
    completed(maxtext_to_hf(maxtext, tmp_path / "whole", "--weight_dtype=bfloat16"))
    assert_same_output(destination, tmp_path / "whole")


def test_a_run_in_another_process_continues(hf: Path, destination: Path, tmp_path: Path) -> None:
    completed(hf_to_maxtext(hf, tmp_path / "whole"))
    leave_unfinished(lambda out, *flags: hf_to_maxtext(hf, out, *flags), destination)
    continued(
        lambda out: process("hf-to-maxtext", f"--hf_model_path={hf}", f"--base_output_directory={out}"),
        destination,
        tmp_path / "whole",
    )


def test_a_plan_looks_at_no_unfinished_run(hf: Path, destination: Path, tmp_path: Path) -> None:
    leave_unfinished(lambda out, *flags: hf_to_maxtext(hf, out, *flags), destination)
    with unchanged(tmp_path):
        completed(hf_to_maxtext(hf, destination, "--plan_only", "--scan_layers=false"))
