import errno
import os
import signal
import threading
from pathlib import Path

import pytest

from converters.engine import destination, publication, signals
from converters.engine.staging import Staging
from reporting.diagnostics import RecastError


def _filled(destination: Path, **files: str) -> Staging:
    stage = Staging(destination)
    stage.open()
    for name, content in files.items():
        stage.path(name).write_text(content)
    return stage


def test_nothing_but_the_staging_folder_is_seen_before_publish(tmp_path: Path) -> None:
    stage = _filled(tmp_path / "out", a="1")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [destination.STAGING]
    stage.discard()


def test_done_is_the_last_to_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = _filled(tmp_path / "out", a="1", DONE="done", z="2")
    moved: list[str] = []
    rename = os.rename

    def noted(source: Path, target: Path) -> None:
        moved.append(Path(target).name)
        rename(source, target)

    monkeypatch.setattr(os, "rename", noted)
    stage.publish(["a"], lambda: None)
    assert moved == ["z", "a", "DONE"]
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["DONE", "a", "z"]


def test_a_failing_publication_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "DONE").write_text("old")
    (tmp_path / "config.json").write_text("old")
    stage = _filled(tmp_path, a="1", b="2", DONE="new")
    rename = os.rename

    def failing(source: Path, target: Path) -> None:
        if Path(source).name == "b" and Path(source).parent.parent.name == destination.STAGING:
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        stage.publish([], lambda: None)
    stage.discard()
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"DONE": "old", "config.json": "old"}


def test_a_run_that_was_killed_while_publishing_does_not_bar_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = _filled(tmp_path, a="1", b="2", DONE="new")
    rename = os.rename

    def dying(source: Path, target: Path) -> None:
        if Path(source).name == "b":
            raise SystemExit
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", dying)
        # A process that is killed takes nothing back.
        patched.setattr(publication, "_take_back", lambda moved: None)
        patched.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        with pytest.raises(SystemExit):
            killed.publish([], lambda: None)
    killed._release()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [destination.STAGING, "a"]
    assert destination.is_vacant(tmp_path)
    stage = Staging(tmp_path)
    stage.open()
    assert {entry.name: entry.read_text() for entry in stage.root.iterdir()} == {"a": "1", "b": "2", "DONE": "new"}
    stage.clear()
    stage.path("a").write_text("3")
    stage.path("DONE").write_text("new")
    stage.publish([], lambda: None)
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"DONE": "new", "a": "3"}


def test_discard_leaves_no_trace_of_a_directory_that_was_not_there(tmp_path: Path) -> None:
    stage = _filled(tmp_path / "new" / "out", a="1")
    stage.discard()
    assert not (tmp_path / "new").exists()


def test_discard_keeps_a_directory_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    stage = _filled(tmp_path / "keep", a="1")
    stage.discard()
    assert list((tmp_path / "keep").iterdir()) == []


def test_publish_replaces_an_older_checkpoint_whole(tmp_path: Path) -> None:
    (tmp_path / "DONE").write_text("old")
    (tmp_path / "model-00001-of-00009.safetensors").write_text("old")
    stage = _filled(tmp_path, a="1", DONE="done")
    stage.publish([], lambda: None)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["DONE", "a"]
    assert (tmp_path / "DONE").read_text() == "done"


def test_a_second_run_on_the_same_destination_is_refused(tmp_path: Path) -> None:
    first = _filled(tmp_path / "out", a="1")
    with pytest.raises(RecastError) as caught:
        Staging(tmp_path / "out").open()
    assert caught.value.diagnostics[0].id == "DESTINATION_BUSY"
    assert (first.root / "a").exists()
    first.discard()


@pytest.mark.parametrize("call", ["fcntl.flock", "os.fstat"])
def test_a_lock_that_cannot_be_taken_leaves_no_trace_where_nothing_was(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        _failing(patched, call)
        with pytest.raises(OSError, match="No locks available"):
            Staging(tmp_path / "new" / "out").open()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("call", ["fcntl.flock", "os.fstat"])
def test_a_lock_that_cannot_be_taken_costs_no_unit_of_an_earlier_run(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = _filled(tmp_path, a="1")
    earlier.keep()
    with monkeypatch.context() as patched:
        _failing(patched, call)
        with pytest.raises(OSError, match="No locks available"):
            Staging(tmp_path).open()
    assert (earlier.root / "a").read_text() == "1"
    assert (earlier.folder / "lock").exists()
    again = Staging(tmp_path)
    again.open()
    assert (again.root / "a").read_text() == "1"
    again.discard()


def _failing(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A file system without locks, or one that fails right after it gave one."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(call, fail)


def test_what_an_interrupted_run_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / destination.STAGING
    left.mkdir()
    (left / "half").write_text("x")
    assert destination.is_vacant(tmp_path)
    stage = _filled(tmp_path, a="1")
    assert not (left / "half").exists()
    stage.discard()


def test_only_directories_that_hold_nothing_but_a_checkpoint_are_replaceable(tmp_path: Path) -> None:
    assert not destination.is_replaceable(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-00001-of-00002.safetensors").write_text("x")
    assert destination.is_replaceable(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    assert not destination.is_replaceable(tmp_path)


def test_a_signal_to_the_process_waits_until_the_block_has_ended() -> None:
    came: list[str] = []
    asleep = threading.Event()
    other = threading.Thread(target=asleep.wait, args=(5,), daemon=True)
    other.start()
    before = signal.signal(signal.SIGTERM, lambda *_: came.append("handled"))
    try:
        with signals.uninterrupted(), signals.uninterrupted():
            os.kill(os.getpid(), signal.SIGTERM)
            asleep.wait(0.05)
            came.append("block ended")
    finally:
        signal.signal(signal.SIGTERM, before)
        asleep.set()
    assert came == ["block ended", "handled"]
