"""Quantised checkpoints that contradict themselves: missing and bad scales, shapes, names, unknown methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, completed, refused, triggers, unchanged
from tests.bad_input.running import hf_to_maxtext
from tests.checkpoints import element_coded_llama
from tests.quantized import making
from tests.quantized.loops import Array
from tests.quantized.making import Quantized

Q = "model.layers.1.self_attn.q_proj.weight"
UP = "model.layers.0.mlp.up_proj.weight"
DOWN = "model.layers.2.mlp.down_proj.weight"
EMBED = "model.embed_tokens.weight"

Arrays = dict[str, Array]
Change = Callable[[Arrays], object]


def linear(name: str) -> bool:
    return "_proj" in name


def source(directory: Path, way: Quantized, change: Change = lambda tensors: None, **fields: Any) -> Path:
    """A quantised Llama, damaged; the fields replace those of its quantization_config."""
    config = {**cp.CONFIG, "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    stored, _ = making.quantized(element_coded_llama(cp.CONFIG, "bfloat16", seed=7), linear, way)
    change(stored)
    return making.write(directory, stored, {**config, "quantization_config": {**way.config, **fields}})


BLOCKS = making.fp8_blocks((8, 8))
CHANNEL = making.compressed("float", "channel")
INT4 = making.compressed("int4", "group", size=4)


def scale(value: float, *names: str, dtype: Any = np.float32) -> Change:
    """Puts a value among the scales of some weights."""

    def change(tensors: Arrays) -> None:
        for name in names:
            tensors[name][-1, -1] = np.array(value, dtype)

    return change


def renamed(old: str, new: str) -> Change:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


def test_the_checkpoints_of_this_module_are_good_before_they_are_damaged(tmp_path: Path) -> None:
    for number, way in enumerate((BLOCKS, CHANNEL, INT4)):
        completed(hf_to_maxtext(source(tmp_path / f"hf{number}", way), tmp_path / f"out{number}"))


@pytest.mark.parametrize("value", [0.0, -0.0, np.nan, np.inf, -np.inf])
@triggers("SCALE_INVALID")
def test_scales_that_no_code_can_be_multiplied_by_are_all_found(
    value: float, tmp_path: Path, destination: Path
) -> None:
    names = (f"{Q}_scale_inv", f"{DOWN}_scale_inv")
    made = source(tmp_path / "hf", BLOCKS, scale(value, *names))
    with unchanged(tmp_path):
        run = hf_to_maxtext(made, destination)
    refused(run, *(Fault("SCALE_INVALID", name, str(np.float32(value)), "Scale [") for name in names))


@triggers("SCALE_INVALID")
def test_bfloat16_scales_are_looked_at_too(tmp_path: Path, destination: Path) -> None:
    made = source(tmp_path / "hf", CHANNEL, scale(np.nan, f"{Q}_scale", dtype=ml_dtypes.bfloat16))
    refused(hf_to_maxtext(made, destination), Fault("SCALE_INVALID", f"{Q}_scale", "nan"))


def test_a_plan_alone_reads_no_scales(tmp_path: Path, destination: Path) -> None:
    made = source(tmp_path / "hf", BLOCKS, scale(0.0, f"{Q}_scale_inv"))
    completed(hf_to_maxtext(made, destination, "--plan_only"))


@triggers("MISSING_TENSOR", "TENSOR_SHAPE", "TENSOR_DTYPE", "UNKNOWN_TENSOR", "CONFIG_CONTRADICTS_TENSORS")
def test_everything_that_headers_contradict_is_told_at_once(tmp_path: Path, destination: Path) -> None:
    other = "model.layers.0.self_attn.k_proj.weight"

    def change(tensors: Arrays) -> None:
        del tensors[f"{Q}_scale_inv"]
        del tensors[UP]
        tensors[f"{DOWN}_scale_inv"] = tensors[f"{DOWN}_scale_inv"][:, :-1]
        tensors[f"{other}_scale_inv"] = tensors[f"{other}_scale_inv"].astype(np.int32)
        tensors[f"{EMBED}_scale_inv"] = np.ones((3, 2), np.float32)
        tensors["model.layers.1.mlp.up_proj.weight"] = np.ones((20, 16), np.int8)

    made = source(tmp_path / "hf", BLOCKS, change)
    with unchanged(tmp_path):
        run = hf_to_maxtext(made, destination)
    refused(
        run,
        Fault("MISSING_TENSOR", f"{Q}_scale_inv is missing", f"{Q} cannot be decoded"),
        Fault("MISSING_TENSOR", f"{UP} is missing; {UP}_scale_inv is there"),
        Fault("TENSOR_SHAPE", f"{DOWN}_scale_inv has the shape [2, 2]", "[2, 3]"),
        Fault("TENSOR_DTYPE", f"{other}_scale_inv is of type int32"),
        Fault("UNKNOWN_TENSOR", f"{EMBED}_scale_inv", f"{EMBED} is stored plainly"),
        Fault("CONFIG_CONTRADICTS_TENSORS", "model.layers.1.mlp.up_proj.weight", "int8", "float8_e4m3fn"),
    )
    assert run.steps["decode"] == "Failed"


@triggers("DUPLICATE_TENSOR")
def test_two_arrays_that_claim_one_weight_are_refused(tmp_path: Path, destination: Path) -> None:
    made = source(tmp_path / "hf", INT4, lambda held: held.update({UP: np.ones((20, 16), ml_dtypes.bfloat16)}))
    refused(hf_to_maxtext(made, destination), Fault("DUPLICATE_TENSOR", f"{UP}_packed", UP))


@triggers("MISSING_TENSOR", "TENSOR_SHAPE")
def test_packed_codes_need_a_shape_that_fits_them(tmp_path: Path, destination: Path) -> None:
    def change(tensors: Arrays) -> None:
        del tensors[f"{Q}_shape"]
        tensors[f"{UP}_shape"] = np.array([20, 99], np.int64)
        tensors[f"{DOWN}_shape"] = np.array([16, 20, 1], np.int64)

    made = source(tmp_path / "hf", INT4, change)
    refused(
        hf_to_maxtext(made, destination),
        Fault("MISSING_TENSOR", f"{Q}_shape is missing"),
        Fault("TENSOR_SHAPE", f"{UP}_shape is [20, 99]"),
        Fault("TENSOR_SHAPE", f"{DOWN}_shape is of shape [3]"),
    )


@triggers("MISSING_TENSOR", "TENSOR_SHAPE")
def test_zero_points_must_be_there_and_fit(tmp_path: Path, destination: Path) -> None:
    def change(tensors: Arrays) -> None:
        del tensors[f"{Q}_zero_point"]
        tensors[f"{UP}_zero_point"] = tensors[f"{UP}_zero_point"][:-1]

    made = source(tmp_path / "hf", making.compressed("int", "channel", symmetric=False), change)
    refused(
        hf_to_maxtext(made, destination),
        Fault("MISSING_TENSOR", f"{Q}_zero_point is missing"),
        Fault("TENSOR_SHAPE", f"{UP}_zero_point has the shape [19, 1]"),
    )


def test_codes_of_another_model_are_found_by_the_decoded_shapes(tmp_path: Path, destination: Path) -> None:
    def change(tensors: Arrays) -> None:
        tensors[Q] = np.ascontiguousarray(tensors[Q][:8])
        tensors[f"{Q}_scale_inv"] = tensors[f"{Q}_scale_inv"][:1]

    made = source(tmp_path / "hf", BLOCKS, change)
    refused(hf_to_maxtext(made, destination), Fault("TENSOR_SHAPE", Q, "[8, 16]", "[40, 16]"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"quant_method": "awq"}, ("quant_method is awq", "compressed-tensors, fp8, mxfp4")),
        ({"quant_method": None}, ("quant_method is null", "compressed-tensors, fp8, mxfp4")),
        ({"fmt": "e5m2"}, ("fmt is e5m2", "e4m3")),
        ({"weight_block_size": [128]}, ("weight_block_size is [128]", "two positive integers")),
        ({"weight_block_size": [0, 128]}, ("weight_block_size", "two positive integers")),
        ({"scale_fmt": "int8"}, ("scale_fmt is int8", "float, ue8m0")),
        ({"rotation": "hadamard"}, ("rotation is hadamard", "what it means is not known")),
        ({"modules_to_not_convert": "lm_head"}, ("modules_to_not_convert", "a list of texts")),
    ],
)
@triggers("CONFIG_FIELD_INVALID")
def test_a_config_that_announces_other_codes_is_refused_with_what_is_known(
    fields: dict[str, Any], says: tuple[str, ...], tmp_path: Path, destination: Path
) -> None:
    made = source(tmp_path / "hf", BLOCKS, **fields)
    with unchanged(tmp_path):
        run = hf_to_maxtext(made, destination)
    refused(run, Fault("CONFIG_FIELD_INVALID", *says))
    assert run.steps["validate_config"] == "Failed"


def test_all_that_is_wrong_with_a_config_of_groups_is_told_at_once(tmp_path: Path, destination: Path) -> None:
    made = source(tmp_path / "hf", INT4, sparsity_config={"format": "sparse-24-bitmask"}, transform_config={"a": 1})
    config = json.loads((made / "config.json").read_text("utf-8"))
    group = config["quantization_config"]["config_groups"]["group_0"]
    group["weights"] |= {"num_bits": 3, "actorder": "group", "dynamic": True}
    (made / "config.json").write_text(json.dumps(config), "utf-8")
    refused(
        hf_to_maxtext(made, destination),
        Fault("CONFIG_FIELD_INVALID", "sparsity_config.format is sparse-24-bitmask", "dense"),
        Fault("CONFIG_FIELD_INVALID", "transform_config"),
        Fault("CONFIG_FIELD_INVALID", "group_0.weights.num_bits is 3", "4, 8"),
        Fault("CONFIG_FIELD_INVALID", "group_0.weights.actorder is group"),
        Fault("CONFIG_FIELD_INVALID", "group_0.weights.dynamic is true"),
    )
