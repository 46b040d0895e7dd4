"""Which way of storing codes the headers show, where a config announces several."""

from __future__ import annotations

import pytest

from converters.formats.base import TensorInfo
from converters.quantized.recognition import Recognition, recognise
from validators.quantization import FLOAT8, INT8, PACKED, Scheme, Weights

_BLOCKS = Weights(FLOAT8, 8, (128, 128))
_WHOLE = Weights(FLOAT8, 8, (0, 0))
_SYMMETRIC = Weights(INT8, 8, (1, 0))
_WITH_ZEROS = Weights(INT8, 8, (1, 0), symmetric=False)


def _found(
    ways: tuple[Weights, ...], *arrays: tuple[str, str, tuple[int, ...]], method: str = "compressed-tensors"
) -> Recognition:
    """What arrays are by some ways; they are given by the ends of their names, after `m.weight`, dtypes and shapes."""
    header = {f"m.weight{end}": TensorInfo(f"m.weight{end}", shape, dtype, "file") for end, dtype, shape in arrays}
    return recognise(Scheme(method, ways), header, lambda _: (4, 3))


def _ids(found: Recognition) -> list[str]:
    return [diagnostic.id for diagnostic in found.found]


def test_columns_that_are_no_whole_groups_are_told_as_that() -> None:
    groups = Weights(FLOAT8, 8, (1, 20), whole_groups=True)
    found = _found((groups,), ("", FLOAT8, (4, 72)), ("_scale", "bfloat16", (4, 4)))
    assert [(d.id, d.subject, d.reason) for d in found.found] == [
        ("TENSOR_SHAPE", "m.weight", "m.weight has the shape [4, 72]; 72 columns are no whole groups of 20.")
    ]


@pytest.mark.parametrize(("method", "end"), [("fp8", "_scale_inv"), ("compressed-tensors", "_scale")])
def test_blocks_of_one_row_may_end_early(method: str, end: str) -> None:
    ways = (Weights(FLOAT8, 8, (1, 20)),)
    found = _found(ways, ("", FLOAT8, (4, 72)), (end, "float32", (4, 4)), method=method)
    assert (_ids(found), found.stored["m.weight"].block) == ([], (1, 20))


@pytest.mark.parametrize("ways", [(_SYMMETRIC, _WITH_ZEROS), (_WITH_ZEROS, _SYMMETRIC)])
def test_an_array_has_zero_points_where_they_are_there(ways: tuple[Weights, ...]) -> None:
    arrays = (("", INT8, (4, 72)), ("_scale", "bfloat16", (4, 1)))
    without = _found(ways, *arrays)
    assert (_ids(without), without.stored["m.weight"].zero_points) == ([], "")
    with_zeros = _found(ways, *arrays, ("_zero_point", INT8, (4, 1)))
    assert (_ids(with_zeros), with_zeros.stored["m.weight"].zero_points) == ([], "m.weight_zero_point")


def test_zero_points_that_one_layer_lost_are_missed_where_a_symmetric_way_fits_as_well() -> None:
    arrays = {
        f"layers.{layer}.{module}.weight{end}": (dtype, shape)
        for layer in (0, 1)
        for module in ("up", "o")
        for end, dtype, shape in (("", INT8, (4, 72)), ("_scale", "bfloat16", (4, 1)), ("_zero_point", INT8, (4, 1)))
        if end != "_zero_point" or (layer, module) == (0, "up")
    }
    header = {name: TensorInfo(name, shape, dtype, "file") for name, (dtype, shape) in arrays.items()}
    found = recognise(Scheme("compressed-tensors", (_SYMMETRIC, _WITH_ZEROS)), header, lambda _: (4, 3))
    assert [(d.id, d.subject) for d in found.found] == [("MISSING_TENSOR", "layers.1.up.weight_zero_point")]
    assert found.stored["layers.0.o.weight"].zero_points == ""


def test_zero_points_must_be_there_where_no_symmetric_way_fits() -> None:
    groups = Weights(INT8, 8, (1, 24), whole_groups=True)
    found = _found((_WITH_ZEROS, groups), ("", INT8, (4, 72)), ("_scale", "bfloat16", (4, 1)))
    assert _ids(found) == ["MISSING_TENSOR"]


@pytest.mark.parametrize("ways", [(_BLOCKS, _WHOLE), (_WHOLE, _BLOCKS)])
def test_a_block_that_holds_the_whole_matrix_is_one_scale_for_it(ways: tuple[Weights, ...]) -> None:
    found = _found(ways, ("", FLOAT8, (72, 48)), ("_scale", "bfloat16", (1, 1)))
    assert (_ids(found), set(found.stored)) == ([], {"m.weight"})


def test_ways_that_decode_to_other_values_are_refused_where_several_fit() -> None:
    ways = (Weights(FLOAT8, 8, (2, 20)), Weights(FLOAT8, 8, (2, 18)))
    found = _found(ways, ("", FLOAT8, (4, 72)), ("_scale", "bfloat16", (2, 4)))
    assert _ids(found) == ["CONFIG_CONTRADICTS_TENSORS"]


def test_words_that_may_hold_codes_of_4_or_of_8_bits_are_refused() -> None:
    arrays = (("_packed", "int32", (4, 1)), ("_scale", "bfloat16", (4, 1)), ("_shape", "int64", (2,)))
    found = _found((Weights(PACKED, 4, (1, 0)), Weights(PACKED, 8, (1, 0))), *arrays)
    assert _ids(found) == ["CONFIG_CONTRADICTS_TENSORS"]
