"""Manifests that DONE confirms, and that say what no writer of ours would."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from converters.engine import manifest, manifest_verification
from reporting.diagnostics import RecastError

_DIGEST = "0" * 64


def _unit(start: list[int], stop: list[int]) -> dict[str, Any]:
    return {"start": start, "stop": stop, "blake3": _DIGEST}


def _tensor(*units: dict[str, Any], dtype: str = "float32", shape: tuple[int, ...] = (4, 6)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "units": list(units)}


_HALVES = _tensor(_unit([0, 0], [2, 6]), _unit([2, 0], [4, 6]))


def _read(root: Path, **changes: Any) -> manifest_verification.Listed:
    content = {"schema": 1, "request": "r", "files": {}, "tensors": {"w": _HALVES}} | changes
    text = json.dumps(content)
    (root / manifest.FILE).write_text(text, "utf-8")
    said = {"request": "r", "manifest_sha256": hashlib.sha256(text.encode()).hexdigest()}
    (root / "DONE").write_text(json.dumps(said) + "\n", "utf-8")
    return manifest_verification.read(root)


def _reason(root: Path, **changes: Any) -> str:
    with pytest.raises(RecastError) as caught:
        _read(root, **changes)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.id == "MANIFEST_INVALID"
    return diagnostic.reason


def test_the_halves_of_a_tensor_are_read(tmp_path: Path) -> None:
    assert _read(tmp_path).tensors["w"].shape == (4, 6)


def test_a_scalar_has_one_region_without_axes(tmp_path: Path) -> None:
    assert len(_read(tmp_path, tensors={"step": _tensor(_unit([], []), shape=())}).tensors["step"].units) == 1


def test_a_tensor_without_elements_may_have_regions_or_none(tmp_path: Path) -> None:
    none, one = _tensor(shape=(0, 6)), _tensor(_unit([0, 0], [0, 6]), shape=(0, 6))
    assert set(_read(tmp_path, tensors={"none": none, "one": one}).tensors) == {"none", "one"}


@pytest.mark.parametrize(
    "tensor",
    [
        _tensor(),
        _tensor(_unit([0, 0], [2, 6])),
        _tensor(_unit([0, 0], [2, 6]), _unit([0, 0], [2, 6])),
        _tensor(_unit([0, 0], [3, 6]), _unit([2, 0], [4, 6])),
        _tensor(_unit([0, 0], [2, 6]), _unit([2, 0], [5, 6])),
        _tensor(_unit([0, 0], [2, 3]), _unit([2, 3], [4, 6])),
        _tensor(_unit([0], [4])),
        _tensor(shape=()),
    ],
    ids=["none", "a half", "a half twice", "overlapping", "too far", "a diagonal", "another rank", "an empty scalar"],
)
def test_regions_that_are_not_each_element_once_are_refused(tmp_path: Path, tensor: dict[str, Any]) -> None:
    assert "'w'" in _reason(tmp_path, tensors={"w": tensor})


@pytest.mark.parametrize("dtype", ["foo", "f4,(", "", "O"])
def test_a_dtype_that_is_none_is_refused(tmp_path: Path, dtype: str) -> None:
    _reason(tmp_path, tensors={"w": {**_HALVES, "dtype": dtype}})


@pytest.mark.parametrize(
    "changes",
    [{"files": []}, {"tensors": []}, {"files": {"a": 1}}, {"tensors": {"w": 1}}, {"files": {"../a": {"bytes": 1}}}],
    ids=["files a list", "tensors a list", "a file a number", "a tensor a number", "a path to outside"],
)
def test_another_form_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    _reason(tmp_path, **changes)


def test_a_listed_file_of_an_impossible_name_is_damaged(tmp_path: Path) -> None:
    listed = _read(tmp_path, files={"x" * 300: {"bytes": 1, "blake3": _DIGEST}})
    (found,) = manifest_verification.check_files(listed, 1, lambda _: None)
    assert found.id == "CHECKPOINT_DAMAGED"
