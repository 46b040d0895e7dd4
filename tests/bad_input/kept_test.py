"""What was kept beside a MaxText checkpoint: gone, cut, altered, or of another model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import kept_checkpoints
from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Case, Fault, completed, refused, unchanged
from tests.bad_input.running import hf_to_maxtext, maxtext_to_hf

FILE = "recast/kept/model.safetensors"
LIST = "checkpoint-manifest.json"
PROJECT = "mtp.project/3"
EXPERTS = "moe.gate/3"


@pytest.fixture(scope="session")
def whole(templates: Path) -> Path:
    kept_checkpoints.write(templates / "mtp")
    completed(hf_to_maxtext(templates / "mtp", templates / "kept"))
    return templates / "kept"


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "kept"))


def _removed(directory: Path) -> None:
    shutil.rmtree(directory / "recast" / "kept")


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _unlisted(edit: cp.Edit) -> cp.Edit:
    """Without the list of what was written, which names the file whatever was done to it."""
    return cp.together(cp.without(LIST), edit)


def _with(name: str, values: np.ndarray) -> cp.Edit:
    return _unlisted(cp.changed_tensors(lambda tensors: tensors.update({name: values}), FILE))


def _counted(record: dict[str, Any]) -> None:
    record["source_dtypes"]["model.layers.3.eh_proj.weight"] = "int8"


def _invalid(*says: str) -> tuple[Fault, ...]:
    return (Fault("RESIDUE_INVALID", *says),)


CASES = (
    Case("the_file_is_gone", cp.without(FILE), _invalid("recast/kept cannot be read", "no safetensors files")),
    Case("the_folder_is_gone", _removed, _invalid(FILE)),
    Case("cut", cp.with_bytes(FILE, lambda data: data[:-1]), _invalid("recast/kept cannot be read")),
    Case("cut_in_the_header", cp.with_bytes(FILE, lambda data: data[:100]), _invalid("recast/kept cannot be read")),
    Case("empty", cp.with_bytes(FILE, lambda _: b""), _invalid("recast/kept cannot be read")),
    Case("one_bit_is_another", cp.with_bytes(FILE, _flipped), _invalid(FILE)),
    Case(
        "another_shape",
        _with(PROJECT, np.zeros((40, 79), np.float16)),
        (Fault("TENSOR_SHAPE", f"kept/{PROJECT}", "[40, 79]", "[40, 80]"),),
    ),
    Case("another_dtype", _with(PROJECT, np.zeros((40, 80), np.float32)), _invalid(PROJECT, "float32", "bfloat16")),
    Case(
        "a_dtype_of_no_weight",
        _with(PROJECT, np.zeros((40, 80), np.int16)),
        (Fault("TENSOR_DTYPE", f"kept/{PROJECT}", "int16"),),
    ),
    Case(
        "a_record_of_a_dtype_of_no_weight",
        cp.together(cp.without(LIST), cp.changed_json("recast/conversion.json", _counted)),
        _invalid("model.layers.3.eh_proj.weight", "int8"),
    ),
    Case("a_tensor_of_no_model", _with("mtp.spare/3", np.zeros(3, np.float16)), _invalid("mtp.spare/3")),
    Case("a_layer_that_maxtext_has", _with("mtp.project/2", np.zeros(3, np.float16)), _invalid("mtp.project/2")),
    Case(
        "one_tensor_is_gone",
        _unlisted(cp.changed_tensors(lambda tensors: tensors.pop(PROJECT), FILE)),
        _invalid("model.layers.3.eh_proj.weight"),
    ),
    Case(
        "one_tensor_of_many_arrays_is_gone",
        _unlisted(cp.changed_tensors(lambda tensors: tensors.pop(EXPERTS), FILE)),
        tuple(Fault("RESIDUE_INVALID", f"model.layers.3.mlp.experts.{i}.gate_proj.weight") for i in range(4)),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_refused_by_one_error_that_names_it(case: Case, source: Path, destination: Path) -> None:
    case.damage(source)
    with unchanged(source):
        refused(maxtext_to_hf(source, destination, "--weight_dtype=auto"), *case.faults)
    assert not destination.exists()


def test_without_the_list_and_the_folder_a_conversion_goes_on_without_the_layer(
    source: Path, destination: Path
) -> None:
    _unlisted(_removed)(source)
    completed(maxtext_to_hf(source, destination, "--weight_dtype=auto"))
    index = (destination / "model.safetensors").read_bytes()[: 1 << 16]
    assert b"model.layers.2.input_layernorm" in index
    assert b"model.layers.3." not in index


def test_a_place_that_maxtext_has_not_cannot_be_asked_for(hf: Path, destination: Path) -> None:
    fault = Fault("INVALID_FLAG", "--enable_mtp", "no place for such layers")
    refused(hf_to_maxtext(hf, destination, "--enable_mtp"), fault)
    assert not destination.exists()
