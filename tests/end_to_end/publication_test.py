"""Runs that end at the worst moment of a publication: no finished output, no finished unit and no foreign file is lost.

A kill is an exception that skips whatever a process that is gone could no longer do.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from converters.engine import convert, grids, planning, publication, running
from converters.engine.destination import PUBLISHING, REPLACED, STAGING
from converters.engine.run_files import JOURNAL
from converters.engine.staging import Staging
from converters.formats.orbax_source import OrbaxSource
from tests import checkpoints
from tests.end_to_end.running import Outcome, converted, recast

_CONFIG = checkpoints.CONFIGS["grouped"]
_FOREIGN = "years of work"


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it may run."""


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = checkpoints.element_coded_llama(_CONFIG, "bfloat16", seed=0)
    return checkpoints.write_safetensors(tmp_path_factory.mktemp("publication") / "hf", tensors, _CONFIG)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with the names and shapes of the first, and other values."""
    tensors = checkpoints.element_coded_llama(_CONFIG, "bfloat16", seed=9)
    return checkpoints.write_safetensors(tmp_path_factory.mktemp("publication") / "other", tensors, _CONFIG)


def _run(hf: Path, out: Path, **flags: object) -> Outcome:
    return recast("hf-to-maxtext", hf_model_path=hf, base_output_directory=out, **flags)


def _values(out: Path) -> dict[str, bytes]:
    source = OrbaxSource(out)
    return {
        name: source.read(name, tuple((0, size) for size in info.shape)).tobytes()
        for name, info in source.tensors.items()
    }


def _broken_disk(*_: object) -> NoReturn:
    raise OSError(errno.EIO, "Input/output error")


def _full_disk(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def _killed(*_: object) -> NoReturn:
    raise Killed


def _keep(staging: Staging, *_: object) -> None:
    staging.keep()


def _kill_a_run(
    monkeypatch: pytest.MonkeyPatch, hf: Path, out: Path, arrange: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """Runs with --overwrite until Killed comes; of what ends a run, only the lock is let go, as the kernel does."""
    with monkeypatch.context() as patches:
        arrange(patches)
        patches.setattr(convert, "_leave", _keep)
        patches.setattr(publication, "_take_back", _killed)
        with pytest.raises(Killed):
            _run(hf, out, overwrite=True)


def _killed_after_done(patches: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def dying(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(source).name == "DONE" and Path(source).parent.name == "output":
            raise Killed

    patches.setattr(os, "rename", dying)


def _killed_before_done(patches: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def dying(source: Path, target: Path) -> None:
        if Path(source).name == "DONE" and Path(source).parent.name == "output":
            raise Killed
        rename(source, target)

    patches.setattr(os, "rename", dying)


def _killed_before_clearing(patches: pytest.MonkeyPatch) -> None:
    patches.setattr(Staging, "_clear", _killed)


def test_a_rerun_after_a_failed_publication_gives_a_complete_output(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if Path(source).name == "0":
            _broken_disk()
        rename(source, target)

    with monkeypatch.context() as patches:
        patches.setattr(os, "rename", failing)
        first = _run(hf, out)
    assert first.code == 5, first.text
    second = _run(hf, out)
    assert second.code == 0, second.text
    listed = json.loads((out / "checkpoint-manifest.json").read_text("utf-8"))["files"]
    assert not {"DONE", "report.txt", "report.json", "checkpoint-manifest.json"} & set(listed), sorted(listed)
    third = _run(hf, out)
    assert third.code == 0, third.text
    assert "already complete" in third.text
    converted("verify", manifest=out)


def test_a_complete_output_is_not_taken_back_by_a_later_run(
    hf: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert _run(hf, out).code == 0
    old = _values(out)
    _kill_a_run(monkeypatch, other, out, _killed_after_done)
    again = _run(other, out)
    assert again.code == 0, again.text
    assert "already complete" in again.text
    new = _values(out)
    assert new.keys() == old.keys()
    assert new != old
    # A third, unlucky run of another request: whatever becomes of it, what was complete must still be there.
    with monkeypatch.context() as patches:
        patches.setattr(running, "run", _broken_disk)
        third = _run(hf, out, overwrite=True, scan_layers=False)
    assert third.code == 5, third.text
    assert _values(out) == new


def test_a_kill_before_done_is_undone_by_a_run_that_may_not_replace_anything(
    hf: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert _run(hf, out).code == 0
    old = _values(out)
    _kill_a_run(monkeypatch, other, out, _killed_before_done)
    assert not (out / "DONE").exists()
    refused = _run(other, out)
    assert refused.code == 2, refused.text
    assert "DESTINATION_EXISTS" in refused.text
    assert _values(out) == old
    converted("verify", manifest=out)


def test_an_output_that_could_not_be_noted_as_complete_is_noted_by_the_next_run(
    hf: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert _run(hf, out).code == 0
    with monkeypatch.context() as patches:
        patches.setattr(publication, "finish", _broken_disk)
        assert _run(other, out, overwrite=True).code == 0
    assert (out / STAGING / PUBLISHING).exists()
    again = _run(other, out)
    assert again.code == 0, again.text
    assert "already complete" in again.text
    assert not (out / STAGING).exists()
    converted("verify", manifest=out)


def test_files_that_came_during_the_run_are_not_deleted(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    finish = convert._finish

    def late(*given: object) -> None:
        (out / "thesis.tex").write_text(_FOREIGN)
        finish(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(convert, "_finish", late)
    outcome = _run(hf, out)
    assert outcome.code == 2, outcome.text
    assert (out / "thesis.tex").read_text() == _FOREIGN
    assert not (out / "DONE").exists()


def test_a_folder_of_replaced_files_that_was_left_does_not_make_everything_replaceable(
    hf: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / STAGING / REPLACED).mkdir(parents=True)
    (out / STAGING / "output").mkdir(parents=True)
    (out / STAGING / REPLACED / "config.json").write_text("{}")
    (out / "thesis.tex").write_text(_FOREIGN)
    outcome = _run(hf, out, overwrite=True)
    assert outcome.code == 2, outcome.text
    assert (out / "thesis.tex").read_text() == _FOREIGN


@pytest.mark.parametrize("gone", ["one file", "the folder"])
def test_recorded_units_whose_data_is_gone_do_not_lead_to_a_damaged_output(
    gone: str, hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    assert _run(hf, whole, scan_layers=False).code == 0
    # All units are recorded and kept.
    with monkeypatch.context() as patches:
        patches.setattr(convert, "_verify", _broken_disk)
        assert _run(hf, out, scan_layers=False).code == 5
    assert (out / STAGING / JOURNAL).read_bytes()
    data = next((out / STAGING / "output").rglob("d"))
    if gone == "the folder":
        shutil.rmtree(data)
    else:
        max(data.iterdir(), key=lambda path: path.stat().st_size).unlink()
    again = _run(hf, out, scan_layers=False)
    if again.code != 0:
        assert not (out / "DONE").exists()
        assert not (out / "0").exists()
        outcome = _run(hf, out, scan_layers=False, overwrite=True)
        assert outcome.code == 0, outcome.text
    assert _values(out) == _values(whole)
    converted("verify", manifest=out)


def test_a_kill_between_publication_and_clearing_up_costs_nothing(
    hf: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert _run(hf, out).code == 0
    _kill_a_run(monkeypatch, other, out, _killed_before_clearing)
    assert (out / STAGING).is_dir()
    assert not (out / STAGING / PUBLISHING).exists()
    assert (out / "DONE").exists()
    published = _values(out)
    again = _run(other, out, overwrite=True)
    assert again.code == 0, again.text
    assert not (out / STAGING).exists()
    assert _values(out) == published


def test_an_output_that_is_already_complete_leaves_no_staging_folder_behind(
    hf: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert _run(hf, out).code == 0
    _kill_a_run(monkeypatch, other, out, _killed_after_done)
    assert (out / STAGING / PUBLISHING).exists()
    outcome = _run(other, out)
    assert outcome.code == 0, outcome.text
    assert not (out / STAGING).exists()


def test_the_residue_of_several_runs_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So many units that threads finish them in another order each time.
    monkeypatch.setattr(planning, "_CHUNK_LIMIT", 32_768)
    monkeypatch.setattr(planning, "_SMALLEST_UNIT", 16_384)
    monkeypatch.setattr(grids, "_SMALL_ARRAY", 32_768)
    tensors = checkpoints.element_coded_llama(_CONFIG, "float32", seed=0)
    wide = checkpoints.write_safetensors(tmp_path / "wide", tensors, _CONFIG)
    found = set()
    for number in range(6):
        out = tmp_path / f"out{number}"
        outcome = _run(wide, out, save_dtype="float32", progress="none")
        assert outcome.code == 0, outcome.text
        found.add((out / "recast" / "residue.safetensors").read_bytes())
    assert len(found) == 1


def test_a_signal_at_the_end_of_a_publication_does_not_make_the_exit_code_lie(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    rename = os.rename
    sent: list[str] = []

    def signalled(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(source).name == "DONE":
            sent.append("SIGTERM")
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(os, "rename", signalled)
    outcome = _run(hf, out)
    assert sent == ["SIGTERM"]
    assert (out / "DONE").exists() == (outcome.code == 0), (outcome.code, outcome.text)


def test_a_full_disk_when_the_lock_is_taken_costs_no_finished_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Staging(tmp_path / "out")
    stage.open()
    (stage.folder / JOURNAL).write_text("x\n")
    stage.path("a").write_text("data")
    stage.keep()
    again = Staging(tmp_path / "out")
    with monkeypatch.context() as patches:
        patches.setattr(os, "pwrite", _full_disk)
        again.open()
    again.keep()
    assert (stage.folder / JOURNAL).read_text() == "x\n"
    assert (stage.folder / "output" / "a").read_text() == "data"
