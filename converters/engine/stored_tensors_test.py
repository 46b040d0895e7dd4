"""Digests read in parts are those of the whole; what is damaged does not hide the rest."""

import os
from pathlib import Path

import blake3
import numpy as np
import pytest
from safetensors.numpy import save_file

from converters.engine.stored_tensors import open_tensors
from reporting.diagnostics import RecastError

VALUES = np.arange(7 * 5 * 3, dtype=np.float32).reshape(7, 5, 3)


def test_a_digest_does_not_depend_on_the_parts_that_are_read(tmp_path: Path) -> None:
    save_file({"a": VALUES}, tmp_path / "model.safetensors")
    tensors = open_tensors(tmp_path, ["a"])
    box = ((1, 6), (0, 5), (1, 3))
    part = np.ascontiguousarray(VALUES[1:6, :, 1:3])
    wanted = (blake3.blake3(part.tobytes()).hexdigest(), part.nbytes)
    assert {tensors.digest("a", box, limit) for limit in (1, 8, 40, 41, 79, 200, 1 << 20)} == {wanted}


def test_a_scalar_has_a_digest(tmp_path: Path) -> None:
    save_file({"a": np.array(2.5, np.float32)}, tmp_path / "model.safetensors")
    assert open_tensors(tmp_path, ["a"]).digest("a", (), 1)[1] == 4


def test_a_box_beyond_the_array_is_refused(tmp_path: Path) -> None:
    save_file({"a": VALUES}, tmp_path / "model.safetensors")
    with pytest.raises(RecastError):
        open_tensors(tmp_path, ["a"]).digest("a", ((0, 8), (0, 5), (0, 3)), 1)


def test_a_damaged_file_leaves_the_others_readable(tmp_path: Path) -> None:
    save_file({"a": VALUES}, tmp_path / "one.safetensors")
    save_file({"b": VALUES}, tmp_path / "two.safetensors")
    (tmp_path / "one.safetensors").write_bytes(b"\xff" * 64)
    tensors = open_tensors(tmp_path, ["a", "b", "c"])
    assert tensors.info("b").shape == (7, 5, 3)
    for name in ("a", "c"):
        with pytest.raises(RecastError) as raised:
            tensors.info(name)
        assert raised.value.diagnostics[0].id == "HEADER_INVALID"


def test_a_pipe_among_the_files_of_an_item_is_an_error_for_each_array_and_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "0" / "items").mkdir(parents=True)
    os.mkfifo(tmp_path / "0" / "items" / "manifest.ocdbt")
    tensors = open_tensors(tmp_path, ["a", "b"])
    for name in ("a", "b"):
        with pytest.raises(RecastError) as raised:
            tensors.info(name)
        assert raised.value.diagnostics[0].id == "ORBAX_ARRAY_UNREADABLE"
