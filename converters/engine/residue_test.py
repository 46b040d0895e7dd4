import json
import tracemalloc
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
        {"box": [[0, 4], [0, "x"]]},
        {"box": [[0, 4], [0, 7]]},
        {"box": [[0, 4], [5, 4]]},
        {"shape": [1 << 30, 1 << 30]},
        {"shape": [10**400, 6]},
        {"shape": [10**300, 10**300]},
        {"shape": [1] * 100_000, "box": [[0, 1]] * 100_000},
        {"count": float("inf")},
        {"stored_dtype": "f4,("},
        {"stored_dtype": "finfo"},
        {"original_dtype": ["bfloat16"]},
    ],
    ids=lambda change: str(change)[:40],
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


def test_a_residue_file_whose_parts_are_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "residue.safetensors"
    save_file({"0.index": np.zeros(1, np.int64)}, str(path), metadata={"parts": "[" * 200_000})
    with pytest.raises(RecastError, match="nested too deeply") as caught:
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


@pytest.mark.parametrize("in_order", [True, False])
def test_a_region_of_a_large_part_takes_memory_by_its_own_size(in_order: bool) -> None:
    peaks = []
    for layers in (4, 32):
        shape = (64, layers, 256)
        index = np.arange(64 * layers * 256, dtype=np.int64)
        index = index if in_order else index.reshape(shape).swapaxes(0, 1).reshape(-1).copy()
        bits = (index % 1000).astype(np.uint32)
        box = tuple((0, size) for size in shape)
        found = residue.Residue({"a": (residue.Part("a", shape, box, "float32", "float32", index, bits, bits + 1),)})
        region = ((0, 64), (1, 2), (0, 256))
        stored = np.arange(index.size).reshape(shape)[:, 1:2] % 1000
        logical = np.zeros((64, 1, 256), np.float32)
        tracemalloc.start()
        found.patch("a", region, stored.astype(np.uint32).view(np.float32), logical)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.applied, found.stale) == (64 * 256, 0)
        assert (logical.view(np.uint32) == stored + 1).all()
    assert peaks[1] < 1.5 * peaks[0]


def test_an_entry_of_a_single_number_applies_where_its_bits_are_the_recorded_ones() -> None:
    zero, bits = np.zeros(1, np.int64), np.array([7], np.uint32)
    found = residue.Residue({"a": (residue.Part("a", (), (), "float32", "float32", zero, bits, bits + 1),)})
    logical = np.zeros((), np.float32)
    found.patch("a", (), np.array(7, np.uint32).view(np.float32), logical)
    found.patch("a", (), np.array(8, np.uint32).view(np.float32), logical)
    assert (found.applied, found.stale, int(logical.view(np.uint32))) == (1, 1, 8)
