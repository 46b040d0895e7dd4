import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from converters.formats.safetensors_second_reader import SafetensorsElements

VALUES = np.arange(24, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(2, 3, 4)


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]},
            "x": {"dtype": "BF16", "shape": [2, 3, 4], "data_offsets": [4, 52]},
        }
    ).encode()
    path = tmp_path / "f.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<f", 2.5) + VALUES.tobytes())
    return path


def test_elements_are_those_at_their_coordinates(path: Path) -> None:
    points = np.array([[0, 0, 0], [1, 2, 3], [0, 2, 1], [1, 0, 2], [1, 0, 2]])
    values = SafetensorsElements(path).read("x", points)
    assert values.dtype == ml_dtypes.bfloat16
    assert values.astype(np.float32).tolist() == [0.0, 23.0, 9.0, 14.0, 14.0]


def test_a_scalar_has_one_element_without_coordinates(path: Path) -> None:
    assert SafetensorsElements(path).read("s", np.empty((1, 0), np.int64)).tolist() == [2.5]


@pytest.mark.parametrize("point", [[2, 0, 0], [0, 3, 0], [0, 0, -1]])
def test_a_coordinate_outside_of_the_tensor_is_refused(path: Path, point: list[int]) -> None:
    with pytest.raises(ValueError, match="lies outside"):
        SafetensorsElements(path).read("x", np.array([point]))


def test_a_file_that_ends_too_early_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends inside of x"):
        SafetensorsElements(path).read("x", np.array([[1, 2, 3]]))


def test_a_tensor_that_is_not_there_is_refused(path: Path) -> None:
    with pytest.raises(KeyError):
        SafetensorsElements(path).read("y", np.array([[0]]))


def test_several_tensors_are_read_after_one_parse_of_the_header(path: Path) -> None:
    elements = SafetensorsElements(path)
    assert elements.read("s", np.empty((2, 0), np.int64)).tolist() == [2.5, 2.5]
    assert elements.read("x", np.array([[0, 1, 1]])).astype(np.float32).tolist() == [5.0]
    assert elements.read("x", np.empty((0, 3), np.int64)).shape == (0,)
