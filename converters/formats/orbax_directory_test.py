import json
from pathlib import Path

import pytest

from converters.formats.orbax_directory import resolve
from reporting.diagnostics import RecastError

DONE: dict[str, object] = {
    "init_timestamp_nsecs": 1,
    "commit_timestamp_nsecs": 2,
    "custom_metadata": {"scan_layers": True},
}
STARTED: dict[str, object] = {"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": None}


def item(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "_METADATA").write_text("{}")
    (path / "manifest.ocdbt").write_text("")
    return path


def step(path: Path, metadata: dict[str, object] | None = None, name: str = "items") -> Path:
    items = item(path / name)
    (path / "_CHECKPOINT_METADATA").write_text(json.dumps(metadata or DONE))
    return items


def violation(path: Path) -> str:
    with pytest.raises(RecastError) as caught:
        resolve(path)
    (found,) = caught.value.diagnostics
    return found.id


@pytest.mark.parametrize("given", [".", "3", "3/items"])
def test_the_root_the_step_and_the_item_lead_to_the_item(tmp_path: Path, given: str) -> None:
    items = step(tmp_path / "3")
    location = resolve(tmp_path / given)
    assert (location.items, location.step, dict(location.custom_metadata)) == (items, 3, {"scan_layers": True})


def test_the_newest_step_is_taken_by_number_and_the_others_are_listed(tmp_path: Path) -> None:
    for number in (9, 10, 2):
        step(tmp_path / str(number))
    location = resolve(tmp_path)
    assert (location.step, location.other_steps, location.unfinished) == (10, (9, 2), ())


def test_an_unfinished_newest_step_is_passed_over_and_listed(tmp_path: Path) -> None:
    step(tmp_path / "1")
    step(tmp_path / "2", STARTED)
    (tmp_path / "3" / "items").mkdir(parents=True)
    (tmp_path / "3" / "items" / "manifest.ocdbt").write_text("")
    location = resolve(tmp_path)
    assert (location.step, location.unfinished) == (1, ("3", "2"))


def test_a_newer_save_in_progress_is_listed_as_unfinished_and_an_older_one_is_not(tmp_path: Path) -> None:
    step(tmp_path / "2")
    for name in ("1.orbax-checkpoint-tmp-7", "3.orbax-checkpoint-tmp-99", "10.orbax-checkpoint-tmp-5"):
        (tmp_path / name).mkdir()
    location = resolve(tmp_path)
    assert (location.step, location.other_steps, location.unfinished) == (2, (), ("10", "3"))


@pytest.mark.parametrize("name", ["00000003", "checkpoint_3"])
def test_steps_under_other_names_are_named_and_can_be_given(tmp_path: Path, name: str) -> None:
    items = step(tmp_path / name, name="default")
    with pytest.raises(RecastError) as caught:
        resolve(tmp_path)
    (found,) = caught.value.diagnostics
    assert (found.id, name in found.reason) == ("SOURCE_NOT_RECOGNIZED", True)
    assert str(tmp_path / name) in found.suggestion
    assert resolve(tmp_path / name).items == items


def test_a_damaged_newest_step_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    step(tmp_path / "1")
    step(tmp_path / "2")
    (tmp_path / "2" / "_CHECKPOINT_METADATA").write_text("{")
    assert violation(tmp_path) == "ORBAX_METADATA_INVALID"


def test_steps_of_which_none_is_finished_are_unfinished(tmp_path: Path) -> None:
    step(tmp_path / "1", STARTED)
    step(tmp_path / "2", STARTED)
    assert violation(tmp_path) == "CHECKPOINT_UNFINISHED"


@pytest.mark.parametrize("name", ["0.orbax-checkpoint-tmp", "0.orbax-checkpoint-tmp-1700000000"])
def test_a_save_in_progress_is_unfinished(tmp_path: Path, name: str) -> None:
    step(tmp_path / name)
    for given in (tmp_path, tmp_path / name, tmp_path / name / "items"):
        assert violation(given) == "CHECKPOINT_UNFINISHED"


def test_an_item_in_progress_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "0" / "items.orbax-checkpoint-tmp-12").mkdir(parents=True)
    assert violation(tmp_path / "0") == "CHECKPOINT_UNFINISHED"


@pytest.mark.parametrize("leftover", ["items/manifest.ocdbt", "items/ocdbt.process_0/manifest.ocdbt", "manifest.ocdbt"])
def test_arrays_without_metadata_are_unfinished(tmp_path: Path, leftover: str) -> None:
    path = tmp_path / "0" / leftover
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert violation(tmp_path / "0") == "CHECKPOINT_UNFINISHED"


def test_a_step_without_a_commit_time_is_finished_where_the_commit_file_says_so(tmp_path: Path) -> None:
    items = step(tmp_path / "0", STARTED)
    for given in (tmp_path / "0", items):
        assert violation(given) == "CHECKPOINT_UNFINISHED"
    (tmp_path / "0" / "commit_success.txt").write_text("")
    assert resolve(tmp_path / "0").items == items


def test_a_step_whose_items_are_missing_is_unfinished(tmp_path: Path) -> None:
    (tmp_path / "_CHECKPOINT_METADATA").write_text(json.dumps(DONE))
    assert violation(tmp_path) == "CHECKPOINT_UNFINISHED"


@pytest.mark.parametrize("name", ["default", "model_params", "params"])
def test_a_single_item_of_another_name_is_taken(tmp_path: Path, name: str) -> None:
    items = item(tmp_path / name)
    assert resolve(tmp_path).items == items


def test_of_several_items_the_usual_one_is_taken(tmp_path: Path) -> None:
    items = step(tmp_path / "0")
    item(tmp_path / "0" / "iter")
    assert resolve(tmp_path / "0").items == items


def test_several_items_of_other_names_are_not_guessed(tmp_path: Path) -> None:
    item(tmp_path / "0" / "model")
    item(tmp_path / "0" / "optimizer")
    with pytest.raises(RecastError, match="model, optimizer"):
        resolve(tmp_path / "0")


def test_metadata_of_step_and_item_may_share_a_directory(tmp_path: Path) -> None:
    item(tmp_path / "ckpt")
    (tmp_path / "ckpt" / "_CHECKPOINT_METADATA").write_text(json.dumps(DONE))
    location = resolve(tmp_path / "ckpt")
    assert (location.items, location.step, dict(location.custom_metadata)) == (
        tmp_path / "ckpt",
        None,
        {"scan_layers": True},
    )


def test_an_item_without_a_step_is_taken(tmp_path: Path) -> None:
    location = resolve(item(tmp_path / "tree"))
    assert (location.step, dict(location.custom_metadata)) == (None, {})


@pytest.mark.parametrize("name", ["007", "1e3", "-1", "\u0663", str(2**63)])
def test_what_is_no_plain_number_is_no_step(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert violation(tmp_path) == "SOURCE_NOT_RECOGNIZED"


def test_a_path_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    assert violation(tmp_path / "none") == "SOURCE_NOT_FOUND"


def test_a_file_is_not_recognized(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert violation(tmp_path / "file") == "SOURCE_NOT_RECOGNIZED"


def test_an_empty_directory_is_not_recognized(tmp_path: Path) -> None:
    assert violation(tmp_path) == "SOURCE_NOT_RECOGNIZED"
