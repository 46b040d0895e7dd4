"""Makes three files beside this one, of what compressed-tensors itself stores and decodes.

Run it where compressed-tensors 0.20.0 is installed: `python -m tests.quantized.make_golden`. In
compressed_tensors.safetensors and .json each case is a weight that the library compressed; `<case>.expected` is what
its own decompression gives, in the dtype of its scales. In compressed_tensors_encoded.safetensors each case has
`values`, and the `scale` and the `codes` that the library makes of them as float32, one scale for all.
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
    save_file(_encoded(quantization, compressors, generator), FOLDER / "compressed_tensors_encoded.safetensors")
    (FOLDER / "compressed_tensors.json").write_text(json.dumps(configs, indent=1) + "\n", encoding="utf-8")


def _encoded(quantization: Any, compressors: Any, generator: Any) -> dict[str, Any]:
    """Values, and what the library makes of them with one scale."""
    import torch

    args = quantization.QuantizationArgs(num_bits=8, type="float", strategy="tensor", symmetric=True)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=args)
    compressor = compressors.BaseCompressor.get_value_from_registry("float-quantized")
    some = torch.randn((6, 11), generator=generator)
    cases = {
        "bfloat16": torch.randn((90, 200), generator=generator).to(torch.bfloat16),
        "float16": (torch.randn((90, 200), generator=generator) * 0.02).to(torch.float16),
        "float32": torch.randn((30, 200), generator=generator) * 0.02,
        "few": some.to(torch.bfloat16),
        "zeros": torch.zeros((3, 5)),
        "negative_zeros": -torch.zeros((3, 5), dtype=torch.bfloat16),
        "largest_is_negative": -some.abs(),
        "one_is_much_larger": torch.cat([some, torch.full((1, 11), 3e5)]),
        "near_the_end_of_float32": some * 1e38,
        "near_zero": some * 1e-37,
        "subnormal": some * 1e-41,
        "scale_is_zero": torch.full((2, 3), 2.0**-149),
        "ties": torch.arange(-448.0, 449.0).reshape(-1, 1),
    }
    found: dict[str, torch.Tensor] = {}
    for name, values in cases.items():
        wide = values.float()
        scale, _ = quantization.utils.calculate_qparams(wide.min().reshape(1), wide.max().reshape(1), args)
        stored = compressor.compress({"weight": wide, "weight_scale": scale}, scheme)
        found |= {f"{name}.values": values, f"{name}.scale": scale, f"{name}.codes": stored["weight"].contiguous()}
    return found


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
