"""Tests of the marker that a killed run leaves."""

from __future__ import annotations

import datetime
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from converters.engine import open_run
from converters.engine.open_run import Keeper, OpenRun

GIB = 1 << 30
NOW = datetime.datetime(2025, 6, 1, 12, 0, 0, tzinfo=datetime.UTC)


def _run(**changes: Any) -> OpenRun:
    given: dict[str, Any] = {
        "request": "ab" * 32,
        "plan": "cd" * 32,
        "pid": 4321,
        "boot_id": open_run.boot_id(),
        "started": "2025-06-01T11:00:30UTC",
        "version": "0.1.0",
        "memory_limit": 4 * GIB,
        "memory_budget": GIB,
        "peak_bytes": 1_234_567,
        "peak_used": 2 * GIB,
        "step": "convert",
    }
    return OpenRun(**given | changes)


def test_what_was_written_is_read_and_can_be_replaced_and_removed(tmp_path: Path) -> None:
    assert open_run.read(tmp_path) is None
    for run in (_run(), _run(pid=7)):
        open_run.write(tmp_path, run)
        assert open_run.read(tmp_path) == run
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    open_run.clear(tmp_path)
    open_run.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_this_process_can_be_written(tmp_path: Path) -> None:
    run = OpenRun.of_this_process("ab", "cd", 5)
    open_run.write(tmp_path, run)
    assert open_run.read(tmp_path) == run
    assert (run.pid, run.memory_budget) == (os.getpid(), 5)
    assert re.fullmatch(r"[0-9a-f-]{36}", run.boot_id)


@pytest.mark.parametrize(
    "change",
    [
        {"pid": -1},
        {"pid": 1.5},
        {"pid": True},
        {"peak_bytes": 1 << 63},
        {"peak_bytes": "12"},
        {"memory_limit": None},
        {"started": "2025-06-01T11:00:30UTC\nFINAL REPORT"},
        {"started": "yesterday"},
        {"version": "\x1b[2J"},
        {"version": "9" * 41},
        {"step": "convert\n"},
        {"request": "../../etc"},
        {"boot_id": 3},
        {"more": 1},
    ],
    ids=str,
)
def test_a_field_of_another_form_is_not_believed(change: dict[str, Any], tmp_path: Path) -> None:
    open_run.write(tmp_path, _run())
    said = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(said | change))
    assert open_run.read(tmp_path) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 4000, b"1" * 4000, b" " * 5000, b'{"pid": 1}', b'{"a":NaN}'],
    ids=range(10),
)
def test_anything_else_of_this_name_is_no_marker(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert open_run.read(tmp_path) is None


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    with open(tmp_path / "run.json", "wb") as file:
        file.truncate(1 << 40)
    assert open_run.read(tmp_path) is None


def test_links_pipes_and_folders_are_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "folder"
    elsewhere.mkdir()
    folder.mkdir()
    open_run.write(elsewhere, _run())
    (folder / "run.json").symlink_to(elsewhere / "run.json")
    assert open_run.read(folder) is None
    (folder / "run.json").unlink()
    os.mkfifo(folder / "run.json")
    assert open_run.read(folder) is None
    (folder / "run.json").unlink()
    (folder / "run.json").mkdir()
    assert open_run.read(folder) is None


def test_a_link_in_the_way_of_the_marker_is_not_written_through(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    folder.mkdir()
    victim.write_text("mine")
    for name in ("run.json", "run.json.part"):
        (folder / name).symlink_to(victim)
    open_run.write(folder, _run())
    assert victim.read_text() == "mine"
    assert open_run.read(folder) == _run()


def test_peaks_are_noted_when_they_have_grown(tmp_path: Path) -> None:
    run = _run()
    open_run.write(tmp_path, run)
    assert open_run.update_peak(tmp_path, run, run.memory_limit, run.peak_bytes + 1, run.peak_used + 1) == run
    assert open_run.read(tmp_path) == run
    later = open_run.update_peak(tmp_path, run, run.memory_limit, GIB, 3 * GIB)
    assert (later.peak_bytes, later.peak_used) == (GIB, 3 * GIB)
    assert open_run.read(tmp_path) == later


def test_a_keeper_notes_figures_while_it_runs_and_leaves_the_marker(tmp_path: Path) -> None:
    asked = threading.Event()

    def figures() -> tuple[int, int, int]:
        asked.set()
        return 8 * GIB, 5 * GIB, 6 * GIB

    with Keeper(tmp_path, _run(), figures, seconds=0.01):
        assert open_run.read(tmp_path) is not None
        assert asked.wait(10)
        deadline = time.monotonic() + 10
        while (found := open_run.read(tmp_path)) == _run() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert found is not None
    assert (found.memory_limit, found.peak_bytes, found.peak_used) == (8 * GIB, 5 * GIB, 6 * GIB)
    assert open_run.read(tmp_path) == found


def test_a_keeper_whose_folder_goes_away_does_not_end_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    asked = threading.Semaphore(0)

    def figures() -> tuple[int, int, int]:
        asked.release()
        return 8 * GIB, 5 * GIB, 6 * GIB

    with Keeper(folder, _run(), figures, seconds=0.01):
        (folder / "run.json").unlink(missing_ok=True)
        (folder / "run.json.part").unlink(missing_ok=True)
        folder.rename(tmp_path / "gone")
        for _ in range(3):
            assert asked.acquire(timeout=10)


@pytest.mark.parametrize(
    ("changes", "says", "never"),
    [
        (
            {"peak_used": 4 * GIB - 5},
            ("probably it was killed for memory", str(4 * GIB - 5), str(4 * GIB)),
            "restarted",
        ),
        ({}, ("killed from outside", str(2 * GIB), "0:59:30 ago"), "probably"),
        ({"boot_id": "another"}, ("the machine has restarted",), "probably"),
        ({"memory_limit": 0, "peak_used": 0}, ("killed from outside", "1234567 bytes by the process"), "probably"),
        ({"started": "2025-05-01T12:00:00UTC"}, ("31 days ago",), "probably"),
        ({"started": "2099-99-99T12:00:00UTC"}, ("(started 2099-99-99T12:00:00UTC, process",), "ago"),
    ],
)
def test_what_became_of_the_run_is_told_with_its_figures(
    changes: dict[str, Any], says: tuple[str, ...], never: str
) -> None:
    found = open_run.describe_abandoned(_run(**changes), NOW)
    assert (found.id, found.warning) == ("PREVIOUS_RUN_KILLED", True)
    for text in (*says, "process 4321", "step convert", "0.1.0", str(GIB)):
        assert text in found.reason
    assert never not in found.reason
    assert "--memory_budget" in found.suggestion
