"""Regions written to files, against plain loops over elements."""

import itertools
import math
import mmap
import os
import random
from pathlib import Path

import numpy as np
import pytest

from converters.formats import region_writing
from converters.formats.base import AnyArray, Region


def _expected(before: bytes, offset: int, region: Region, shape: tuple[int, ...], values: AnyArray) -> bytes:
    """One element at a time."""
    out = bytearray(before)
    width = values.itemsize
    for index in itertools.product(*(range(*axis) for axis in region)):
        place = 0
        for at, size in zip(index, shape, strict=True):
            place = place * size + at
        here = tuple(at - start for at, (start, _) in zip(index, region, strict=True))
        out[offset + place * width : offset + (place + 1) * width] = values[here].tobytes()
    return bytes(out)


def _random_case(seed: int) -> tuple[int, Region, tuple[int, ...], AnyArray]:
    chooser = random.Random(seed)
    shape = tuple(chooser.randint(1, 9) for _ in range(chooser.randint(0, 4)))
    region = []
    for size in shape:
        start = chooser.randint(0, size // 2)
        region.append(chooser.choice([(0, size), (start, size), (start, chooser.randint(start, size))]))
    dtype = np.dtype(chooser.choice([np.uint8, np.uint16, np.float32, np.float64]))
    counts = [stop - start for start, stop in region]
    values = np.frombuffer(chooser.randbytes(math.prod(counts) * dtype.itemsize), dtype).reshape(counts)
    return chooser.choice([0, 1, 8, 4095, 4096, 70_001]), tuple(region), shape, values


def _file(path: Path, size: int, seed: int) -> tuple[int, bytes]:
    before = random.Random(seed).randbytes(size)
    path.write_bytes(before)
    return os.open(path, os.O_RDWR), before


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_a_region_lands_where_a_loop_over_its_elements_puts_it(seed: int, mapped: bool, tmp_path: Path) -> None:
    offset, region, shape, values = _random_case(seed)
    descriptor, before = _file(tmp_path / "file", offset + math.prod(shape) * values.itemsize + 5, seed)
    found = region_writing.runs(region, shape, values.itemsize)
    data = values.reshape(-1).view(np.uint8)
    try:
        if mapped and region_writing.are_short(found):
            assert region_writing.write_mapped(descriptor, offset, found, data)
        else:
            region_writing.write(descriptor, offset, found, data)
    finally:
        os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == _expected(before, offset, region, shape, values)


def test_many_of_the_random_regions_are_written_through_mapped_memory() -> None:
    cases = [_random_case(seed) for seed in range(60)]
    short = [region_writing.are_short(region_writing.runs(r, shape, v.itemsize)) for _, r, shape, v in cases]
    assert 10 < sum(short) < 50


@pytest.mark.parametrize(
    ("region", "shape", "first", "length", "steps"),
    [
        (((0, 4), (0, 6)), (4, 6), 0, 48, ()),
        (((1, 3), (0, 6)), (4, 6), 12, 24, ()),
        (((1, 3), (2, 5)), (4, 6), 16, 6, ((2, 12),)),
        (((1, 2), (2, 5)), (4, 6), 16, 6, ()),
        (((0, 2), (1, 2), (0, 6)), (2, 4, 6), 12, 12, ((2, 48),)),
        (((0, 0), (0, 6)), (4, 6), 0, 0, ()),
        ((), (), 0, 2, ()),
    ],
)
def test_inner_axes_that_are_taken_whole_lie_together(
    region: Region, shape: tuple[int, ...], first: int, length: int, steps: tuple[tuple[int, int], ...]
) -> None:
    assert region_writing.runs(region, shape, 2) == region_writing.Runs(first, length, steps)


def test_one_run_and_long_runs_are_no_case_for_mapped_memory() -> None:
    one = region_writing.runs(((1, 2), (2, 5)), (4, 6), 2)
    long = region_writing.runs(((0, 2), (0, 20_000)), (2, 20_001), 2)
    none = region_writing.runs(((0, 2), (3, 3)), (2, 6), 2)
    assert [region_writing.are_short(found) for found in (one, long, none)] == [False, False, False]


def test_a_file_that_cannot_be_mapped_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(19, "No such device")

    descriptor, before = _file(tmp_path / "file", 48, 0)
    found = region_writing.runs(((1, 3), (2, 5)), (4, 6), 2)
    monkeypatch.setattr(mmap, "mmap", refused)
    try:
        assert not region_writing.write_mapped(descriptor, 0, found, np.zeros(12, np.uint8))
    finally:
        os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == before


def test_a_file_that_lost_its_end_is_not_mapped(tmp_path: Path) -> None:
    descriptor, _ = _file(tmp_path / "file", 30, 0)
    found = region_writing.runs(((1, 3), (2, 5)), (4, 6), 2)
    try:
        assert not region_writing.write_mapped(descriptor, 0, found, np.zeros(12, np.uint8))
    finally:
        os.close(descriptor)
