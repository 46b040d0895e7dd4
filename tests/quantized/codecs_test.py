"""Each codec against the reference that defines it, and against plain loops: bit for bit, region by region."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.engine.drivers import SafetensorsReader
from converters.quantized.reader import DecodingReader
from tests.quantized import loops, making
from tests.quantized.making import Quantized, bits, source_of

_NAME = "model.x.weight"
_WAYS: Mapping[str, tuple[Quantized, tuple[int, ...]]] = {
    "fp8-128": (making.fp8_blocks(), (256, 384)),
    "fp8-ragged": (making.fp8_blocks(), (200, 301)),
    "fp8-bfloat16-scales": (making.fp8_blocks((16, 8), "bfloat16"), (40, 37)),
    "fp8-rows-ragged": (making.fp8_blocks((1, 20)), (6, 72)),
    "fp8-whole": (making.fp8_whole(), (13, 9)),
    "float-tensor": (making.compressed("float", "tensor"), (13, 9)),
    "float-channel": (making.compressed("float", "channel"), (13, 8)),
    "float-channel-float32": (making.compressed("float", "channel", scale_dtype="float32"), (13, 8)),
    "float-block": (making.compressed("float", "block", size=(8, 4)), (19, 14)),
    "float-block-rows-ragged": (making.compressed("float", "block", size=(1, 20)), (6, 72)),
    "int-tensor": (making.compressed("int", "tensor"), (13, 9)),
    "int-channel": (making.compressed("int", "channel"), (11, 24)),
    "int-channel-zero-points": (making.compressed("int", "channel", symmetric=False), (11, 24)),
    "int-group": (making.compressed("int", "group", size=8), (11, 24)),
    "int4-group": (making.compressed("int4", "group", size=32), (7, 96)),
    "int4-group-of-ten": (making.compressed("int4", "group", size=10, scale_dtype="float16"), (7, 30)),
    "int4-channel": (making.compressed("int4", "channel"), (7, 21)),
    "mxfp4": (making.mxfp4(), (3, 96, 10)),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
@pytest.mark.parametrize("way", list(_WAYS))
def test_a_codec_decodes_to_what_plain_loops_make_of_the_codes(way: str, dtype: str, tmp_path: Path) -> None:
    quantized, shape = _WAYS[way]
    stored = quantized.stored(_NAME, shape, np.random.default_rng(1))
    source = source_of(tmp_path / "q", stored, quantized.config, dtype)
    expected = quantized.plain(_NAME, stored, dtype)
    read = source.read(_NAME, tuple((0, size) for size in shape))
    assert set(source.tensors) == {_NAME}
    assert (str(read.dtype), read.shape) == (dtype, shape)
    assert bits(read) == bits(expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("way", list(_WAYS))
def test_single_elements_are_decoded_to_the_same_by_other_arithmetic(way: str, dtype: str, tmp_path: Path) -> None:
    quantized, shape = _WAYS[way]
    stored = quantized.stored(_NAME, shape, np.random.default_rng(6))
    source = source_of(tmp_path / "q", stored, quantized.config, dtype)
    files = {name: tmp_path / "q" / info.location for name, info in source.source.tensors.items()}
    reader = DecodingReader(SafetensorsReader(files), source.stored, dtype)
    assert reader.names() == ({_NAME} | {name for name in stored if name.endswith("_shape")})
    corners = np.array(list(itertools.product(*((0, size - 1) for size in shape))))
    points = np.concatenate([corners, np.random.default_rng(7).integers(0, shape, (200, len(shape)))])
    expected = quantized.plain(_NAME, stored, dtype)[tuple(points.T)]
    assert bits(reader.elements(_NAME, points)) == bits(expected)


@pytest.mark.parametrize("way", list(_WAYS))
def test_any_region_is_the_same_part_of_the_whole(way: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    quantized, shape = _WAYS[way]
    stored = quantized.stored(_NAME, shape, np.random.default_rng(2))
    source = source_of(tmp_path_factory.mktemp("region") / "q", stored, quantized.config, "bfloat16")
    expected = quantized.plain(_NAME, stored, "bfloat16")
    ends = st.tuples(*(st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted) for size in shape))

    @settings(max_examples=60, deadline=None)
    @given(ends)
    def check(ends: Any) -> None:
        region = tuple((start, stop) for start, stop in ends)
        part = expected[tuple(slice(start, stop) for start, stop in region)]
        assert bits(source.read(_NAME, region)) == bits(part)
        source.release(_NAME, region)

    check()


def test_a_stack_of_matrices_is_decoded_matrix_by_matrix(tmp_path: Path) -> None:
    way, generator = making.fp8_blocks((16, 8)), np.random.default_rng(9)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    parts = [way.stored(name, (40, 37), generator) for _ in range(3)]
    stacked = {key: np.stack([part[key] for part in parts]) for key in parts[0]}
    source = source_of(tmp_path / "q", stacked, way.config, "bfloat16")
    expected = np.stack([way.plain(name, part, "bfloat16") for part in parts])
    assert bits(source.read(name, ((0, 3), (0, 40), (0, 37)))) == bits(expected)
    assert bits(source.read(name, ((1, 3), (5, 39), (9, 20)))) == bits(expected[1:3, 5:39, 9:20])


def test_large_regions_are_decoded_in_strips_that_end_where_blocks_do(tmp_path: Path) -> None:
    shape = (700, 1100)
    way = making.fp8_blocks()
    stored = way.stored(_NAME, shape, np.random.default_rng(3))
    source = source_of(tmp_path / "q", stored, way.config, "bfloat16")
    expected = way.plain(_NAME, stored, "bfloat16")
    assert bits(source.read(_NAME, ((0, 700), (0, 1100)))) == bits(expected)
    assert bits(source.read(_NAME, ((5, 690), (3, 1050)))) == bits(expected[5:690, 3:1050])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_fp8_blocks_equal_what_transformers_dequantises(dtype: str, tmp_path: Path) -> None:
    import torch
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    shape = (256, 384)
    way = making.fp8_blocks()
    stored = way.stored(_NAME, shape, np.random.default_rng(4))
    codes = torch.from_numpy(stored[_NAME].view(np.uint8)).view(torch.float8_e4m3fn)
    scales = torch.from_numpy(stored[f"{_NAME}_scale_inv"])
    theirs = Fp8Dequantize(None)._dequantize_one(codes, scales, getattr(torch, dtype))
    ours = source_of(tmp_path / "q", stored, way.config, dtype).read(_NAME, ((0, 256), (0, 384)))
    assert bits(ours) == theirs.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float16"])
def test_mxfp4_equals_what_transformers_dequantises_for_every_code_and_every_scale(dtype: str, tmp_path: Path) -> None:
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    scales = np.arange(255, dtype=np.uint8).reshape(1, 255, 1).repeat(16, axis=2)
    codes = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(255, axis=1)
    stored = {"p.down_proj_blocks": codes, "p.down_proj_scales": scales}
    theirs = convert_moe_packed_tensors(torch.from_numpy(codes), torch.from_numpy(scales), dtype=getattr(torch, dtype))
    source = source_of(tmp_path / "q", stored, making.mxfp4().config, dtype)
    ours = source.read("p.down_proj", ((0, 1), (0, 512), (0, 255)))
    assert tuple(theirs.shape) == ours.shape
    assert bits(ours) == theirs.view(torch.uint8).numpy().tobytes()


def test_every_float8_code_is_the_number_that_its_bits_say(tmp_path: Path) -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16).view(ml_dtypes.float8_e4m3fn)
    stored = {_NAME: codes, f"{_NAME}_scale_inv": np.ones((1, 1), np.float32)}
    ours = source_of(tmp_path / "q", stored, making.fp8_blocks().config, "float32").read(_NAME, ((0, 16), (0, 16)))
    expected = loops.float8_values(codes)
    assert np.array_equal(np.isnan(ours), np.isnan(expected))
    assert np.array_equal(np.nan_to_num(ours), np.nan_to_num(expected))
    assert (
        np.array_equal(np.signbit(ours), np.signbit(expected))
        or np.isnan(ours[np.signbit(ours) != np.signbit(expected)]).all()
    )
