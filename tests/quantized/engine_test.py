"""Decoding within the engine: in a fixed memory, and through runs that stop and continue."""

from __future__ import annotations

import errno
import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from converters.engine import execute, grids, journal, planning
from converters.engine.journal import UnitRecord
from converters.quantized import source as source_lib
from tests import checkpoints
from tests.end_to_end.running import converted, recast, restored
from tests.quantized import making
from tests.quantized.making import Arrays, Quantized

_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "vocab_size": 32,
    "hidden_size": 1024,
    "intermediate_size": 7000,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "tie_word_embeddings": False,
}
_MOE = {
    "model_type": "gpt_oss",
    "architectures": ["GptOssForCausalLM"],
    "dtype": "bfloat16",
    "vocab_size": 32,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}


def _random_fp8(tensors: Arrays, generator: np.random.Generator) -> Arrays:
    """Codes in the place of every matrix of a layer, without the plain values, which would take long to make."""
    way = making.fp8_blocks()
    stored: Arrays = {}
    for name, values in tensors.items():
        stored |= way.stored(name, values.shape, generator) if "_proj" in name else {name: values}
    return stored


def _random_mxfp4(generator: np.random.Generator) -> Arrays:
    from tests.families.harness import header_of, layout_of

    way = making.mxfp4()
    stored: Arrays = {}
    for name, shape in header_of(layout_of("gpt_oss", "hf", _MOE)).items():
        if name.endswith(("gate_up_proj", "down_proj")):
            stored |= way.stored(name, shape, generator)
        else:
            stored[name] = generator.normal(size=shape).astype(making.loops.of("bfloat16"))
    return stored


def _large(kind: str, directory: Path) -> tuple[Path, int]:
    """A checkpoint, and the bytes of its largest tensor once it is decoded."""
    generator = np.random.default_rng(1)
    if kind == "fp8":
        stored = _random_fp8(checkpoints.element_coded_llama(_CONFIG, "bfloat16", seed=1), generator)
        config, way, size = _CONFIG, making.fp8_blocks(), 1024 * 7000 * 2
    else:
        stored, config, way = _random_mxfp4(generator), _MOE, making.mxfp4()
        size = 8 * 512 * 2 * 1536 * 2
    return making.write(directory, stored, {**config, "quantization_config": way.config}), size


def _traced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the most memory that Python and NumPy held while units were made, once a run has ended."""
    run = execute.Executor.run
    peaks: list[int] = []

    def traced(self: execute.Executor) -> execute.Outcome:
        tracemalloc.start()
        try:
            return run(self)
        finally:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    monkeypatch.setattr(execute.Executor, "run", traced)
    return peaks


@pytest.mark.parametrize("scan", ["true", "false"])
@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_a_tensor_larger_than_the_budget_is_decoded_in_parts(
    kind: str, scan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, size = _large(kind, tmp_path / "hf")
    budget = 6 << 20
    assert size > 2 * budget
    flags = {"hf_model_path": source, "scan_layers": scan, "progress": "none"}
    converted("hf-to-maxtext", base_output_directory=tmp_path / "first", memory_budget="2GiB", **flags)
    peaks = _traced(monkeypatch)
    converted("hf-to-maxtext", base_output_directory=tmp_path / "out", memory_budget="6MiB", **flags)
    assert 1 << 20 < peaks[0] < budget
    assert checkpoints.differing(restored(tmp_path / "out"), restored(tmp_path / "first")) == []


def test_blocks_are_encoded_in_a_fixed_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, size = _large("fp8", tmp_path / "hf")
    budget = 8 << 20
    converted("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "mt", memory_budget="8MiB")
    peaks = _traced(monkeypatch)
    flags = {"load_parameters_path": tmp_path / "mt", "requantize": "source", "progress": "none"}
    converted("maxtext-to-hf", base_output_directory=tmp_path / "back", memory_budget="8MiB", **flags)
    assert 2 * size > 3 * budget
    assert 1 << 20 < peaks[0] < budget


def test_the_plan_counts_what_decoding_allocates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = _large("fp8", tmp_path / "hf")
    flags = {"hf_model_path": source, "base_output_directory": tmp_path / "out", "plan_only": "true"}
    assert recast("hf-to-maxtext", memory_budget="4MiB", **flags).code == 0
    monkeypatch.setattr(source_lib, "_PIECE", 1 << 22)
    outcome = recast("hf-to-maxtext", memory_budget="4MiB", **flags)
    assert outcome.code == 4
    assert "MEMORY_PLAN" in outcome.text


@pytest.fixture
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts a small model into many units."""
    monkeypatch.setattr(planning, "_CHUNKS_IN_BUDGET", 1 << 14)
    monkeypatch.setattr(planning, "_CHUNK_LIMIT", 4096)
    monkeypatch.setattr(planning, "_SMALLEST_UNIT", 2048)
    monkeypatch.setattr(planning, "_SLAB_LIMIT", 8192)
    monkeypatch.setattr(grids, "_SMALL_ARRAY", 4096)
    monkeypatch.setattr(grids, "_SLAB_LIMIT", 8192)
    monkeypatch.setattr(journal, "_GROUP_BYTES", 8192)
    monkeypatch.setattr(source_lib, "_PIECE", 1000)
    monkeypatch.setattr(source_lib, "_STRIP", 300)


def _tiny(directory: Path, way: Quantized) -> tuple[Path, Arrays]:
    config = {**_CONFIG, "hidden_size": 80, "intermediate_size": 100, "num_hidden_layers": 3}
    stored, plain = making.quantized(
        checkpoints.element_coded_llama(config, "bfloat16", seed=4), lambda name: "_proj" in name, way
    )
    return making.write(directory, stored, {**config, "quantization_config": way.config}), plain


def _failing(monkeypatch: pytest.MonkeyPatch, unit: int) -> Iterator[None]:
    """Makes the n-th unit meet an input/output error."""
    record = execute.Executor._record
    numbers = itertools.count(1)

    def failing(self: execute.Executor, written: UnitRecord) -> None:
        if next(numbers) == unit:
            raise OSError(errno.EIO, "Input/output error")
        record(self, written)

    with monkeypatch.context() as patches:
        patches.setattr(execute.Executor, "_record", failing)
        yield


@pytest.mark.usefixtures("_small_units")
@pytest.mark.parametrize("way", ["fp8", "int4"])
def test_runs_that_stop_and_continue_end_as_if_nothing_had_happened(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantized = {"fp8": making.fp8_blocks((16, 24)), "int4": making.compressed("int4", "group", size=4)}[way]
    source, plain = _tiny(tmp_path / "hf", quantized)
    checkpoint = making.write(
        tmp_path / "plain", plain, {**_CONFIG, "hidden_size": 80, "intermediate_size": 100, "num_hidden_layers": 3}
    )
    flags = {"progress": "none", "save_dtype": "bfloat16"}
    converted("hf-to-maxtext", hf_model_path=checkpoint, base_output_directory=tmp_path / "whole", **flags)
    for unit in (12, 9):
        for _ in _failing(monkeypatch, unit):
            stopped = recast("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "out", **flags)
            assert stopped.code == 5, stopped.text
    outcome = converted("hf-to-maxtext", hf_model_path=source, base_output_directory=tmp_path / "out", **flags)
    assert "continued: " in outcome.text
    assert checkpoints.differing(restored(tmp_path / "out"), restored(tmp_path / "whole")) == []
