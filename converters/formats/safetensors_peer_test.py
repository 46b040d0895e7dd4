"""Files must be byte for byte what the libraries that everyone uses write for the same tensors."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from huggingface_hub import split_torch_state_dict_into_shards

from converters.formats.base import Declared, TensorInfo
from converters.formats.dtypes import numpy_dtype
from converters.formats.regions import whole
from converters.formats.safetensors_header import scan_header
from converters.formats.safetensors_shards import plan_shards
from converters.formats.safetensors_sink import SafetensorsSink
from converters.formats.safetensors_source import SafetensorsSource

TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint64": torch.uint64,
    "uint32": torch.uint32,
    "uint16": torch.uint16,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


def copy(source: SafetensorsSource, directory: Path, order: list[str], max_shard_size: int = 5 * 10**9) -> None:
    sink = SafetensorsSink(directory, max_shard_size=max_shard_size)
    sink.declare([Declared(source.tensors[name], source.tensors[name].shape) for name in order])
    for name in order:
        region = whole(source.tensors[name].shape)
        sink.write(name, region, source.read(name, region))
    sink.commit()


def test_a_file_with_every_element_type_is_what_the_library_writes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = {}
    for index, (name, dtype) in enumerate(TYPES.items()):
        size = torch.empty(0, dtype=dtype).element_size()
        raw = random.integers(0, 2 if name == "bool" else 256, 6 * size, dtype=np.uint8)
        for suffix in ("b", "a.é", 'c"\\\n\x01'):
            tensors[f"{(7 * index) % 15}.{suffix}"] = torch.frombuffer(bytearray(raw), dtype=dtype).reshape(2, 3)
    tensors["scalar"] = torch.tensor(1.5)
    tensors["none"] = torch.empty(0, 4)
    theirs = tmp_path / "theirs.safetensors"
    safetensors.torch.save_file(tensors, theirs, metadata={"format": "pt"})
    source = SafetensorsSource(theirs)
    copy(source, tmp_path, list(reversed(tensors)))
    assert (tmp_path / "model.safetensors").read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("name", TYPES)
def test_the_library_reads_each_element_type_back(tmp_path: Path, name: str) -> None:
    values = np.arange(4).astype(np.float32).astype(numpy_dtype(name))
    sink = SafetensorsSink(tmp_path)
    sink.declare([Declared(TensorInfo("x", (4,), name), (4,))])
    sink.write("x", ((0, 4),), values)
    sink.commit()
    tensor = safetensors.torch.load_file(tmp_path / "model.safetensors")["x"]
    assert tensor.dtype == TYPES[name]
    assert tensor.float().tolist() == values.astype(np.float32).tolist()


@pytest.mark.parametrize("limit", [100, 1000, 3000, 10_000])
def test_shards_are_those_of_the_hub_library(limit: int) -> None:
    random = np.random.default_rng(limit)
    sizes = random.integers(1, 1500, 60).tolist()
    state = {f"t{i:02d}": torch.zeros(size, dtype=torch.uint8) for i, size in enumerate(sizes)}
    theirs = split_torch_state_dict_into_shards(
        state, filename_pattern="model{suffix}.safetensors", max_shard_size=limit
    )
    ours = plan_shards([TensorInfo(name, tuple(t.shape), "uint8") for name, t in state.items()], limit, {})
    assert {shard.file: sorted(shard.entries) for shard in ours} == theirs.filename_to_tensors


@pytest.mark.parametrize("limit", [20_000, 5 * 10**9])
def test_a_model_is_written_as_save_pretrained_writes_it(tmp_path: Path, limit: int) -> None:
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    theirs = tmp_path / "theirs"
    ours = tmp_path / "ours"
    ours.mkdir()
    model.save_pretrained(theirs, max_shard_size=limit)
    copy(SafetensorsSource(theirs), ours, list(model.state_dict()), max_shard_size=limit)
    expected = {path.name: path.read_bytes() for path in theirs.glob("model*")}
    assert len(expected) == (4 if limit == 20_000 else 1)
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == expected


def test_a_header_that_the_library_wrote_has_no_violation(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2, 3), "b": torch.zeros(1, dtype=torch.bool)}, path)
    header, found = scan_header(path, path.name)
    assert found == []
    assert header is not None
    assert header.entries["a"].shape == (2, 3)
