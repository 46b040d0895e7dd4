"""SIGTERM, Ctrl-C and unforeseen faults at any moment: nothing is left, or everything is there."""

from __future__ import annotations

import errno
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bad_input.interrupting import Calls
from tests.bad_input.judging import Fault, assert_same, completed, refused, snapshot, triggers, unchanged
from tests.bad_input.running import Convert, Run, environment, hf_to_maxtext


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def fail_to_read() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def run_out_of_memory() -> None:
    raise MemoryError


def surprise() -> None:
    raise RuntimeError("a fault of the library")


def places(convert: Convert, scratch: Path, *flags: str) -> dict[str, int]:
    """Every distinct call of the code that writes, in the order of a run that succeeds."""
    with Calls().watched() as calls:
        completed(convert(scratch, *flags))
    return calls.places


def spread(found: dict[str, int], count: int) -> list[tuple[str, int]]:
    """At most so many of the places, evenly chosen, the last one among them."""
    listed = list(found.items())
    return listed[:-1][:: -(-len(listed) // count)] + listed[-1:]


def check_interrupted(
    convert: Convert, act: Callable[[], object], at: int, out: Path, fault: Fault, *flags: str
) -> None:
    """Interrupts a run at a call: it leaves everything as it was, or it has done everything."""
    before, done = snapshot(out.parent), completed_at(out)
    with Calls(act, (at,)).watched():
        run = convert(out, *flags)
    if run.code != 0:
        refused(run, fault)
    if completed_at(out) == done:
        assert_same(snapshot(out.parent), before)
    else:
        completed(convert(out))


def completed_at(out: Path) -> int:
    """When DONE was written; 0 while it is not there."""
    return (out / "DONE").stat().st_mtime_ns if (out / "DONE").is_file() else 0


def wrong_at(
    convert: Convert, act: Callable[[], object], chosen: list[tuple[str, int]], fault: Fault, tmp_path: Path
) -> list[str]:
    """The places at which an interruption of a run into a new directory ends badly."""
    wrong = []
    for place, number in chosen:
        room = tmp_path / f"room{number}"
        room.mkdir()
        try:
            check_interrupted(convert, act, number, room / "out", fault)
        except AssertionError as error:
            wrong.append(f"{place}: {str(error).splitlines()[0][:200]}")
    return wrong


@pytest.mark.parametrize("count", [14, pytest.param(10_000, marks=pytest.mark.campaign)])
@triggers("TERMINATED")
def test_sigterm_at_any_moment_leaves_nothing(count: int, convert: Convert, tmp_path: Path) -> None:
    chosen = spread(places(convert, tmp_path / "scratch"), count)
    wrong = wrong_at(convert, terminate, chosen, Fault("TERMINATED"), tmp_path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("count", [14, pytest.param(10_000, marks=pytest.mark.campaign)])
@triggers("TERMINATED")
def test_sigterm_at_any_moment_of_an_overwrite_keeps_the_old_checkpoint(
    count: int, convert: Convert, tmp_path: Path
) -> None:
    chosen = spread(places(convert, tmp_path / "scratch"), count)
    out = tmp_path / "room" / "out"
    completed(convert(out))
    for _, number in chosen:
        check_interrupted(convert, terminate, number, out, Fault("TERMINATED"), "--overwrite")


@pytest.mark.parametrize(
    ("act", "fault"),
    [
        (fail_to_read, Fault("INPUT_OUTPUT", "Input/output error")),
        (run_out_of_memory, Fault("OUT_OF_MEMORY")),
        (surprise, Fault("INTERNAL", "RuntimeError: a fault of the library")),
        (interrupt, Fault("TERMINATED")),
    ],
    ids=["EIO", "MemoryError", "RuntimeError", "SIGINT"],
)
@pytest.mark.parametrize("count", [6, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_a_fault_at_any_moment_leaves_nothing(
    act: Callable[[], object], fault: Fault, count: int, convert: Convert, tmp_path: Path
) -> None:
    chosen = spread(places(convert, tmp_path / "scratch"), count)
    wrong = wrong_at(convert, act, chosen, fault, tmp_path)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["shutil.rmtree", "pathlib.Path.rmdir"])
@triggers("TERMINATED")
def test_a_second_sigterm_does_not_stop_the_clearing_up(
    name: str, convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(places(convert, tmp_path / "scratch").values())
    removal = pkgutil.resolve_name(name)

    def interrupted(*arguments: Any, **named: Any) -> Any:
        terminate()
        return removal(*arguments, **named)

    monkeypatch.setattr(name, interrupted)
    with unchanged(tmp_path), Calls(terminate, (found[len(found) // 2],)).watched():
        run = convert(tmp_path / "room" / "out")
    refused(run, Fault("TERMINATED"))


# Makes each write slow and shows when the first one is done, then runs the subcommand as the entrypoint does.
_SLOW = """
import sys, time
from pathlib import Path
from container import entrypoint
from converters.formats.{module} import {sink}

def write(self, *arguments, real={sink}.write):
    real(self, *arguments)
    Path({marker!r}).touch()
    time.sleep(0.2)

{sink}.write = write
entrypoint.main(["recast", *sys.argv[1:]])
"""


def stopped(script: str, words: list[str], marker: Path, sign: signal.Signals) -> Run:
    """Starts a process, and sends a signal once it has written something."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *words],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        deadline = time.monotonic() + 60
        while not marker.exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(sign)
        output, errors = child.communicate(timeout=60)
    return Run(tuple(words), child.returncode, output, errors)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@triggers("TERMINATED")
def test_a_process_that_is_stopped_half_way_leaves_nothing(
    sign: signal.Signals, hf: Path, maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    for module, sink, words in (
        ("orbax_sink", "OrbaxSink", ["hf-to-maxtext", f"--hf_model_path={hf}"]),
        ("safetensors_sink", "SafetensorsSink", ["maxtext-to-hf", f"--load_parameters_path={maxtext}"]),
    ):
        before = snapshot(tmp_path)
        script = _SLOW.format(module=module, sink=sink, marker=str(marker))
        run = stopped(script, [*words, f"--base_output_directory={destination}"], marker, sign)
        assert marker.exists(), run.summary
        marker.unlink()
        refused(run, Fault("TERMINATED", "no output was completed"))
        assert run.steps["convert"] == "Failed"
        assert_same(snapshot(tmp_path), before)


def test_a_process_that_was_killed_can_be_run_again(hf: Path, destination: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    script = _SLOW.format(module="orbax_sink", sink="OrbaxSink", marker=str(marker))
    words = ["hf-to-maxtext", f"--hf_model_path={hf}", f"--base_output_directory={destination}"]
    run = stopped(script, words, marker, signal.SIGKILL)
    assert run.code == -signal.SIGKILL
    left: list[Any] = [path.name for path in destination.iterdir()]
    assert left == [".recast-staging"]
    completed(hf_to_maxtext(hf, destination))
    assert not (destination / ".recast-staging").exists()
