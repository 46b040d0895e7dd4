"""A Llama of any size in Hugging Face's layout: random finite bfloat16 weights, written in bounded memory."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.formats.base import TensorInfo
from converters.formats.safetensors_shards import Shard, index_file, plan_shards

MODEL_NAME = "llama3.1"
"""The layout that the config fits: head_dim 64, so that MaxText's folded constant is a power of two."""

_HEAD_DIM = 64
_HEADS_PER_KV_HEAD = 4
_SHARDS = 4
_PIECE = 16 << 20
# Sign, three bits of exponent and the mantissa are random: magnitudes from 2**-7 to 2, like weights, and always finite.
_RANDOM_BITS = 0x83FF
_FIXED_BITS = 0x3C00


@dataclasses.dataclass(frozen=True)
class Size:
    """The sizes of a model.

    Attributes:
        layers: how many.
        heads: of queries; a quarter of them of keys and values.
        vocabulary: rows of the embedding and of the head, which are not tied.
    """

    layers: int
    heads: int
    vocabulary: int

    @property
    def width(self) -> int:
        """Of the hidden state."""
        return self.heads * _HEAD_DIM

    @property
    def inner(self) -> int:
        """Width of the MLP."""
        return 4 * self.width

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.heads // _HEADS_PER_KV_HEAD

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(2 * math.prod(tensor.shape) for tensor in tensors(self))

    def __str__(self) -> str:
        return (
            f"{self.layers} layers, {self.width} wide, MLP {self.inner}, vocabulary {self.vocabulary}, "
            f"{self.heads}/{self.kv_heads} heads of {_HEAD_DIM}"
        )


def scaled(scale: float) -> Size:
    """The size of a scale: 1 is 3.0 GB.

    Layers and vocabulary grow with the scale and the widths stay, so that a scale of 4 has four times as many arrays or
    layers in an array, and an embedding four times as large. Where that would leave fewer than two layers, the model
    becomes narrower instead.
    """
    layers = max(2, round(16 * scale))
    narrower = math.sqrt(min(1.0, 16 * scale / layers)) if 16 * scale < 2 else 1.0
    heads = max(_HEADS_PER_KV_HEAD, round(32 * narrower / _HEADS_PER_KV_HEAD) * _HEADS_PER_KV_HEAD)
    vocabulary = max(64, round(128256 * scale * 32 / heads / 16) * 16)
    return Size(layers, heads, vocabulary)


def tensors(size: Size) -> tuple[TensorInfo, ...]:
    """All tensors in the order of the model."""
    width, inner, kv = size.width, size.inner, size.kv_heads * _HEAD_DIM
    layer: Mapping[str, tuple[int, ...]] = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (kv, width),
        "self_attn.v_proj": (kv, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (size.vocabulary, width)}
    for number in range(size.layers):
        shapes |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    shapes |= {"model.norm": (width,), "lm_head": (size.vocabulary, width)}
    return tuple(TensorInfo(f"{name}.weight", shape, "bfloat16") for name, shape in shapes.items())


def config(size: Size) -> dict[str, Any]:
    """config.json as transformers writes it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": _HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": size.width,
        "initializer_range": 0.02,
        "intermediate_size": size.inner,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.layers,
        "num_key_value_heads": size.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.57.1",
        "use_cache": True,
        "vocab_size": size.vocabulary,
    }


def make(folder: Path, size: Size, seed: int = 0) -> None:
    """Writes the model into a new directory: shards, their index, config.json."""
    folder.mkdir(parents=True)
    listed = tensors(size)
    largest = max(2 * math.prod(tensor.shape) for tensor in listed)
    shards = plan_shards(listed, max(largest, math.ceil(size.nbytes / _SHARDS)), {"format": "pt"})
    generator = np.random.Generator(np.random.SFC64(seed))
    for shard in shards:
        _write(folder / shard.file, shard, generator)
    index = index_file(shards)
    if index is not None:
        (folder / index[0]).write_bytes(index[1])
    (folder / "config.json").write_text(json.dumps(config(size), indent=2, sort_keys=True) + "\n", "utf-8")


def _write(path: Path, shard: Shard, generator: np.random.Generator) -> None:
    left = shard.size - len(shard.header)
    with open(path, "wb") as file:
        file.write(shard.header)
        while left:
            piece = min(left, _PIECE)
            file.write(random_weights(piece, generator))
            left -= piece


def random_weights(nbytes: int, generator: np.random.Generator) -> memoryview:
    """Bytes of finite bfloat16 numbers."""
    words = generator.integers(0, 1 << 64, size=-(-nbytes // 8), dtype=np.uint64)
    words &= np.uint64(_RANDOM_BITS * 0x0001_0001_0001_0001)
    words |= np.uint64(_FIXED_BITS * 0x0001_0001_0001_0001)
    return words.view(np.uint8)[:nbytes].data
