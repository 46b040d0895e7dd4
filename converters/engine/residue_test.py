import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from converters.engine import residue
from reporting.diagnostics import RecastError

BF16 = np.dtype(ml_dtypes.bfloat16)


def _part(box: residue.Box, lost: list[int]) -> residue.Part:
    extents = tuple(stop - start for start, stop in box)
    logical = np.arange(int(np.prod(extents)), dtype=np.uint16).view(BF16).reshape(extents)
    stored = logical.astype(np.float32)
    return residue.collect("a", (4, 6), box, logical, stored, np.array(lost))


def _joined(folder: Path, *parts: residue.Part) -> residue.Residue:
    journal = residue.Journal(folder / "journal")
    for part in parts:
        journal.append(part)
    assert journal.join(folder / "residue.safetensors") == sum(part.index.size for part in parts)
    return residue.read(folder / "residue.safetensors")


def test_entries_apply_to_the_region_that_is_read(tmp_path: Path) -> None:
    part = _part(((1, 3), (2, 6)), [0, 5])
    found = _joined(tmp_path, part)
    whole = np.zeros((4, 6), np.float32)
    whole.reshape(-1)[part.index] = part.stored.view(np.float32)
    box = ((2, 4), (0, 6))
    logical = np.zeros((2, 6), BF16)
    found.patch("a", box, whole[2:4], logical)
    assert found.applied == 1
    assert logical.view(np.uint16)[0, 3] == 5
    assert logical.view(np.uint16).sum() == 5


def test_entries_of_several_units_are_kept_apart(tmp_path: Path) -> None:
    found = _joined(tmp_path, _part(((0, 2), (0, 6)), [1]), _part(((2, 4), (0, 6)), [2, 3]))
    assert found.elements == 3
    assert found.arrays() == {"a"}


def test_an_entry_whose_stored_bits_changed_is_skipped_and_counted(tmp_path: Path) -> None:
    found = _joined(tmp_path, _part(((0, 4), (0, 6)), [7]))
    logical = np.zeros((4, 6), BF16)
    found.patch("a", ((0, 4), (0, 6)), np.full((4, 6), 99, np.float32), logical)
    assert (found.applied, found.stale) == (0, 1)
    assert not logical.view(np.uint16).any()


def test_without_entries_there_is_no_file(tmp_path: Path) -> None:
    assert residue.Journal(tmp_path / "journal").join(tmp_path / "residue.safetensors") == 0
    assert residue.read(tmp_path / "residue.safetensors").elements == 0


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [4, 5]},
        {"count": 3},
        {"stored_dtype": "bfloat16"},
        {"box": [[0, 4]]},
        {"shape": [1 << 30, 1 << 30]},
    ],
)
def test_a_residue_file_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "residue.safetensors"
    _joined(tmp_path, _part(((0, 4), (0, 6)), [22, 23]))
    head: dict[str, object] = {"array": "a", "shape": [4, 6], "box": [[0, 4], [0, 6]], "stored_dtype": "float32"}
    head |= {"original_dtype": "bfloat16", "count": 2} | change
    save_file(load_file(str(path)), str(path), metadata={"parts": json.dumps([head])})
    with pytest.raises(RecastError) as caught:
        residue.read(path)
    assert caught.value.diagnostics[0].id == "RESIDUE_INVALID"


def test_a_damaged_residue_file_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "residue.safetensors"
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(RecastError) as caught:
        residue.read(path)
    assert caught.value.diagnostics[0].id == "RESIDUE_INVALID"


def test_a_journal_joins_as_often_as_asked(tmp_path: Path) -> None:
    journal = residue.Journal(tmp_path / "journal")
    journal.append(_part(((0, 2), (0, 6)), [1]))
    assert journal.join(tmp_path / "first") == journal.join(tmp_path / "second") > 0
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_only_parts_of_units_that_are_done_are_kept_and_each_once(tmp_path: Path) -> None:
    journal = residue.Journal(tmp_path / "journal")
    first, second = _part(((0, 2), (0, 6)), [1]), _part(((2, 4), (0, 6)), [2, 3])
    for part in (first, second, first):
        journal.append(part)
    with open(tmp_path / "journal", "ab") as file:
        file.write((tmp_path / "journal").read_bytes()[:20])
    journal.keep_only({("a", ((0, 2), (0, 6)))})
    assert journal.join(tmp_path / "file") == first.index.size
