"""prepare-ckpt for a platform that stores weights as float8 codes with a scale for each tensor, on tiny models."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from converters.engine import execute, journal, planning
from converters.engine.journal import UnitRecord
from converters.formats.safetensors_source import SafetensorsSource
from converters.quantized import tensor_encoding
from converters.quantized.encoding import Loss
from converters.quantized.magnitudes import Magnitudes
from converters.quantized.sink import EncodingSink
from mappings.serving import text
from recast_proto import model_manifest_pb2
from tests import checkpoints, serving_checkpoints
from tests.bad_input.running import environment
from tests.end_to_end.running import converted, recast
from tests.families.harness import Config, to_maxtext
from tests.oracles.arrays import Variant
from tests.quantized import loops, making, preparing
from tests.quantized.cases import CASES, Case, made
from tests.quantized.loops import Array
from tests.quantized.making import Arrays

_MOE: Config = {
    "model_type": "qwen3_moe",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}
_MATRICES = tuple(f"{name}_proj.weight" for name in ("q", "k", "v", "o", "gate", "up", "down"))
_STACKS = ("experts.gate_up_proj", "experts.down_proj")
_SMALL = "--memory_budget=16MiB"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A checkpoint, its plain values, the platform's catalogue, what was made of it, and what was said."""

    folder: str
    source: Path
    tensors: Arrays
    catalogue: Path
    output: Path
    text: str


def stored_in(directory: Path) -> Arrays:
    return making.read(SafetensorsSource(directory))


def _of(folder: str, source: Path, tensors: Arrays, directory: Path) -> Prepared:
    catalogue = preparing.catalogue(directory / "catalog.textproto", source, folder)
    outcome = preparing.prepared(catalogue, source, directory / "out")
    return Prepared(folder, source, tensors, catalogue, directory / "out", outcome.text)


def _quantized(case: Case, directory: Path) -> Prepared:
    pair = made(case, directory)
    preparing.with_tokenizer(pair.quantized)
    return _of(case.folder, pair.quantized, pair.tensors, directory)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    directory = tmp_path_factory.mktemp("llama")
    source = preparing.usual(CASES["llama-float-tensor"].config, directory / "in")
    return _of("llama", source, stored_in(source), directory)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    directory = tmp_path_factory.mktemp("experts")
    source = preparing.usual(_MOE, directory / "in")
    return _of("qwen3_moe", source, stored_in(source), directory)


@pytest.fixture(scope="module")
def gpt_oss(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return _quantized(CASES["gpt-oss-mxfp4"], tmp_path_factory.mktemp("gpt_oss"))


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return _quantized(CASES["deepseek-fp8"], tmp_path_factory.mktemp("deepseek"))


@pytest.fixture(params=["llama", "experts", "gpt_oss", "deepseek"])
def each(request: pytest.FixtureRequest) -> Prepared:
    found: Prepared = request.getfixturevalue(request.param)
    return found


def pytorchs(values: Array) -> tuple[Array, Array]:
    """Codes and the scale of values, by PyTorch."""
    import torch

    wide = torch.from_numpy(np.ascontiguousarray(values.astype(np.float32)))
    scale = wide.abs().max() / torch.tensor(448.0)
    scale = torch.where(scale == 0, torch.tensor(torch.finfo(torch.float32).eps), scale)
    codes = (wide / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes.view(torch.uint8).numpy(), scale.reshape(1).numpy()


def encoded_names(tensors: Arrays) -> set[str]:
    """What gets codes in the tiny models: projections and experts, but not the projection of DeepSeek's own head."""
    latent = ("q_a_proj.weight", "q_b_proj.weight", "kv_a_proj_with_mqa.weight", "kv_b_proj.weight")
    return {name for name in tensors if name.endswith((*_MATRICES, *latent, *_STACKS))}


def decoded(stored: Arrays) -> Arrays:
    """The plain values of an output, by loops."""
    return {
        name: loops.float8_values(values) * stored[f"{name}_scale"][0] if f"{name}_scale" in stored else values
        for name, values in stored.items()
        if not (name.endswith("_scale") and name.removesuffix("_scale") in stored)
    }


def test_codes_and_scales_are_those_of_pytorch_and_all_else_stays_as_it_is(each: Prepared) -> None:
    stored, names = stored_in(each.output), encoded_names(each.tensors)
    assert len(names) > 15
    assert set(stored) == {*each.tensors, *(f"{name}_scale" for name in names)}
    for name in names:
        codes, scale = pytorchs(each.tensors[name])
        assert stored[name].dtype == ml_dtypes.float8_e4m3fn
        assert stored[name].shape == codes.shape
        assert stored[f"{name}_scale"].tobytes() == scale.tobytes(), name
        assert stored[name].tobytes() == codes.tobytes(), name
    plain = {name: values for name, values in each.tensors.items() if name not in names}
    assert checkpoints.differing({name: stored[name] for name in plain}, plain) == []


def _config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text("utf-8"))
    return config


def test_the_config_announces_what_compressed_tensors_calls_it(each: Prepared) -> None:
    before, after = _config(each.source), _config(each.output)
    said = after.pop("quantization_config")
    before.pop("quantization_config", None)
    assert {**before, **after} == after
    assert (said["quant_method"], said["format"]) == ("compressed-tensors", "float-quantized")
    groups = [group["targets"] for group in said["config_groups"].values()]
    assert groups == [["Linear"], *([[r"re:.*\.experts$"]] if each.folder == "gpt_oss" else [])]
    for group in said["config_groups"].values():
        weights = group["weights"]
        wanted = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
        assert {key: weights[key] for key in wanted} == wanted
        assert group["input_activations"] is None
    gate = {"llama": [], "gpt_oss": [r"re:.*\.router$"]}.get(each.folder, [r"re:.*\.gate$"])
    assert said["ignore"] == ["lm_head", *gate]


def test_the_report_says_of_each_tensor_what_became_of_it(each: Prepared) -> None:
    report = json.loads((each.output / "report.json").read_text("utf-8"))
    names = encoded_names(each.tensors)
    said = {tensor["name"]: (tensor["dtype"], tensor["exactness"]) for tensor in report["tensor"]}
    assert {name for name, kinds in said.items() if kinds == ("float8_e4m3fn", "LOSSY")} == names
    assert not any("LOSSY" in kinds or "float8" in kinds[0] for name, kinds in said.items() if name not in names)
    assert f"{len(names)} arrays encoded as float8_e4m3fn, one scale for a tensor" in each.text
    assert f"{len(names)} LOSSY" in each.text


def test_recast_reads_back_what_codes_and_scales_stand_for(each: Prepared, tmp_path: Path) -> None:
    values = decoded(stored_in(each.output))
    plain = {
        name: values[name].astype(each.tensors[name].dtype) if name in encoded_names(values) else values[name]
        for name in values
    }
    config = {key: value for key, value in _config(each.output).items() if key != "quantization_config"}
    making.write(tmp_path / "plain", plain, config)
    for name in ("out", "plain"):
        to_maxtext(each.output if name == "out" else tmp_path / name, tmp_path / f"{name}-mt", Variant())
    assert recast("diff", str(tmp_path / "out-mt"), str(tmp_path / "plain-mt")).code == 0


def test_verify_proves_the_codes_by_the_source(each: Prepared) -> None:
    for level in ("sample", "full"):
        outcome = recast("verify", str(each.source), str(each.output), level=level)
        assert outcome.code == 0, outcome.text


def test_verify_finds_a_code_that_is_not_the_nearest(gpt_oss: Prepared, tmp_path: Path) -> None:
    held = stored_in(gpt_oss.output)
    name = "model.layers.1.mlp.experts.down_proj"
    held[name].view(np.uint8)[2, 3, 4] ^= 1
    other = making.write(tmp_path / "other", held, _config(gpt_oss.output))
    outcome = recast("verify", str(gpt_oss.source), str(other), level="full")
    assert outcome.code == 3
    assert name in outcome.text
    assert "[2, 3, 4]" in outcome.text


@pytest.mark.parametrize("ending", ["", "_scale"])
def test_the_manifest_names_a_damaged_tensor(llama: Prepared, tmp_path: Path, ending: str) -> None:
    converted("verify", manifest=llama.output)
    other = shutil.copytree(llama.output, tmp_path / "other")
    name = f"model.layers.2.mlp.up_proj.weight{ending}"
    making.damage(other / SafetensorsSource(other).tensors[name].location, name)
    outcome = recast("verify", manifest=other)
    assert outcome.code == 2
    assert f"{name} does not hold" in outcome.text


@pytest.mark.parametrize("factor", [0.5, 1.0000002, 2.0])
def test_the_step_verify_finds_a_scale_that_is_not_the_tensors(
    llama: Prepared, tmp_path: Path, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "converters.quantized.encoders.scale_of",
        lambda size: np.float32(tensor_encoding.scale_of(size) * np.float32(factor)),
    )
    words = preparing.words(llama.catalogue, llama.source, tmp_path / "out")
    outcome = recast("prepare-ckpt", *words)
    assert outcome.code == 3
    assert "The scale of model.layers.0.mlp.down_proj.weight is" in outcome.text
    assert not (tmp_path / "out").exists()


def test_the_step_verify_finds_codes_that_are_not_the_nearest(
    llama: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(values: Array, scale: np.float32) -> tuple[Array, Loss]:
        codes, loss = tensor_encoding.float8_tensor(values, scale)
        return (codes.view(np.uint8) ^ np.uint8(1)).view(codes.dtype), loss

    monkeypatch.setattr("converters.quantized.encoders.float8_tensor", wrong)
    outcome = recast("prepare-ckpt", *preparing.words(llama.catalogue, llama.source, tmp_path / "out"))
    assert outcome.code == 3
    assert "Element (0, 0) of model.layers.0.mlp.down_proj.weight is" in outcome.text


def test_what_was_prepared_is_taken_like_what_it_was_made_of(each: Prepared, tmp_path: Path) -> None:
    preparing.prepared(each.catalogue, each.output, tmp_path / "again")
    first, second = stored_in(each.output), stored_in(tmp_path / "again")
    plain = set(first) - {f"{name}{end}" for name in encoded_names(first) for end in ("", "_scale")}
    assert set(first) == set(second)
    assert checkpoints.differing({n: second[n] for n in plain}, {n: first[n] for n in plain}) == []
    for name in encoded_names(first):
        read = decoded({name: first[name], f"{name}_scale": first[f"{name}_scale"]})[name]
        codes, scale = pytorchs(read.astype(each.tensors[name].dtype))
        assert second[f"{name}_scale"].tobytes() == scale.tobytes()
        assert second[name].tobytes() == codes.tobytes()


def test_an_output_is_no_larger_than_its_codes_scales_and_plain_tensors(llama: Prepared) -> None:
    names = encoded_names(llama.tensors)
    sizes = [values.size + 4 if name in names else values.nbytes for name, values in llama.tensors.items()]
    files = list(llama.output.glob("*.safetensors"))
    source = SafetensorsSource(llama.output)
    assert sum(sizes) == sum(np.prod(info.shape, dtype=int) * _WIDTHS[info.dtype] for info in source.tensors.values())
    assert sum(file.stat().st_size for file in files) < sum(sizes) + 20_000


_WIDTHS = {"float8_e4m3fn": 1, "bfloat16": 2, "float32": 4}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_values_of_another_dtype_are_rounded_once(dtype: str, tmp_path: Path) -> None:
    source = preparing.usual(CASES["llama-float-tensor"].config, tmp_path / "in", dtype)
    catalogue = preparing.catalogue(tmp_path / "catalog.textproto", source, "llama", dtype="BF16")
    preparing.prepared(catalogue, source, tmp_path / "out")
    before, after = stored_in(source), stored_in(tmp_path / "out")
    for name, values in before.items():
        if name in encoded_names(before):
            codes, scale = pytorchs(values)
            assert after[f"{name}_scale"].tobytes() == scale.tobytes()
            assert after[name].tobytes() == codes.tobytes()
        else:
            assert after[name].tobytes() == values.astype(ml_dtypes.bfloat16).tobytes()
    assert _config(tmp_path / "out")["dtype"] == "bfloat16"


def test_files_of_torch_are_encoded_alike(llama: Prepared, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    source = making.write(tmp_path / "in", {"unused": np.zeros(1, np.float32)}, _config(llama.source))
    for file in source.glob("*.safetensors*"):
        file.unlink()
    tensors: dict[str, Any] = {}
    for file in llama.source.glob("*.safetensors"):
        tensors |= load_file(file)
    torch.save(tensors, source / "pytorch_model.bin")
    preparing.with_tokenizer(source)
    preparing.prepared(llama.catalogue, source, tmp_path / "out")
    assert checkpoints.differing(stored_in(tmp_path / "out"), stored_in(llama.output)) == []


def test_a_head_that_is_written_out_stays_plain(tmp_path: Path) -> None:
    config = {**CASES["llama-float-tensor"].config, "tie_word_embeddings": True}
    source = preparing.usual(config, tmp_path / "in")
    untie = model_manifest_pb2.UNTIE
    catalogue = preparing.catalogue(tmp_path / "catalog.textproto", source, "llama", tied_embeddings=untie)
    preparing.prepared(catalogue, source, tmp_path / "out")
    after = stored_in(tmp_path / "out")
    assert after["lm_head.weight"].tobytes() == stored_in(source)["model.embed_tokens.weight"].tobytes()
    assert _config(tmp_path / "out")["quantization_config"]["ignore"] == ["lm_head"]


def _changed(llama: Prepared, directory: Path, change: Callable[[Arrays], None]) -> Path:
    """A copy of a checkpoint with other values."""
    tensors = {name: values.copy() for name, values in llama.tensors.items()}
    change(tensors)
    return preparing.with_tokenizer(making.write(directory, tensors, _config(llama.source)))


_CHANGED = "model.layers.1.self_attn.o_proj.weight"


def test_a_tensor_of_zeros_has_codes_of_zero_and_a_scale_that_divides(llama: Prepared, tmp_path: Path) -> None:
    def zeros(tensors: Arrays) -> None:
        tensors[_CHANGED][...] = 0

    source = _changed(llama, tmp_path / "in", zeros)
    preparing.prepared(llama.catalogue, source, tmp_path / "out")
    after = stored_in(tmp_path / "out")
    assert not after[_CHANGED].view(np.uint8).any()
    assert after[f"{_CHANGED}_scale"].tolist() == [2.0**-23]


@pytest.mark.parametrize("budget", [(), (_SMALL,)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_and_nothing_is_left(
    llama: Prepared, tmp_path: Path, bad: float, budget: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_SLAB_LIMIT", 512)

    def spoiled(tensors: Arrays) -> None:
        tensors[_CHANGED][7, 3] = bad

    source = _changed(llama, tmp_path / "in", spoiled)
    outcome = recast("prepare-ckpt", *preparing.words(llama.catalogue, source, tmp_path / "out"), *budget)
    assert outcome.code == 2
    assert f"{_CHANGED} holds NaN or infinite values" in outcome.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts, and a journal that is written often: with a small budget each array is read twice."""
    monkeypatch.setattr(planning, "_SMALLEST_UNIT", 512)
    monkeypatch.setattr(planning, "_SLAB_LIMIT", 512)
    monkeypatch.setattr(journal, "_GROUP_BYTES", 4096)


@pytest.mark.usefixtures("in_parts")
def test_tensors_for_which_there_is_no_room_are_read_twice_and_become_the_same(each: Prepared, tmp_path: Path) -> None:
    outcome = preparing.prepared(each.catalogue, each.source, tmp_path / "out", _SMALL)
    assert "of them are read twice" in outcome.text
    assert "read twice" not in each.text
    assert checkpoints.differing(stored_in(tmp_path / "out"), stored_in(each.output)) == []
    converted("verify", manifest=tmp_path / "out")


def test_a_tensor_larger_than_the_budget_takes_no_more_memory_than_that(tmp_path: Path) -> None:
    sizes = {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 1}
    config = {**serving_checkpoints.CONFIG, **sizes}
    some = np.random.default_rng(1).standard_normal(1 << 20).astype(ml_dtypes.bfloat16)
    tensors = {name: np.resize(some, shape) for name, shape in checkpoints.llama_shapes(config).items()}
    large = "model.layers.0.mlp.up_proj.weight"
    tensors[large][9000, 17] = -37.0
    source = preparing.with_tokenizer(making.write(tmp_path / "in", tensors, config))
    catalogue = preparing.catalogue(tmp_path / "catalog.textproto", source, "llama")
    words = ["prepare-ckpt", *preparing.words(catalogue, source, tmp_path / "out"), _SMALL]
    # In a process of its own, whose memory is that of the run alone.
    command = [sys.executable, "-m", "container.entrypoint", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert int(report["figures"]["peak_anonymous_bytes"]) < tensors[large].nbytes
    after = stored_in(tmp_path / "out")
    codes, scale = pytorchs(tensors[large])
    assert after[f"{large}_scale"].tobytes() == scale.tobytes()
    assert after[large].tobytes() == codes.tobytes()


@pytest.mark.usefixtures("in_parts")
def test_a_run_that_stops_in_either_reading_is_continued(
    llama: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*preparing.words(llama.catalogue, llama.source, tmp_path / "out"), _SMALL, "--progress=none"]
    for reading, unit in ((Magnitudes, 5), (Magnitudes, 20), (EncodingSink, 10), (EncodingSink, 30)):
        record = execute.Executor._record
        numbers = itertools.count(1)

        def failing(self: execute.Executor, written: UnitRecord) -> None:
            if isinstance(self._sink, reading) and next(numbers) == unit:  # noqa: B023
                raise OSError(errno.EIO, "Input/output error")
            record(self, written)  # noqa: B023

        with monkeypatch.context() as patches:
            patches.setattr(execute.Executor, "_record", failing)
            assert recast("prepare-ckpt", *words).code == 5
    outcome = converted("prepare-ckpt", *words)
    assert "continued: " in outcome.text
    assert checkpoints.differing(stored_in(tmp_path / "out"), stored_in(llama.output)) == []
    errors = [
        [line for line in said.splitlines() if "largest relative error" in line] for said in (outcome.text, llama.text)
    ]
    assert errors[0] == errors[1] != []
    converted("verify", manifest=tmp_path / "out")


def test_a_dry_run_finds_the_form_acceptable_and_writes_nothing(llama: Prepared, tmp_path: Path) -> None:
    words = preparing.words(llama.catalogue, llama.source, tmp_path / "out")
    converted("prepare-ckpt", *words, "--dry_run", "--explain")
    assert not (tmp_path / "out").exists()


def test_a_form_of_a_newer_catalogue_is_refused(llama: Prepared, tmp_path: Path) -> None:
    found = text.parse(llama.catalogue.read_text("utf-8"))
    found.model[0].legalising.MergeFromString(b"\x18\x07")
    assert int(found.model[0].legalising.weights_form) == 7
    other = tmp_path / "other.textproto"
    other.write_text(text.dump(text.sealed(found)), "utf-8")
    outcome = recast("prepare-ckpt", *preparing.words(other, llama.source, tmp_path / "out"))
    assert outcome.code == 2
    assert "NOT_SUPPORTED_YET" in outcome.text


_GROUPS: Mapping[str, int] = {"llama": 1, "gpt_oss": 2}


@pytest.mark.parametrize("name", sorted(_GROUPS))
def test_transformers_reads_the_config(name: str, request: pytest.FixtureRequest) -> None:
    import transformers

    prepared: Prepared = request.getfixturevalue(name)
    config = transformers.AutoConfig.from_pretrained(prepared.output)
    assert len(config.quantization_config["config_groups"]) == _GROUPS[name]
