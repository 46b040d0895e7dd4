"""Quantised checkpoints for tests: random codes and scales for a tiny model's weights, and the plain values.

Every code that is a number occurs, and scales differ by orders of magnitude, so that nothing is right by chance.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from converters.formats.base import Source
from converters.formats.safetensors_source import SafetensorsSource
from converters.quantized import opening
from converters.quantized.source import DecodingSource
from tests.quantized import loops
from tests.quantized.loops import Array
from validators import quantization

Arrays = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Quantized:
    """A way to store a weight.

    Attributes:
        config: the quantization_config.
        stored: from name, plain shape and generator, the arrays that are stored.
        plain: from name and stored arrays, the plain values in a dtype.
    """

    config: Mapping[str, Any]
    stored: Callable[[str, tuple[int, ...], np.random.Generator], Arrays]
    plain: Callable[[str, Mapping[str, Array], str], Array]


def fp8_blocks(block: tuple[int, int] = (128, 128), scale_dtype: str = "float32") -> Quantized:
    """DeepSeek's: float8 codes with `weight_scale_inv` for blocks."""

    def stored(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Arrays:
        grid = tuple(-(-size // step) for size, step in zip(shape, block, strict=True))
        return {name: float8_codes(shape, generator), f"{name}_scale_inv": some_scales(grid, scale_dtype, generator)}

    def plain(name: str, tensors: Mapping[str, Array], dtype: str) -> Array:
        scales = tensors[f"{name}_scale_inv"].astype(np.float32)
        return loops.scaled(loops.float8_values(tensors[name]), scales, block, dtype)

    config = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": list(block)}
    return Quantized(config, stored, plain)


def fp8_whole() -> Quantized:
    """AutoFP8's: float8 codes with a `weight_scale` for each tensor, which the config does not announce."""

    def stored(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Arrays:
        return {name: float8_codes(shape, generator), f"{name}_scale": some_scales((), "float32", generator)}

    def plain(name: str, tensors: Mapping[str, Array], dtype: str) -> Array:
        return loops.scaled(loops.float8_values(tensors[name]), tensors[f"{name}_scale"], (0, 0), dtype)

    config = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    return Quantized(config, stored, plain)


def compressed(
    kind: str, strategy: str, *, scale_dtype: str = "bfloat16", symmetric: bool = True, size: Any = None
) -> Quantized:
    """compressed-tensors: `kind` is float or int of 8 bits, or int4 packed."""
    bits = 4 if kind == "int4" else 8
    block = {"tensor": (0, 0), "channel": (1, 0), "group": (1, size), "block": size}[strategy]

    def stored(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Arrays:
        grid = tuple(-(-whole // (step or whole)) for whole, step in zip(shape, block, strict=True))
        grid = (1,) if strategy == "tensor" else grid
        out: Arrays = {f"{name}_scale": some_scales(grid, scale_dtype, generator)}
        if kind == "float":
            out[name] = float8_codes(shape, generator)
        elif kind == "int":
            out[name] = generator.integers(-128, 128, shape, dtype=np.int8)
        else:
            out[f"{name}_packed"] = loops.packed(generator.integers(-8, 8, shape))
            out[f"{name}_shape"] = np.array(shape, np.int64)
        if not symmetric:
            out[f"{name}_zero_point"] = generator.integers(-128, 128, grid, dtype=np.int8)
        return out

    def plain(name: str, tensors: Mapping[str, Array], dtype: str) -> Array:
        scales, zeros = tensors[f"{name}_scale"], tensors.get(f"{name}_zero_point")
        if kind == "int4":
            values = loops.packed_values(tensors[f"{name}_packed"], int(tensors[f"{name}_shape"][1]))
        else:
            values = loops.float8_values(tensors[name]) if kind == "float" else tensors[name].astype(np.float32)
        return loops.scaled(values, scales, block, dtype, zeros)

    weights: dict[str, Any] = {
        "num_bits": bits,
        "type": "float" if kind == "float" else "int",
        "symmetric": symmetric,
        "strategy": strategy,
        "group_size": size if strategy == "group" else None,
        "block_structure": list(size) if strategy == "block" else None,
        "dynamic": False,
        "actorder": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }
    format = {"float": "float-quantized", "int": "int-quantized", "int4": "pack-quantized"}[kind]
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    config = {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
        "global_compression_ratio": 1.5,
    }
    return Quantized(config, stored, plain)


def mxfp4() -> Quantized:
    """GPT-OSS's experts."""

    def stored(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> Arrays:
        experts, inner, rows = shape
        grid = (experts, rows, inner // 32)
        codes = generator.integers(0, 256, (*grid, 16), dtype=np.uint8)
        exponents = generator.integers(118, 134, grid, dtype=np.uint8)
        flat = exponents.reshape(-1)
        flat[generator.permutation(flat.size)[:3]] = (0, 1, 252)
        return {f"{name}_blocks": codes, f"{name}_scales": exponents}

    def plain(name: str, tensors: Mapping[str, Array], dtype: str) -> Array:
        return loops.mxfp4_values(tensors[f"{name}_blocks"], tensors[f"{name}_scales"], dtype)

    return Quantized({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, stored, plain)


def float8_codes(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """All codes but those of NaN, in a random order."""
    codes = np.array([code for code in range(256) if code % 128 != 127], np.uint8)
    return codes[generator.integers(0, len(codes), shape)].view(ml_dtypes.float8_e4m3fn)


def some_scales(shape: tuple[int, ...], dtype: str, generator: np.random.Generator) -> Array:
    """Positive numbers of many magnitudes."""
    return (generator.uniform(1, 2, shape) * 2.0 ** generator.integers(-14, 3, shape)).astype(loops.of(dtype))


def quantized(
    tensors: Mapping[str, Array], names: Callable[[str], bool], way: Quantized, dtype: str = "bfloat16", seed: int = 5
) -> tuple[Arrays, Arrays]:
    """What is stored and what it means, where the weights that `names` chooses are quantised.

    Returns:
        The stored arrays; the plain arrays, those that are decoded in `dtype`.
    """
    chosen = [name for name in tensors if names(name)]
    assert chosen, "nothing is quantised"
    stored: Arrays = {}
    plain: Arrays = {}
    for name, generator in zip(tensors, np.random.default_rng(seed).spawn(len(tensors)), strict=True):
        if name not in chosen:
            stored[name] = plain[name] = tensors[name]
            continue
        made = way.stored(name, tensors[name].shape, generator)
        stored |= made
        plain[name] = way.plain(name, made, dtype)
    return stored, plain


def write(directory: Path, tensors: Mapping[str, Array], config: Mapping[str, Any]) -> Path:
    """Writes a checkpoint in two files, in which scales and their codes often lie apart."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    files: tuple[Arrays, Arrays] = ({}, {})
    for number, (name, values) in enumerate(tensors.items()):
        files[number % 3 % 2][name] = np.ascontiguousarray(values)
    places: dict[str, str] = {}
    for number, file in enumerate(files, 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        save_file(file, directory / name, {"format": "pt"})
        places |= dict.fromkeys(file, name)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return directory


def read(source: Source) -> Arrays:
    """All arrays of a source, float8 included."""
    return {
        name: source.read(name, tuple((0, size) for size in info.shape)).copy() for name, info in source.tensors.items()
    }


def source_of(directory: Path, stored: Mapping[str, Array], config: Mapping[str, Any], dtype: str) -> DecodingSource:
    """Opens stored arrays as plain ones."""
    write(directory, stored, {})
    files = SafetensorsSource(directory)
    scheme = quantization.read({"quantization_config": config})
    assert quantization.check({"quantization_config": config}) == []
    assert scheme is not None
    return opening.decoding(files, {}, opening.recognised(files, scheme), dtype)


def bits(values: Array) -> bytes:
    return np.ascontiguousarray(values).tobytes()


def damage(file: Path, name: str) -> None:
    """Changes a bit of the first element of a tensor in a safetensors file."""
    content = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start + json.loads(content[8:start])[name]["data_offsets"][0]] ^= 1
    file.write_bytes(content)


def pair(
    tmp_path: Path,
    base: Path,
    tensors: Mapping[str, Array],
    names: Callable[[str], bool],
    way: Quantized,
    more: Mapping[str, Array] | None = None,
    dtype: str = "bfloat16",
) -> tuple[Path, Path, Arrays]:
    """A quantised checkpoint, the same dequantised first, and the plain arrays; `more` is stored beside the codes."""
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    stored, plain = quantized(tensors, names, way, dtype)
    source = write(tmp_path / "quantized", {**stored, **(more or {})}, {**config, "quantization_config": way.config})
    return source, write(tmp_path / "plain", plain, config), plain
