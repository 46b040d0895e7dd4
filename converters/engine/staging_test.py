from pathlib import Path

import pytest

from converters.engine import staging
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
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [staging.STAGING]
    stage.discard()


def test_done_comes_after_everything_else(tmp_path: Path) -> None:
    stage = _filled(tmp_path / "out", a="1", b="2")
    stage.publish()
    assert not (tmp_path / "out" / "DONE").exists()
    stage.complete("done")
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["DONE", "a", "b"]


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
    stage = _filled(tmp_path, a="1")
    stage.publish()
    stage.complete("done")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["DONE", "a"]
    assert (tmp_path / "DONE").read_text() == "done"


def test_a_second_run_on_the_same_destination_is_refused(tmp_path: Path) -> None:
    first = _filled(tmp_path / "out", a="1")
    with pytest.raises(RecastError) as caught:
        Staging(tmp_path / "out").open()
    assert caught.value.diagnostics[0].id == "DESTINATION_BUSY"
    assert (tmp_path / "out" / staging.STAGING / "a").exists()
    first.discard()


def test_what_an_interrupted_run_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / staging.STAGING
    left.mkdir()
    (left / "half").write_text("x")
    assert staging.is_vacant(tmp_path)
    stage = _filled(tmp_path, a="1")
    assert not (left / "half").exists()
    stage.discard()


def test_only_directories_that_look_like_checkpoints_are_replaceable(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert not staging.is_replaceable(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert staging.is_replaceable(tmp_path)
