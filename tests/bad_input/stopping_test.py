"""SIGTERM, Ctrl-C and unforeseen faults at any moment: nothing is left but what a rerun continues, or all is there."""

from __future__ import annotations

import pkgutil
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.continuing import continued, only_staging_left, without_staging
from tests.bad_input.interrupting import Calls
from tests.bad_input.judging import Fault, assert_same, completed, refused, snapshot, triggers, unchanged
from tests.bad_input.moments import (
    SLOW,
    check_interrupted,
    fail_to_read,
    interrupt,
    places,
    run_out_of_memory,
    spread,
    stopped,
    surprise,
    terminate,
    wrong_at,
)
from tests.bad_input.running import Convert, Run, hf_to_maxtext, process


@pytest.mark.parametrize("count", [14, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_sigterm_at_any_moment_leaves_nothing_but_finished_units(count: int, convert: Convert, tmp_path: Path) -> None:
    chosen = spread(places(convert, tmp_path / "whole"), count)
    wrong, resumable = wrong_at(convert, terminate, chosen, Fault("TERMINATED"), tmp_path)
    assert not wrong, "\n".join(wrong)
    assert resumable > 0


@pytest.mark.parametrize("count", [14, pytest.param(10_000, marks=pytest.mark.campaign)])
def test_sigterm_at_any_moment_of_an_overwrite_keeps_the_old_checkpoint(
    count: int, convert: Convert, tmp_path: Path
) -> None:
    chosen = spread(places(convert, tmp_path / "whole"), count)
    out = tmp_path / "room" / "out"
    completed(convert(out))
    for _, number in chosen:
        check_interrupted(convert, terminate, number, out, tmp_path / "whole", Fault("TERMINATED"), "--overwrite")


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
def test_a_fault_at_any_moment_leaves_nothing_but_finished_units(
    act: Callable[[], object], fault: Fault, count: int, convert: Convert, tmp_path: Path
) -> None:
    chosen = spread(places(convert, tmp_path / "whole"), count)
    wrong, resumable = wrong_at(convert, act, chosen, fault, tmp_path)
    assert not wrong, "\n".join(wrong)
    assert (resumable > 0) == (act is not surprise)


@pytest.mark.parametrize("name", ["shutil.rmtree", "pathlib.Path.rmdir"])
@triggers("TERMINATED")
def test_a_second_sigterm_does_not_stop_the_clearing_up(
    name: str, convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = places(convert, tmp_path / "scratch")
    # Before the first unit: what is there is cleared up.
    begun = next(number for place, number in found.items() if "_sink.py" in place)
    removal, removed = pkgutil.resolve_name(name), []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        removed.append(arguments)
        terminate()
        return removal(*arguments, **named)

    monkeypatch.setattr(name, interrupted)
    with unchanged(tmp_path), Calls(terminate, (begun,)).watched():
        run = convert(tmp_path / "room" / "out")
    assert removed
    refused(run, Fault("TERMINATED"))


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@triggers("TERMINATED")
def test_a_process_that_is_stopped_half_way_is_continued(
    sign: signal.Signals, hf: Path, maxtext: Path, destination: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    for module, sink, words in (
        ("orbax_sink", "OrbaxSink", ["hf-to-maxtext", f"--hf_model_path={hf}"]),
        ("safetensors_sink", "SafetensorsSink", ["maxtext-to-hf", f"--load_parameters_path={maxtext}"]),
    ):

        def convert(out: Path, words: list[str] = words) -> Run:
            return process(*words, f"--base_output_directory={out}")

        whole = tmp_path / "whole" / words[0]
        completed(convert(whole))
        before = without_staging(tmp_path, destination)
        script = SLOW.format(module=module, sink=sink, marker=str(marker))
        run = stopped(script, [*words, f"--base_output_directory={destination}"], marker, sign)
        assert marker.exists(), run.summary
        marker.unlink()
        refused(run, Fault("TERMINATED", "no output was completed"))
        assert run.steps["convert"] == "Failed"
        assert only_staging_left(tmp_path, destination, before) > 0
        continued(convert, destination, whole)
        shutil.rmtree(tmp_path / destination.relative_to(tmp_path).parts[0])
        assert_same(snapshot(tmp_path), before)


def test_a_process_that_was_killed_can_be_run_again(hf: Path, destination: Path, tmp_path: Path) -> None:
    completed(hf_to_maxtext(hf, tmp_path / "whole"))
    marker = tmp_path / "marker"
    script = SLOW.format(module="orbax_sink", sink="OrbaxSink", marker=str(marker))
    words = ["hf-to-maxtext", f"--hf_model_path={hf}", f"--base_output_directory={destination}"]
    run = stopped(script, words, marker, signal.SIGKILL)
    assert run.code == -signal.SIGKILL
    left: list[Any] = [path.name for path in destination.iterdir()]
    assert left == [".recast-staging"]
    killed = Fault("PREVIOUS_RUN_KILLED", "run.json")
    continued(lambda out: hf_to_maxtext(hf, out), destination, tmp_path / "whole", warnings=(killed,))


_KILLED = """
import os, sys
from container import entrypoint

left = {at}

def rename(source, target, real=os.rename):
    global left
    if ".recast-staging" in f"{{source}} {{target}}":
        left -= 1
        if left < 0:
            os._exit(9)
    real(source, target)

os.rename = rename
entrypoint.main(["recast", *sys.argv[1:]])
"""


@pytest.mark.parametrize("at", [0, 1, 4, 6, 8, 11])
@triggers("TENSOR_NOT_ZERO")
def test_a_run_killed_while_it_published_costs_no_checkpoint(at: int, hf: Path, tmp_path: Path) -> None:
    out, biased = tmp_path / "out", cp.write(tmp_path / "biased", attention_bias=True)
    completed(hf_to_maxtext(hf, out))
    old = snapshot(out)
    words = ["hf-to-maxtext", f"--hf_model_path={hf}", f"--base_output_directory={out}", "--scan_layers=false"]
    killed = process(*words, "--overwrite", script=_KILLED.format(at=at))
    assert killed.code == 9, killed.errors
    # The old checkpoint comes back into its place, and it is what this request asks for.
    again = hf_to_maxtext(hf, out)
    assert (again.code, again.ids) == (0, []), again.summary
    assert_same(without_staging(out, out), old)
    run = hf_to_maxtext(biased, out, "--overwrite")
    refused(run, *(Fault("TENSOR_NOT_ZERO") for _ in run.failures))
    assert_same(snapshot(out), old)


@pytest.mark.parametrize("at", [0, 2, 5])
def test_a_first_run_killed_while_it_published_can_be_run_again(at: int, hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["hf-to-maxtext", f"--hf_model_path={hf}", f"--base_output_directory={out}"]
    killed = process(*words, script=_KILLED.format(at=at))
    assert killed.code == 9, killed.errors
    assert not (out / "DONE").exists()
    completed(hf_to_maxtext(hf, out), Fault("PREVIOUS_RUN_KILLED", "run.json"))
    assert not (out / ".recast-staging").exists()


@triggers("DESTINATION_EXISTS")
def test_a_killed_overwrite_of_a_checkpoint_without_done_costs_nothing(hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    completed(hf_to_maxtext(hf, out))
    # What MaxText itself writes: a step, and none of Recast's files.
    for path in out.iterdir():
        if path.name != "0":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    old = snapshot(out / "0")
    words = ["hf-to-maxtext", f"--hf_model_path={hf}", f"--base_output_directory={out}", "--overwrite"]
    killed = process(*words, script=_KILLED.format(at=0))
    assert killed.code == 9, killed.errors
    assert_same(snapshot(out / "0"), old)
    refused(hf_to_maxtext(hf, out), Fault("DESTINATION_EXISTS", str(out)))
    assert_same(snapshot(out / "0"), old)
