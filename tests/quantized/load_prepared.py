"""Holds what prepare-ckpt writes against compressed-tensors itself, and has transformers load it by that library.

Run it where compressed-tensors 0.20.0 is installed: `python -m tests.quantized.load_prepared`. Of a tiny Llama and two
tiny mixtures of experts, codes and scales must be those of the library, and logits those of the same weights,
dequantised first: in float32 however they are loaded, in bfloat16 where they are dequantised while they are loaded.
"""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from tests.families.harness import Config
from tests.quantized import preparing
from tests.quantized.cases import CASES
from tests.quantized.make_golden import VERSION

_EXPERTS: Config = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "tie_word_embeddings": False,
}
_CONFIGS: dict[str, Config] = {
    "llama": CASES["llama-float-tensor"].config,
    "mixtral": {**_EXPERTS, "model_type": "mixtral", "num_local_experts": 4},
    "qwen3_moe": {
        **_EXPERTS,
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "moe_intermediate_size": 24,
        "head_dim": 8,
    },
}


def main() -> None:
    """Checks all models; fails at the first difference."""
    found = importlib.import_module("compressed_tensors").__version__
    if found != VERSION:
        raise SystemExit(f"this needs compressed-tensors {VERSION}, not {found}")
    for family, config in _CONFIGS.items():
        with tempfile.TemporaryDirectory() as directory:
            _check(family, preparing.usual(config, Path(directory) / "in"), Path(directory))


def _check(family: str, source: Path, directory: Path) -> None:
    import torch

    output = directory / "out"
    preparing.prepared(preparing.catalogue(directory / "catalog.textproto", source, family), source, output)
    count = _check_stored(source, output, directory / "plain")
    for dtype, ways in ((torch.float32, (True, False)), (torch.bfloat16, (True,))):
        expected = _logits(directory / "plain", dtype, None)
        for dequantize in ways:
            if not torch.equal(_logits(output, dtype, dequantize), expected):
                raise SystemExit(f"{family}: other logits in {dtype}, dequantize={dequantize}")
    print(f"{family}: {count} arrays as the library encodes them, equal logits")


def _check_stored(source: Path, output: Path, plain: Path) -> int:
    """Compares what is stored, and writes the same weights, dequantised; returns how many have codes."""
    import shutil

    import torch
    from safetensors.torch import save_file

    quantization = importlib.import_module("compressed_tensors.quantization")
    compressors = importlib.import_module("compressed_tensors.compressors")
    args = quantization.QuantizationArgs(num_bits=8, type="float", strategy="tensor", symmetric=True)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    compressor = compressors.BaseCompressor.get_value_from_registry("float-quantized")
    before, after = _tensors(source), _tensors(output)
    count = 0
    for name, values in before.items():
        given = after.get(f"{name}_scale")
        if given is None:
            continue
        wide = values.float()
        scale, _ = quantization.utils.calculate_qparams(wide.min().reshape(1), wide.max().reshape(1), args)
        codes = compressor.compress({"weight": wide, "weight_scale": scale}, scheme)["weight"]
        if not torch.equal(scale, given) or not torch.equal(codes.view(torch.uint8), after[name].view(torch.uint8)):
            raise SystemExit(f"{name} is not what the library makes of it")
        before[name] = compressor.decompress({"weight": codes, "weight_scale": scale}, scheme)["weight"]
        count += 1
    shutil.copytree(source, plain, ignore=shutil.ignore_patterns("*.safetensors*"))
    save_file(before, plain / "model.safetensors", metadata={"format": "pt"})
    return count


def _tensors(directory: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for file in sorted(directory.glob("*.safetensors")):
        found |= load_file(file)
    return found


def _logits(directory: Path, dtype: Any, dequantize: bool | None) -> Any:
    import torch
    import transformers

    more = (
        {}
        if dequantize is None
        else {"quantization_config": transformers.CompressedTensorsConfig(dequantize=dequantize)}
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, **more)
    tokens = torch.arange(24).reshape(2, 12) % model.config.vocab_size
    with torch.no_grad():
        return model(tokens).logits


if __name__ == "__main__":
    main()
