"""Tiny checkpoints for tests: distinct tensors, every kind of finite bits, sizes that hide no exchange of axes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.oracles.llama import Array, Arrays, Sizes, biases, dtype_of

_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    # head_dim ** -0.5 is inexact
    "grouped": {
        "model_type": "llama",
        "vocab_size": 96,
        "hidden_size": 80,
        "intermediate_size": 112,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
    # head_dim ** -0.5 is a power of two; head_dim and num_key_value_heads are defaults
    "tied": {
        "model_type": "llama",
        "vocab_size": 72,
        "hidden_size": 192,
        "intermediate_size": 88,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "tie_word_embeddings": True,
    },
    "odd_six": {
        "model_type": "llama",
        "vocab_size": 31,
        "hidden_size": 45,
        "intermediate_size": 37,
        "num_hidden_layers": 5,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 6,
        "tie_word_embeddings": False,
    },
    "odd_ten": {
        "model_type": "llama",
        "vocab_size": 53,
        "hidden_size": 35,
        "intermediate_size": 23,
        "num_hidden_layers": 3,
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
        "head_dim": 10,
        "tie_word_embeddings": True,
    },
    "biased": {
        "model_type": "llama",
        "vocab_size": 40,
        "hidden_size": 64,
        "intermediate_size": 72,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 10,
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": False,
    },
    "llama3_rope": {
        "model_type": "llama",
        "vocab_size": 64,
        "hidden_size": 96,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 131072,
        "rope_parameters": _LLAMA3_ROPE,
        "tie_word_embeddings": True,
    },
    # hidden_size is no multiple of num_attention_heads
    "mistral": {
        "model_type": "mistral",
        "vocab_size": 48,
        "hidden_size": 62,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "sliding_window": 512,
        "tie_word_embeddings": False,
    },
}
"""config.json contents by name. In each, sizes differ where an exchange of axes could hide."""

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_SIGN_BITS = {"bfloat16": 0x8000, "float16": 0x8000, "float32": 0x8000_0000}
_INFINITIES = {"bfloat16": 0x7F80, "float16": 0x7C00, "float32": 0x7F80_0000}
_LARGEST = {"bfloat16": 0x7F7F, "float16": 0x7BFF, "float32": 0x7F7F_0000}
"""The largest finite patterns; that of float32 is the largest that does not become infinite in bfloat16."""


def llama_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a Llama or Mistral checkpoint, a tied head left out."""
    sizes = Sizes.of(config)
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (queries, sizes.hidden),
        "self_attn.k_proj.weight": (keys, sizes.hidden),
        "self_attn.v_proj.weight": (keys, sizes.hidden),
        "self_attn.o_proj.weight": (sizes.hidden, queries),
        "mlp.gate_proj.weight": (sizes.mlp, sizes.hidden),
        "mlp.up_proj.weight": (sizes.mlp, sizes.hidden),
        "mlp.down_proj.weight": (sizes.hidden, sizes.mlp),
        "input_layernorm.weight": (sizes.hidden,),
        "post_attention_layernorm.weight": (sizes.hidden,),
    }
    layer |= {name: (length,) for name, length in biases(sizes).items()}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (sizes.vocabulary, sizes.hidden)}
    for index in range(sizes.layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    shapes["model.norm.weight"] = (sizes.hidden,)
    if not sizes.tied:
        shapes["lm_head.weight"] = (sizes.vocabulary, sizes.hidden)
    return shapes


def element_coded_llama(config: Mapping[str, Any], dtype: str, seed: int) -> Arrays:
    """The tensors of a Llama or Mistral checkpoint, every one filled with random finite bit patterns.

    Every pattern of bfloat16 and float16 that is finite can occur. Each tensor holds both zeros, both smallest
    subnormals, both smallest normals and both largest values. Values of float32 stay finite in bfloat16, those of
    bfloat16 and float32 do not stay finite in float16.

    Args:
        config: the contents of a config.json.
        dtype: "bfloat16", "float16" or "float32".
        seed: of the random patterns.
    """
    shapes = llama_shapes(config)
    generators = np.random.default_rng(seed).spawn(len(shapes))
    return {
        name: _finite_patterns(shape, dtype, generator)
        for (name, shape), generator in zip(shapes.items(), generators, strict=True)
    }


def with_zero_biases(tensors: Mapping[str, Array]) -> Arrays:
    """The tensors with every bias made zero, as a format without biases can keep them."""
    return {name: np.zeros_like(values) if name.endswith(".bias") else values for name, values in tensors.items()}


def save_with_transformers(
    directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Array], max_shard_size: str = "100KB"
) -> Path:
    """Writes a checkpoint through transformers' own model class and `save_pretrained`.

    Args:
        directory: where to write.
        config: the contents of its config.json.
        tensors: values for every parameter of the model, a tied head left out; all of one dtype.
        max_shard_size: the size at which a new file begins, as `save_pretrained` takes it.

    Returns:
        directory.
    """
    import torch
    import transformers

    model_class = getattr(transformers, _ARCHITECTURES[config["model_type"]])
    dtype = getattr(torch, next(iter(tensors.values())).dtype.name)
    model = model_class(model_class.config_class(**config)).to(dtype)
    state = model.state_dict()
    with torch.no_grad():
        for name, values in tensors.items():
            state[name].copy_(torch.from_numpy(_bits(values).copy()).view(dtype))
    model.config.dtype = dtype
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    return directory


def save_random_with_transformers(
    directory: Path,
    config: Mapping[str, Any],
    seed: int,
    *,
    auto_class: str = "AutoModelForCausalLM",
    dtype: str = "bfloat16",
    own_dtypes: Mapping[str, str] | None = None,
    max_shard_size: str = "100KB",
) -> Path:
    """Writes a checkpoint of any architecture through transformers, every tensor filled with random finite patterns.

    Args:
        directory: where to write.
        config: the contents of its config.json.
        seed: of the random patterns.
        auto_class: transformers' class that finds the model class.
        dtype: of the model.
        own_dtypes: by the end of a tensor's name, the dtype in which the publisher keeps such tensors.
        max_shard_size: the size at which a new file begins, as `save_pretrained` takes it.

    Returns:
        directory.
    """
    import torch

    model = transformers_model(config, auto_class).to(getattr(torch, dtype))
    for end, own in (own_dtypes or {}).items():
        _give_dtype(model, end, getattr(torch, own))
    state = {name: values for name, values in model.state_dict().items() if values.is_floating_point()}
    generators = np.random.default_rng(seed).spawn(len(state))
    filled: set[int] = set()
    with torch.no_grad():
        for (_, values), generator in zip(sorted(state.items()), generators, strict=True):
            if values.data_ptr() not in filled:  # a tied tensor stands under two names
                kind = str(values.dtype).removeprefix("torch.")
                patterns = _finite_patterns(tuple(values.shape), kind, generator)
                values.copy_(torch.from_numpy(_bits(patterns).copy()).view(values.dtype))
            filled.add(values.data_ptr())
    model.config.dtype = getattr(torch, dtype)
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    return directory


def transformers_model(config: Mapping[str, Any], auto_class: str = "AutoModelForCausalLM") -> Any:
    """transformers' model of a config.json, as it initialises it; under torch.device("meta") without memory."""
    import transformers

    own = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    return getattr(transformers, auto_class).from_config(own)


def _give_dtype(model: Any, end: str, dtype: Any) -> None:
    found = [name for name in model.state_dict() if name.endswith(end)]
    assert found, f"the model has no tensor that ends in {end}"
    for name in found:
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(parent)
        if leaf in module._parameters:
            module._parameters[leaf].data = module._parameters[leaf].data.to(dtype)
        else:
            module._buffers[leaf] = module._buffers[leaf].to(dtype)


def write_safetensors(
    directory: Path, tensors: Mapping[str, Array], config: Mapping[str, Any], shard_bytes: int | None = None
) -> Path:
    """Writes a checkpoint as the hub has them, without torch.

    Args:
        directory: where to write; made if it is not there.
        tensors: the tensors by name.
        config: the contents of config.json, to which architectures and dtype are added.
        shard_bytes: the size at which a new file begins; None makes one file without an index.

    Returns:
        directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    dtype = next(iter(tensors.values())).dtype.name
    described = {**config, "architectures": [_ARCHITECTURES[config["model_type"]]], "dtype": dtype}
    (directory / "config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    shards = _shards(tensors, shard_bytes)
    if shard_bytes is None:
        save_file(shards[0], directory / "model.safetensors", {"format": "pt"})
        return directory
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file_name, {"format": "pt"})
        places |= dict.fromkeys(shard, file_name)
    total = sum(values.nbytes for values in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return directory


def read_safetensors(directory: Path) -> Arrays:
    """All tensors of the safetensors files of a directory, read by the safetensors library."""
    return {
        name: values for path in sorted(directory.glob("*.safetensors")) for name, values in load_file(path).items()
    }


def differing(found: Mapping[str, Array], expected: Mapping[str, Array]) -> list[str]:
    """What differs between two sets of arrays in name, dtype, shape or a single bit, one line an array."""
    problems = [f"{name}: missing" for name in expected if name not in found]
    problems += [f"{name}: not expected" for name in found if name not in expected]
    for name in expected.keys() & found.keys():
        ours, theirs = found[name], expected[name]
        if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            problems.append(f"{name}: {ours.dtype}{list(ours.shape)} instead of {theirs.dtype}{list(theirs.shape)}")
        elif ours.tobytes() != theirs.tobytes():
            unequal = np.argwhere(np.atleast_1d(_bits(ours) != _bits(theirs)))
            problems.append(
                f"{name}: {len(unequal)} of {ours.size} elements differ, the first at {unequal[0].tolist()}"
            )
    return sorted(problems)


def _bits(values: Array) -> Array:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def _finite_patterns(shape: tuple[int, ...], dtype: str, generator: np.random.Generator) -> Array:
    word = f"u{dtype_of(dtype).itemsize}"
    sign, infinity, largest = _SIGN_BITS[dtype], _INFINITIES[dtype], _LARGEST[dtype]
    smallest_normal = infinity & -infinity
    magnitudes = generator.integers(0, largest, int(np.prod(shape)), dtype=np.uint32, endpoint=True)
    signs = generator.integers(0, 1, magnitudes.size, dtype=np.uint32, endpoint=True) * np.uint32(sign)
    patterns = magnitudes | signs
    notable = [bit | pattern for pattern in (0, 1, smallest_normal, largest) for bit in (0, sign)]
    places = generator.permutation(patterns.size)[: len(notable)]
    patterns[places] = notable[: len(places)]
    return patterns.astype(word).view(dtype_of(dtype)).reshape(shape)


def _shards(tensors: Mapping[str, Array], shard_bytes: int | None) -> list[Arrays]:
    shards: list[Arrays] = [{}]
    for name, values in tensors.items():
        held = sum(other.nbytes for other in shards[-1].values())
        if shard_bytes is not None and shards[-1] and held + values.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = np.ascontiguousarray(values)
    return shards
