"""Moments of a run at which it is interrupted, and what must be true afterwards."""

from __future__ import annotations

import collections
import errno
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.bad_input.continuing import assert_same_output, continued, only_staging_left, without_staging
from tests.bad_input.interrupting import Calls
from tests.bad_input.judging import Fault, completed
from tests.bad_input.running import Convert, Run, environment

Usage = collections.namedtuple("Usage", "total used free")
"""What `shutil.disk_usage` says, in bytes."""

# Makes each write slow and shows when the first one is done, then runs the subcommand as the entrypoint does.
SLOW = """
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
    convert: Convert, act: Callable[[], object], at: int, out: Path, whole: Path, fault: Fault, *flags: str
) -> int:
    """Interrupts a run at a call: it leaves all as it was, and the same command goes on; or it has done everything.

    Returns:
        How many units the run had finished that did not end.
    """
    before, done = without_staging(out.parent, out), completed_at(out)
    with Calls(act, (at,)).watched():
        run = convert(out, *flags)
    _let_threads_end()
    if run.code != 0:
        assert fault.id in run.ids or act is fail_to_read, run.summary
        assert run.code in (2, 3, 4, 5, 143), run.summary
    if completed_at(out) != done:
        completed(convert(out))
        assert_same_output(out, whole)
        return 0
    assert run.code != 0
    units = only_staging_left(out.parent, out, before)
    assert units == 0 or run.code in (4, 5, 143)
    continued(convert, out, whole, *flags)
    return units


def _let_threads_end() -> None:
    """Waits for what an interrupted run no longer waited for; where it is a process of its own, they end with it.

    One that was never told to end has nothing to write and is waited for once.
    """
    for thread in threading.enumerate():
        if thread.name == "journal":
            thread.join(timeout=10)
            if thread.is_alive():
                thread.name = "idle journal"


def completed_at(out: Path) -> int:
    """When DONE was written; 0 while it is not there."""
    return (out / "DONE").stat().st_mtime_ns if (out / "DONE").is_file() else 0


def wrong_at(
    convert: Convert, act: Callable[[], object], chosen: list[tuple[str, int]], fault: Fault, tmp_path: Path
) -> tuple[list[str], int]:
    """The places at which an interruption of a run into a new directory ends badly, and how many could be continued."""
    wrong, resumable = [], 0
    for place, number in chosen:
        room = tmp_path / f"room{number}"
        room.mkdir()
        try:
            resumable += check_interrupted(convert, act, number, room / "out", tmp_path / "whole", fault) > 0
        except AssertionError as error:
            lines = traceback.extract_tb(error.__traceback__)
            wrong.append(f"{place}: {lines[-1].line}: {str(error)[:300]}")
    return wrong, resumable


def stopped(script: str, words: list[str], marker: Path, sign: signal.Signals) -> Run:
    """Starts a process, and sends a signal once it has written something."""
    with subprocess.Popen(
        # It may take long on a busy machine, and then it would show how far it is.
        [sys.executable, "-c", script, *words, "--progress=none"],
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
