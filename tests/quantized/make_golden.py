"""Makes compressed_tensors.safetensors and .json beside this file: what compressed-tensors itself stores and decodes.

Run it where compressed-tensors 0.20.0 is installed: `python -m tests.quantized.make_golden`. Each case is a weight that
the library compressed; `<case>.expected` is what its own decompression gives, in the dtype of its scales.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
VERSION = "0.20.0"

_SHAPES: dict[str, tuple[int, int]] = {"group": (6, 64), "block": (20, 27)}
_CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "float_tensor": ("float-quantized", {"type": "float", "strategy": "tensor"}, "bfloat16"),
    "float_channel": ("float-quantized", {"type": "float", "strategy": "channel"}, "bfloat16"),
    "float_channel_float32": ("float-quantized", {"type": "float", "strategy": "channel"}, "float32"),
    "float_block": ("float-quantized", {"type": "float", "strategy": "block", "block_structure": [8, 10]}, "bfloat16"),
    "int_tensor": ("int-quantized", {"type": "int", "strategy": "tensor"}, "float16"),
    "int_channel": ("int-quantized", {"type": "int", "strategy": "channel"}, "bfloat16"),
    "int_channel_zero": ("int-quantized", {"type": "int", "strategy": "channel", "symmetric": False}, "bfloat16"),
    "int4_group": ("pack-quantized", {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 16}, "bfloat16"),
    "int4_channel": ("pack-quantized", {"type": "int", "num_bits": 4, "strategy": "channel"}, "bfloat16"),
    "int8_packed": ("pack-quantized", {"type": "int", "strategy": "group", "group_size": 32}, "float32"),
}


def main() -> None:
    """Writes the files."""
    import torch
    from safetensors.torch import save_file

    # Not among this repository's requirements, so it is not imported as these are.
    found = importlib.import_module("compressed_tensors").__version__
    if found != VERSION:
        raise SystemExit(f"this needs compressed-tensors {VERSION}, not {found}")
    compressors = importlib.import_module("compressed_tensors.compressors")
    quantization = importlib.import_module("compressed_tensors.quantization")
    generator = torch.Generator().manual_seed(8)
    tensors: dict[str, torch.Tensor] = {}
    configs = {}
    for name, (format, given, dtype) in _CASES.items():
        args = quantization.QuantizationArgs(
            num_bits=given.get("num_bits", 8), **{k: v for k, v in given.items() if k != "num_bits"}
        )
        scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
        shape = _SHAPES.get(given["strategy"], (7, 13))
        weight = torch.randn(shape, generator=generator).to(getattr(torch, dtype))
        state = {"weight": weight, "weight_scale": _scales(weight, args, getattr(torch, dtype), generator)}
        if not args.symmetric:
            zeros = torch.randint(-90, 90, state["weight_scale"].shape, generator=generator)
            state["weight_zero_point"] = zeros.to(torch.int8)
        compressor = compressors.BaseCompressor.get_value_from_registry(format)
        packed = compressor.compress(state, scheme)
        tensors |= {f"{name}.{key}": value.contiguous() for key, value in packed.items()}
        tensors[f"{name}.expected"] = compressor.decompress(packed, scheme)["weight"].contiguous()
        group = json.loads(scheme.model_dump_json())
        configs[name] = {
            "quant_method": "compressed-tensors",
            "format": format,
            "config_groups": {"group_0": group},
            "quantization_status": "compressed",
        }
    save_file(tensors, FOLDER / "compressed_tensors.safetensors")
    (FOLDER / "compressed_tensors.json").write_text(json.dumps(configs, indent=1) + "\n", encoding="utf-8")


def _scales(weight: Any, args: Any, dtype: Any, generator: Any) -> Any:
    import torch

    rows, columns = weight.shape
    shape = {
        "tensor": (1,),
        "channel": (rows, 1),
        "group": (rows, columns // (args.group_size or 1)),
        "block": tuple(-(-n // b) for n, b in zip(weight.shape, args.block_structure or (1, 1), strict=True)),
    }[args.strategy]
    return (torch.rand(shape, generator=generator) * 0.02 + 0.004).to(dtype)


if __name__ == "__main__":
    main()
