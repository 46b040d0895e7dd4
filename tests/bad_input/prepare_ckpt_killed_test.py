"""prepare-ckpt that is killed or told to stop: nothing looks whole that is not, and the same command goes on."""

from __future__ import annotations

import functools
import signal
from pathlib import Path

import pytest

from converters.engine import journal
from converters.engine.destination import PUBLISHING, STAGING
from mappings.serving import text
from tests.bad_input import preparing
from tests.bad_input.continuing import (
    assert_same_output,
    continued,
    only_staging_left,
    units_kept,
    without_staging,
)
from tests.bad_input.judging import Fault, completed, refused, triggers, unchanged
from tests.bad_input.moments import SLOW, check_interrupted, places, spread, stopped, terminate
from tests.bad_input.preparing import words
from tests.bad_input.running import Convert, Run, process, recast

# Kills the process with its supervisor at a call of the code that writes. Every unit is recorded at once, so that a
# small model has something to continue.
_KILLED = """
import os, signal
os.setsid()
from container import entrypoint
from converters.engine import journal
from tests.bad_input.interrupting import Calls

journal._GROUP_BYTES = 1
with Calls(lambda: os.killpg(0, signal.SIGKILL), ({at},)).watched():
    entrypoint.main()
"""


@pytest.fixture(autouse=True)
def _units_are_recorded_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_GROUP_BYTES", 1)
    # Calls are counted from the start of a run, which makes the reading of its catalogue slow.
    monkeypatch.setattr(text, "parse", functools.cache(text.parse))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a catalogue and a checkpoint whose output head is to be written out."""
    return preparing.write(tmp_path_factory.mktemp("prepared"))


@pytest.fixture
def prepare(given: Path) -> Convert:
    """prepare-ckpt in this process: takes the output and flags."""
    return lambda out, *flags: recast(*words(given, out), *flags)


def test_a_run_that_is_killed_anywhere_looks_unfinished_and_the_same_command_ends_as_if_nothing_had_happened(
    given: Path, prepare: Convert, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    found = places(prepare, whole)
    moving = {place: number for place, number in found.items() if place.startswith("publication.py")}
    chosen = {*spread(found, 8), *spread(moving, 3)}
    went_on = publishing = ended = 0
    for place, number in sorted(chosen):
        out = tmp_path / f"out{number}"
        with unchanged(given):
            killed = process(*words(given, out), script=_KILLED.format(at=number))
        if (out / "DONE").exists():
            ended += 1
        else:
            assert killed.code == -signal.SIGKILL, f"{place}: {killed.summary}"
            publishing += (out / STAGING / PUBLISHING).exists()
            _looks_unfinished(out)
        units = 0 if (out / "DONE").exists() else units_kept(out)
        again = prepare(out)
        assert again.code == 0, again.summary
        assert {entry.id for entry in again.warnings} <= {"PREVIOUS_RUN_KILLED"}
        went_on += units > 0 and f"continued: {units} units were already written" in again.output
        assert not (out / STAGING).exists(), place
        assert_same_output(out, whole)
    assert went_on > 1, "some were killed while they wrote"
    assert publishing > 0, "some were killed between the first move to the destination and DONE"
    assert ended < 4


def _looks_unfinished(out: Path) -> None:
    """Neither a reader of the files nor `recast verify` takes what is there for a prepared checkpoint."""
    if not out.exists():
        return
    if not (out / STAGING / PUBLISHING).exists():
        assert {entry.name for entry in out.iterdir()} <= {STAGING}
    assert recast("verify", f"--manifest={out}").code == 2


@pytest.mark.parametrize("count", [14, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_sigterm_at_any_moment_leaves_nothing_but_finished_units(count: int, prepare: Convert, tmp_path: Path) -> None:
    resumable = 0
    for _, number in spread(places(prepare, tmp_path / "whole"), count):
        room = tmp_path / f"room{number}"
        room.mkdir()
        units = check_interrupted(prepare, terminate, number, room / "out", tmp_path / "whole", Fault("TERMINATED"))
        resumable += units > 0
    assert resumable > 0


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@triggers("TERMINATED")
def test_a_process_that_is_told_to_stop_says_so_in_its_last_line(
    sign: signal.Signals, given: Path, prepare: Convert, tmp_path: Path
) -> None:
    completed(prepare(tmp_path / "whole"))
    marker, out = tmp_path / "marker", tmp_path / "room" / "out"
    out.parent.mkdir()
    before = without_staging(out.parent, out)
    run: Run = stopped(
        SLOW.format(module="safetensors_sink", sink="SafetensorsSink", marker=str(marker)),
        words(given, out),
        marker,
        sign,
    )
    assert marker.exists(), run.summary
    refused(run, Fault("TERMINATED", "no output was completed"))
    assert run.steps["legalizer"] == "Failed"
    assert run.output.rstrip().splitlines()[-1].endswith("One or more failures have occurred. Do not deploy")
    assert only_staging_left(out.parent, out, before) > 0
    continued(prepare, out, tmp_path / "whole")
