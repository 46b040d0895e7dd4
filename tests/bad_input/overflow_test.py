"""Finite values that become infinite on the way, since a dtype is too narrow: each array is named, none is hidden."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.engine import verify
from tests.bad_input import checkpoints as cp
from tests.bad_input.judging import Fault, completed, triggers
from tests.bad_input.running import Run, hf_to_maxtext, maxtext_to_hf, recast
from tests.checkpoints import element_coded_llama, read_safetensors, write_safetensors
from tests.quantized import making
from tests.quantized.loops import Array

Q = "model.layers.1.self_attn.q_proj.weight"
UP = "model.layers.0.mlp.up_proj.weight"
GATE = "model.layers.2.mlp.gate_proj.weight"
DOWN = "model.layers.1.mlp.down_proj.weight"
NORM = "model.norm.weight"
HEAD = "lm_head.weight"


def llama(directory: Path, **edges: float) -> Path:
    """A Llama in float32 of small values, but for one element in each of the tensors that are named."""
    generator = np.random.default_rng(5)
    tensors = {
        name: np.asarray(generator.standard_normal(values.shape), np.float32)
        for name, values in element_coded_llama(cp.CONFIG, "float32", seed=7).items()
    }
    for name, value in edges.items():
        tensors[globals()[name]].flat[3] = value
    return write_safetensors(directory, tensors, cp.CONFIG)


def overflowing(source: Path, dtype: Any) -> set[str]:
    """The tensors of which a finite element is infinite once it is cast, by one cast after the other."""
    with np.errstate(over="ignore"):
        return {
            name
            for name, values in read_safetensors(source).items()
            if any(np.isfinite(value) and np.isinf(value.astype(dtype)) for value in values.reshape(-1))
        }


def faults(names: set[str], *says: str) -> list[Fault]:
    return [Fault("TENSOR_OVERFLOWED", name, *says) for name in names]


def infinite(directory: Path) -> set[str]:
    """The tensors of a Hugging Face checkpoint that hold infinities."""
    return {name for name, values in read_safetensors(directory).items() if np.isinf(values.astype(np.float32)).any()}


@pytest.mark.parametrize("scan", ["true", "false"])
@triggers("TENSOR_OVERFLOWED")
def test_each_tensor_that_overflows_is_named_and_the_suggestion_cures_it(
    scan: str, tmp_path: Path, destination: Path
) -> None:
    # 65519.996 rounds to float16's largest value, 65520 to infinity.
    source = llama(tmp_path / "hf", UP=65519.996, GATE=-65520.0, NORM=1e6, Q=70000.0)
    names = overflowing(source, np.float16)
    assert names == {GATE, NORM, Q}
    flags = ("--require_exact=false", f"--scan_layers={scan}")
    run = hf_to_maxtext(source, destination, "--save_dtype=float16", *flags)
    completed(run, *faults(names, "the largest value of float16 is 65504"))
    largest = {entry.subject: entry.reason for entry in run.warnings}
    assert "the largest magnitude is 65520;" in largest[GATE]
    assert "the largest magnitude is 1000000;" in largest[NORM]
    assert {entry.suggestion.split(",")[0] for entry in run.warnings} == {"Convert again with --save_dtype=bfloat16"}
    completed(hf_to_maxtext(source, destination.with_name("cured"), "--save_dtype=bfloat16", *flags))
    tensors = json.loads((destination / "report.json").read_text())["tensor"]
    lossy = {tensor["name"] for tensor in tensors if tensor["exactness"] == "LOSSY"}
    assert {name.rpartition("decoder.")[2] for name in lossy} == (
        {"decoder_norm.scale", "layers.mlp.wi_0.kernel", "layers.self_attention.query.kernel"}
        if scan == "true"
        else {"decoder_norm.scale", "layers_2.mlp.wi_0.kernel", "layers_1.self_attention.query.kernel"}
    )


@triggers("TENSOR_OVERFLOWED")
def test_bfloat16_may_be_too_narrow_for_float32(tmp_path: Path, destination: Path) -> None:
    source = llama(tmp_path / "hf", HEAD=3.4e38, NORM=-3.3895e38)
    names = overflowing(source, ml_dtypes.bfloat16)
    assert names == {HEAD}
    run = hf_to_maxtext(source, destination, "--save_dtype=bfloat16")
    completed(run, *faults(names, "3.4e+38", "the largest value of bfloat16 is 3.3895314e+38"))
    assert run.warnings[0].suggestion == "Convert again with --save_dtype=float32, which holds these values."
    # The conversion is a right one, and its output of no more use for that.
    completed(recast("verify", source, destination, "--level=full"), *faults(names, "3.4e+38"))
    completed(hf_to_maxtext(source, destination.with_name("cured"), "--save_dtype=float32"))


def _to_hf(source: Path, out: Path, dtype: str) -> Run:
    return maxtext_to_hf(source, out, f"--weight_dtype={dtype}")


def _to_maxtext(source: Path, out: Path, dtype: str) -> Run:
    paths = (f"--load_parameters_path={source}", f"--base_output_directory={out}")
    return recast("maxtext-to-maxtext", *paths, f"--save_dtype={dtype}")


def _convert(source: Path, out: Path, dtype: str) -> Run:
    return recast("convert", source, out, "--to=hf", f"--dtype={dtype}")


@pytest.mark.parametrize(("run", "flag"), [(_to_hf, "weight_dtype"), (_to_maxtext, "save_dtype"), (_convert, "dtype")])
@triggers("TENSOR_OVERFLOWED")
def test_every_conversion_from_maxtext_says_so_with_its_own_flag(
    run: Callable[[Path, Path, str], Run], flag: str, tmp_path: Path, destination: Path
) -> None:
    # Of the query the stored values, 0.3 times those of the original, fit float16: the constant makes them too large.
    source = llama(tmp_path / "hf", UP=1e5, Q=1e5)
    there = tmp_path / "maxtext"
    completed(hf_to_maxtext(source, there, "--save_dtype=float32"))
    found = run(there, destination, "float16")
    names = {"wi_1"} if flag == "save_dtype" else {"wi_1", "query"}
    assert sorted(entry.id for entry in found.warnings) == ["TENSOR_OVERFLOWED"] * len(names), found.summary
    completed(found, *faults(names, "the largest value of float16 is 65504"))
    assert {entry.suggestion.split(",")[0] for entry in found.warnings} == {f"Convert again with --{flag}=bfloat16"}
    if flag != "save_dtype":
        assert infinite(destination) == {UP, Q}
        assert all(any(name in entry.reason for entry in found.warnings) for name in (UP, Q))
    completed(run(there, destination.with_name("cured"), "bfloat16"))


@triggers("TENSOR_OVERFLOWED", "TENSOR_NOT_FINITE")
def test_a_source_that_is_not_finite_may_overflow_besides(tmp_path: Path, destination: Path) -> None:
    source = llama(tmp_path / "hf", UP=1e6, NORM=np.inf)
    tensors = read_safetensors(source)
    tensors[UP].flat[9] = -np.inf
    write_safetensors(source, tensors, cp.CONFIG)
    run = hf_to_maxtext(source, destination, "--save_dtype=float16")
    names = (Fault("TENSOR_NOT_FINITE", UP), Fault("TENSOR_NOT_FINITE", NORM))
    completed(run, Fault("TENSOR_OVERFLOWED", UP, "the largest magnitude is 1000000;"), *names)


@triggers("TENSOR_OVERFLOWED")
def test_a_run_that_goes_on_knows_what_overflowed_before(
    tmp_path: Path, destination: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = llama(tmp_path / "hf", NORM=1e6)

    def full(*_: object, **__: object) -> object:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(verify, "sample", full)
        stopped = hf_to_maxtext(source, destination, "--save_dtype=float16")
    assert stopped.code == 5, stopped.summary
    again = hf_to_maxtext(source, destination, "--save_dtype=float16")
    assert "units were already written" in again.output
    completed(again, Fault("TENSOR_OVERFLOWED", NORM, "1000000"))


CHANNEL = making.compressed("float", "channel", scale_dtype="float32")


def quantised(directory: Path, change: Callable[[dict[str, Array]], object]) -> dict[str, Array]:
    """A Llama in float8 whose scales are small, but for what a change does; returns what is stored."""
    stored, _ = making.quantized(element_coded_llama(cp.CONFIG, "bfloat16", seed=7), lambda n: "_proj" in n, CHANNEL)
    for name, values in stored.items():
        stored[name] = np.full_like(values, 0.01) if name.endswith("_scale") else values.copy()
        if values.dtype == ml_dtypes.bfloat16:
            stored[name] = np.full_like(values, 0.5)
    change(stored)
    config: Mapping[str, Any] = {**cp.CONFIG, "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16"}
    making.write(directory, stored, {**config, "quantization_config": dict(CHANNEL.config)})
    return stored


@triggers("TENSOR_OVERFLOWED", "TENSOR_NOT_FINITE")
def test_decoding_that_overflows_is_no_fault_of_the_source(tmp_path: Path, destination: Path) -> None:
    def change(tensors: dict[str, Array]) -> None:
        tensors[f"{UP}_scale"][2] = 1e6
        tensors[f"{GATE}_scale"][1] = 1e6
        for name in (GATE, DOWN):
            # The code of NaN.
            tensors[name].view(np.uint8)[0, 0] = 0x7F

    source = tmp_path / "hf"
    codes = quantised(source, change)[UP].astype(np.float32)[2]
    largest = f"{np.nanmax(np.abs(codes)) * np.float32(1e6):.8g}"
    not_finite = [Fault("TENSOR_NOT_FINITE", name) for name in (GATE, DOWN)]
    run = hf_to_maxtext(source, destination, "--save_dtype=float16")
    said = (f"the largest magnitude is {largest};", "the largest value of float16 is 65504")
    completed(run, Fault("TENSOR_OVERFLOWED", UP, *said), Fault("TENSOR_OVERFLOWED", GATE), *not_finite)
    cured = [entry.suggestion for entry in run.warnings if entry.id == "TENSOR_OVERFLOWED"]
    assert set(cured) == {"Convert again with --save_dtype=bfloat16, which holds these values."}
    completed(hf_to_maxtext(source, destination.with_name("cured"), "--save_dtype=bfloat16"), *not_finite)
