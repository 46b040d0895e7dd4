import dataclasses
from pathlib import Path

import pytest

from converters.engine import journal, resume
from converters.engine.journal import Journal, UnitRecord
from converters.engine.resume import Identity
from converters.engine.run_files import JOURNAL
from converters.engine.staging import Staging
from reporting.diagnostics import RecastError

RECORD = UnitRecord("a", ((0, 2), (0, 3)), "f00d", {"x": (3, 9)}, 1, 12)
ME = Identity("aa", "bb", {"a": (2, 3)})


def _left_by(identity: Identity, destination: Path, records: int = 1) -> None:
    """What an interrupted run leaves."""
    stage = Staging(destination)
    stage.open()
    resume.begin(stage, identity, overwrite=False)
    stage.path("part").write_text("half")
    with Journal(stage.folder / JOURNAL, lambda: None) as kept:
        for number in range(records):
            kept.add(dataclasses.replace(RECORD, array=f"a{number}"))
    stage.keep()


def test_the_same_request_and_plan_continue(tmp_path: Path) -> None:
    _left_by(ME, tmp_path, records=3)
    assert resume.grid_of_earlier_run(tmp_path, "aa") == {"a": (2, 3)}
    assert resume.grid_of_earlier_run(tmp_path, "cc") == {}
    stage = Staging(tmp_path)
    stage.open()
    resumed = resume.begin(stage, ME, overwrite=False)
    assert resumed.continues
    assert [record.array for record in resumed.records] == ["a0", "a1", "a2"]
    assert resumed.records[0].box == RECORD.box
    assert resumed.records[0].largest == RECORD.largest
    assert (stage.root / "part").exists()
    stage.discard()


@pytest.mark.parametrize(
    ("other", "says"), [(Identity("cc", "bb", {}), "another request"), (Identity("aa", "dd", {}), "planned otherwise")]
)
def test_finished_units_of_another_request_or_plan_are_not_thrown_away(
    tmp_path: Path, other: Identity, says: str
) -> None:
    _left_by(other, tmp_path)
    stage = Staging(tmp_path)
    stage.open()
    with pytest.raises(RecastError, match=says) as caught:
        resume.begin(stage, ME, overwrite=False)
    assert caught.value.diagnostics[0].id == "UNFINISHED_RUN"
    assert (stage.root / "part").exists()
    assert not resume.begin(stage, ME, overwrite=True).continues
    assert not (stage.root / "part").exists()
    stage.discard()


def test_a_run_of_another_request_that_finished_nothing_bars_nobody(tmp_path: Path) -> None:
    _left_by(Identity("cc", "bb", {}), tmp_path, records=0)
    stage = Staging(tmp_path)
    stage.open()
    assert not resume.begin(stage, ME, overwrite=False).continues
    assert list(stage.root.iterdir()) == []
    stage.discard()


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_record_that_was_not_finished_is_left_out(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    with Journal(path, lambda: None) as kept:
        kept.add(RECORD)
        kept.add(RECORD)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert journal.read(path) == [RECORD]


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_records_that_follow_one_that_was_not_finished_are_kept(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    for run in range(3):
        with Journal(path, lambda: None) as kept:
            kept.add(dataclasses.replace(RECORD, array=f"a{run}"))
            kept.add(RECORD)
        path.write_bytes(path.read_bytes()[:-cut])
    assert [record.array for record in journal.read(path)] == ["a0", "a1", "a2"]


def test_a_unit_is_recorded_only_after_it_is_durable(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    seen: list[bool] = []
    with Journal(path, lambda: seen.append(path.exists())) as kept:
        kept.add(RECORD)
    assert seen == [False]
    assert journal.read(path) == [RECORD]


def test_a_disk_that_fails_ends_the_run(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"), Journal(tmp_path / "journal", fail) as kept:
        kept.add(RECORD)
    assert journal.read(tmp_path / "journal") == []
