"""A tiny good checkpoint, and the ways in which its files are damaged."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.checkpoints import element_coded_llama, write_safetensors

Edit = Callable[[Path], object]
Change = Callable[[dict[str, Any]], object]

# head_dim ** -0.5 is inexact, so that MaxText's query kernel is stored in float32; no two sizes are equal.
CONFIG: Mapping[str, Any] = {
    "model_type": "llama",
    "vocab_size": 24,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
TENSORS = 30
SHARDS = 4
INDEX = "model.safetensors.index.json"


def shard(number: int) -> str:
    """The name of a file of the sharded checkpoint."""
    return f"model-{number:05d}-of-{SHARDS:05d}.safetensors"


def write(directory: Path, dtype: str = "bfloat16", **fields: object) -> Path:
    """A good checkpoint in one file; the fields replace those of its config."""
    config = {**CONFIG, **fields}
    return write_safetensors(directory, element_coded_llama(config, dtype, seed=7), config)


def write_sharded(directory: Path) -> Path:
    """A good checkpoint in several files with an index."""
    write_safetensors(directory, element_coded_llama(CONFIG, "bfloat16", seed=7), CONFIG, shard_bytes=6000)
    assert len(list(directory.glob("*.safetensors"))) == SHARDS
    return directory


def together(*edits: Edit) -> Edit:
    """Several kinds of damage at once."""

    def apply(directory: Path) -> None:
        for edit in edits:
            edit(directory)

    return apply


def changed_json(file: str, change: Change) -> Edit:
    """Changes the object in a JSON file."""

    def apply(directory: Path) -> None:
        content = json.loads((directory / file).read_text("utf-8"))
        change(content)
        (directory / file).write_text(json.dumps(content), "utf-8")

    return apply


def with_fields(file: str = "config.json", /, **fields: object) -> Edit:
    """Sets fields of a JSON file."""
    return changed_json(file, lambda content: content.update(fields))


def without_fields(*names: str, file: str = "config.json") -> Edit:
    """Removes fields of a JSON file."""
    return changed_json(file, lambda content: [content.pop(name) for name in names])


def with_text(file: str, text: str) -> Edit:
    """Replaces a file."""
    return lambda directory: (directory / file).write_text(text, "utf-8")


def with_bytes(file: str, change: Callable[[bytes], bytes]) -> Edit:
    """Changes the bytes of a file."""
    return lambda directory: (directory / file).write_bytes(change((directory / file).read_bytes()))


def without(*files: str) -> Edit:
    """Removes files."""

    def apply(directory: Path) -> None:
        for file in files:
            (directory / file).unlink()

    return apply


def changed_header(file: str, change: Change) -> Edit:
    """Changes the header of a safetensors file; its data stay."""

    def apply(directory: Path) -> None:
        content = (directory / file).read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (directory / file).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return apply


def changed_tensors(change: Change, file: str = "model.safetensors") -> Edit:
    """Changes the tensors of a safetensors file."""

    def apply(directory: Path) -> None:
        tensors: dict[str, Any] = dict(load_file(directory / file))
        change(tensors)
        save_file({name: np.array(values, order="C") for name, values in tensors.items()}, directory / file)

    return apply
