"""Differences against plain NumPy."""

import ml_dtypes
import numpy as np
import pytest

from converters.engine import comparing

BF16 = ml_dtypes.bfloat16


def test_equal_arrays_have_no_difference() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert comparing.first_difference(((0, 3), (0, 4)), values, values.copy()) is None


def test_the_first_difference_has_the_coordinate_of_the_whole_array() -> None:
    ours = np.zeros((3, 4), np.float32)
    theirs = ours.copy()
    theirs[1, 2], theirs[2, 0] = 0.5, -2
    found = comparing.first_difference(((10, 13), (20, 24)), ours, theirs)
    assert found == comparing.Difference(2, (11, 22), "0.0", "0.5", 2.0)


def test_a_negative_zero_and_another_nan_differ_in_bits_only() -> None:
    ours = np.array([0.0, np.nan], np.float32)
    theirs = np.array([-0.0, 0.0], np.float32)
    theirs.view(np.uint32)[1] = 0x7FC00001
    found = comparing.first_difference(((0, 2),), ours, theirs)
    assert found is not None
    assert (found.count, found.largest) == (2, 0.0)


def test_other_dtypes_are_compared_in_one_that_holds_both() -> None:
    exact = np.array([1.5, -3.0], BF16)
    assert comparing.first_difference(((0, 2),), exact, exact.astype(np.float32)) is None
    found = comparing.first_difference(((0, 2),), exact, np.array([1.5, -3.0009765625], np.float32))
    assert found is not None
    assert (found.count, found.first, found.largest) == (1, (1,), 0.0009765625)


def test_a_part_that_is_no_whole_block_is_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_BLOCK", 5)
    ours = np.arange(13, dtype=np.int32)
    theirs = ours.copy()
    theirs[12] = -1
    assert comparing.first_difference(((0, 13),), ours, theirs) == comparing.Difference(1, (12,), "12", "-1", 13.0)


def test_a_scalar_has_the_empty_coordinate() -> None:
    found = comparing.first_difference((), np.array(3), np.array(4))
    assert found is not None
    assert found.first == ()


def test_regions_of_one_array_are_joined_to_the_nearest_coordinate() -> None:
    differences = comparing.Differences()
    zeros, ones = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    differences.compare("a", ((4, 5), (0, 2)), zeros, 3 * ones)
    differences.compare("a", ((1, 2), (0, 2)), zeros, ones)
    differences.compare("b", ((0, 1), (0, 2)), ones, ones)
    assert differences.arrays == {"a": comparing.Difference(4, (1, 0), "0.0", "1.0", 3.0)}
    assert differences.bytes == 24


def test_views_that_do_not_lie_in_order_are_compared_by_coordinate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_BLOCK", 4)
    ours = np.arange(60, dtype=np.float32).reshape(5, 12)
    theirs = ours.copy()
    theirs[2, 7], theirs[4, 3] = 0, 1
    found = comparing.first_difference(((100, 104), (0, 6)), ours[1:, 3:9], np.asfortranarray(theirs)[1:, 3:9])
    assert found == comparing.Difference(2, (101, 4), "31.0", "0.0", 50.0)
