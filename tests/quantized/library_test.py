"""What compressed-tensors itself compressed, decoded to what it decompresses; the files are made by make_golden.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.formats.safetensors_source import SafetensorsSource
from tests.quantized import loops, making
from tests.quantized.loops import Array
from tests.quantized.making import bits, source_of

_TENSORS = Path(__file__).parent / "compressed_tensors.safetensors"
_CONFIGS: Mapping[str, Any] = json.loads(
    (Path(__file__).parent / "compressed_tensors.json").read_text(encoding="utf-8")
)


def tensors_of(case: str) -> dict[str, Array]:
    """What the library stored for a case, and what it expects."""
    found = making.read(SafetensorsSource(_TENSORS))
    return {name.removeprefix(f"{case}."): values for name, values in found.items() if name.startswith(f"{case}.")}


@pytest.mark.parametrize("case", list(_CONFIGS))
def test_what_the_library_compressed_is_decoded_to_what_it_decompresses(case: str, tmp_path: Path) -> None:
    stored = tensors_of(case)
    expected = stored.pop("expected")
    source = source_of(
        tmp_path / "q", {f"m.{name}": values for name, values in stored.items()}, _CONFIGS[case], "float32"
    )
    read = source.read("m.weight", tuple((0, size) for size in expected.shape))
    assert set(source.tensors) == {"m.weight"}
    assert bits(read) == bits(expected.astype(np.float32))


@pytest.mark.parametrize("case", ["float_tensor", "int_channel_zero", "int4_group", "float_block"])
def test_the_loops_that_other_tests_rely_on_decode_to_the_same(case: str) -> None:
    stored = tensors_of(case)
    expected, scales = stored["expected"], stored["weight_scale"]
    if "weight_packed" in stored:
        values = loops.packed_values(stored["weight_packed"], expected.shape[1])
    else:
        codes = stored["weight"]
        values = loops.float8_values(codes) if case.startswith("float") else codes.astype(np.float32)
    weights = _CONFIGS[case]["config_groups"]["group_0"]["weights"]
    size = {"tensor": (0, 0), "channel": (1, 0), "group": (1, weights["group_size"])}.get(weights["strategy"])
    block = size or tuple(weights["block_structure"])
    assert bits(loops.scaled(values, scales, block, expected.dtype.name, stored.get("weight_zero_point"))) == bits(
        expected
    )
