"""Runs that the kernel stops, or would: for memory, by a signal, with and without the chance to say so."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.bad_input import cgroups
from tests.bad_input.judging import Fault, completed, refused, triggers
from tests.bad_input.running import Run, environment, hf_to_maxtext, process

MIB = 1 << 20

# Makes each write slow and shows when the first one is done, then is the process of the subcommand.
_SLOW = """
import sys, time
from pathlib import Path
from container import entrypoint
from converters.formats.orbax_sink import OrbaxSink

def write(self, *arguments, real=OrbaxSink.write):
    real(self, *arguments)
    Path({marker!r}).touch()
    time.sleep(0.3)

OrbaxSink.write = write
entrypoint.main()
"""

# Each call of a function takes memory and keeps it, as a leak would.
_HOARDING = """
import time
import numpy as np
from container import entrypoint
from {module} import {owner}

held = []

def hoarding(*arguments, real={owner}.{name}):
    for _ in range(7):
        held.append(np.full(2 << 20, 1, np.uint8))
        time.sleep(0.01)
    return real(*arguments)

{owner}.{name} = hoarding
entrypoint.main()
"""

# A program that does one thing; {body} is it.
_PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
from converters.cli.program import Program, main

def execute(prepared, report):
    with report.step("first") as step:
        step.lines.append("seen")
    with report.step("second"):
        {body}
    return ""

main(Program("trial", "", lambda _: None, lambda *_: None, execute, supervised=True))
"""


class Started:
    """A process that is supervised, and its worker."""

    def __init__(self, script: str, words: Sequence[str], marker: Path):
        self.words = tuple(words)
        self.parent = subprocess.Popen(
            [sys.executable, "-c", script, *words],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while not marker.exists() and self.parent.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        children = Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children")
        (self.worker,) = map(int, children.read_text().split())

    def ended(self) -> Run:
        """Waits for the end."""
        output, errors = self.parent.communicate(timeout=60)
        return Run(self.words, self.parent.returncode, output, errors)


Start = Callable[..., Started]


@pytest.fixture
def start(hf: Path, destination: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a conversion; it is in the middle of its writes when this returns."""
    marker, runs = tmp_path / "marker", []

    def begin(*flags: str) -> Started:
        words = [
            "hf-to-maxtext",
            f"--hf_model_path={hf}",
            f"--base_output_directory={destination}",
            "--progress=none",
            *flags,
        ]
        runs.append(Started(_SLOW.format(marker=str(marker)), words, marker))
        return runs[-1]

    yield begin
    for run in runs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.parent.pid, signal.SIGKILL)
        run.parent.communicate()


def trial(body: str) -> Run:
    return process(script=_PROGRAM.format(body=body))


@triggers("WORKER_KILLED")
def test_a_worker_that_is_killed_is_reported_with_the_steps_before_it(
    start: Start, hf: Path, destination: Path, tmp_path: Path
) -> None:
    run = start(f"--report_directory={tmp_path / 'reports'}")
    os.kill(run.worker, signal.SIGKILL)
    ended = run.ended()
    refused(ended, Fault("WORKER_KILLED", "SIGKILL", "bytes of memory were used"))
    assert ended.steps["convert"] == "Failed"
    assert [name for name, outcome in ended.steps.items() if outcome == "Succeeded"][:2] == [
        "parse_args",
        "open_source",
    ]
    assert (tmp_path / "reports" / "report.txt").read_text("utf-8") == ended.output
    assert '"WORKER_KILLED"' in (tmp_path / "reports" / "report.json").read_text("utf-8")
    assert not (destination / "DONE").exists()
    again = hf_to_maxtext(hf, destination)
    assert again.code == 0, again.summary


@triggers("PREVIOUS_RUN_KILLED")
def test_a_run_that_was_killed_with_its_supervisor_is_told_of_by_the_next_one(
    start: Start, hf: Path, destination: Path, tmp_path: Path
) -> None:
    run = start()
    os.killpg(run.parent.pid, signal.SIGKILL)
    assert run.ended().output == ""
    again = hf_to_maxtext(hf, destination)
    completed(again, Fault("PREVIOUS_RUN_KILLED", f"process {run.worker}", "killed from outside"))
    assert not (destination / ".recast-staging").exists()


@pytest.mark.parametrize(
    ("step", "module", "owner", "name"),
    [
        ("convert", "converters.formats.orbax_sink", "OrbaxSink", "write"),
        ("verify", "converters.engine", "verify", "compare"),
        ("commit", "converters.engine", "manifest", "file_digest"),
    ],
    ids=["convert", "verify", "commit"],
)
@triggers("OUT_OF_MEMORY")
def test_in_a_real_cgroup_a_conversion_stops_itself_in_any_step_and_a_later_run_goes_on(
    step: str, module: str, owner: str, name: str, hf: Path, destination: Path
) -> None:
    flags = ("--scan_layers=false", "--checkpoint_storage_use_ocdbt=0")
    words = ["hf-to-maxtext", f"--hf_model_path={hf}", f"--base_output_directory={destination}", *flags]
    script = _HOARDING.format(module=module, owner=owner, name=name)
    with cgroups.limited(400 * MIB) as group:
        ended = group.run(script, *words, "--memory_budget=64MiB")
        assert group.oom_kills() == 0
    run = Run(tuple(words), ended.returncode, ended.stdout, ended.stderr)
    refused(
        run, Fault("OUT_OF_MEMORY", "The run stopped itself", f"the cgroup limit of {400 * MIB} bytes", str(64 * MIB))
    )
    assert "--memory_budget=32MiB" in run.failures[0].suggestion
    assert run.steps[step] == "Failed"
    again = hf_to_maxtext(hf, destination, *flags)
    completed(again)
    assert "continued: " in again.output


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE], ids=lambda number: number.name)
@triggers("WORKER_KILLED")
def test_a_worker_that_crashes_is_reported_with_where_it_was(number: signal.Signals) -> None:
    run = trial(f"signal.raise_signal({int(number)})")
    refused(run, Fault("WORKER_KILLED", number.name, "crashed"))
    assert run.steps == {"parse_args": "Succeeded", "first": "Succeeded", "second": "Failed"}
    assert "  seen" in run.output.splitlines()
    assert any("in execute" in line for line in run.failures[0].stack), run.output


@triggers("WORKER_KILLED")
def test_a_file_that_is_shortened_while_it_is_mapped_is_named_as_the_probable_reason(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1 << 16))
    body = f"import mmap; file = open({str(tmp_path / 'weights')!r}, 'r+b'); mapped = mmap.mmap(file.fileno(), 0); "
    run = trial(body + "file.truncate(0); mapped[0]")
    refused(run, Fault("WORKER_KILLED", "SIGBUS", "a file of the source was shortened"))


@triggers("WORKER_KILLED")
def test_a_worker_that_is_killed_between_steps_is_reported_too() -> None:
    script = _PROGRAM.format(body="pass").replace('return ""', "os.kill(os.getpid(), signal.SIGKILL)")
    run = process(script=script)
    refused(run, Fault("WORKER_KILLED", "SIGKILL"))
    assert run.steps == {"parse_args": "Succeeded", "first": "Succeeded", "second": "Succeeded", "trial": "Failed"}


@pytest.mark.parametrize("whom", ["parent", "group", "group, again and again"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@triggers("TERMINATED")
def test_a_signal_to_the_process_or_from_a_terminal_gives_one_report(
    whom: str, number: signal.Signals, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    run = Started(_PROGRAM.format(body=f"Path({str(marker)!r}).touch(); time.sleep(60)"), (), marker)
    if whom == "parent":
        run.parent.send_signal(number)
    else:
        for _ in range(1 if whom == "group" else 20):
            os.killpg(run.parent.pid, number)
    ended = run.ended()
    refused(ended, Fault("TERMINATED", "told to stop"))
    assert (ended.code, ended.steps["second"]) == (143, "Failed")


@triggers("TERMINATED")
def test_a_signal_that_comes_as_the_worker_begins_is_not_lost(tmp_path: Path) -> None:
    script = _PROGRAM.format(body="time.sleep(60)")
    early = "os.fork = lambda real=os.fork: [os.kill(os.getpid(), signal.SIGTERM), real()][1]\n\nmain("
    run = process(script=script.replace("\nmain(", "\n" + early, 1))
    refused(run, Fault("TERMINATED"))


def test_a_worker_does_not_outlive_its_parent(start: Start, destination: Path) -> None:
    run = start()
    os.kill(run.parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while _lives(run.worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _lives(run.worker)
    assert not (destination / "DONE").exists()


def test_the_first_process_of_a_container_passes_signals_on_and_lets_orphans_go(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make a namespace of processes")
    body = (
        "assert os.getppid() == 1; subprocess.run(['sh', '-c', '(exit 7) & (sleep 0.1; exit 3) &']); time.sleep(0.5); "
        f"Path({str(marker)!r}).write_text(''.join(p.read_text() for p in Path('/proc').glob('[0-9]*/stat'))); "
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [*inside, sys.executable, "-c", _PROGRAM.format(body=body)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as outside:
        try:
            deadline = time.monotonic() + 30
            while not (marker.exists() and marker.read_text()) and time.monotonic() < deadline:
                time.sleep(0.02)
            states = [line.rpartition(")")[2].split()[0] for line in marker.read_text().splitlines()]
            assert len(states) == 2, marker.read_text()
            assert "Z" not in states
            first = int(Path(f"/proc/{outside.pid}/task/{outside.pid}/children").read_text().split()[0])
            os.kill(first, signal.SIGTERM)
            output, _ = outside.communicate(timeout=30)
        finally:
            outside.kill()
    refused(Run((), outside.returncode, output, ""), Fault("TERMINATED"))


@pytest.mark.parametrize(("body", "code"), [("pass", 0), ("raise MemoryError('no more')", 4)])
def test_a_worker_that_ends_by_itself_gives_its_own_report_and_code(body: str, code: int) -> None:
    run = trial(body)
    assert run.code == code, run.summary
    if code == 0:
        completed(run)
    elif code == 4:
        refused(run, Fault("OUT_OF_MEMORY", "no more"))


@triggers("OUT_OF_MEMORY")
def test_a_worker_that_the_kernel_kills_for_memory_is_reported_with_the_figures() -> None:
    with cgroups.limited(256 * MIB) as group:
        ended = group.run(_PROGRAM.format(body="held = [bytes([1]) * (16 << 20) for _ in range(64)]"))
        run = Run((), ended.returncode, ended.stdout, ended.stderr)
        refused(run, Fault("OUT_OF_MEMORY", "The kernel killed the worker process for memory (SIGKILL)"))
        assert run.code == 4
        assert group.oom_kills() == 1


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Takes memory as a fast conversion does, half a GiB in a second: with a guard until that says stop, without one until
# it has a GiB. Where it takes more, the kernel of a busy machine may kill it before the guard has its turn.
_HUNGRY = """
import sys, threading
import numpy as np
from converters.engine.memory_guard import MemoryGuard

stop, said, held = threading.Event(), [], []

def danger(error):
    said.append(str(error))
    stop.set()

def eat():
    while not stop.wait(0.004) and len(held) < 512:
        held.append(np.full(2 << 20, 1, np.uint8))

if sys.argv[1] == "guarded":
    with MemoryGuard(danger, budget=128 << 20):
        threads = [threading.Thread(target=eat) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
else:
    eat()
print("\\n".join(said) or "had enough")
"""


def test_in_a_real_cgroup_a_run_stops_itself_where_it_would_have_been_killed() -> None:
    with cgroups.limited(320 * MIB) as group:
        bare = group.run(_HUNGRY, "bare")
        assert bare.returncode == -signal.SIGKILL
        guarded = group.run(_HUNGRY, "guarded")
        assert guarded.returncode == 0, guarded.stderr
        assert guarded.stdout.startswith("OUT_OF_MEMORY: The run stopped itself"), guarded.stdout
        assert f"the cgroup limit of {320 * MIB} bytes" in guarded.stdout
        assert group.oom_kills() == 1
