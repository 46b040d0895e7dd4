"""transformers itself, in both generations, reads from a carried config what the source's config means."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mappings import catalog
from validators import hf_config

PROGRAM = """
import json, sys, warnings
import torch, transformers
from transformers import AutoConfig, AutoModelForCausalLM
transformers.logging.set_verbosity_error()
result = {"version": transformers.__version__}
for folder in sys.argv[1:]:
    config = AutoConfig.from_pretrained(folder)
    dtype = config.dtype if int(transformers.__version__.split(".")[0]) > 4 else config.torch_dtype
    model = AutoModelForCausalLM.from_config(config)
    frequencies = next(tensor for name, tensor in model.named_buffers() if name.endswith("inv_freq"))
    sizes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    result[folder] = {"dtype": str(dtype), "inv_freq": frequencies.tolist(), "sizes": sizes}
print(json.dumps(result))
"""
SMALL = {
    "vocab_size": 32,
    "hidden_size": 256,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 128,
}


def _small(name: str) -> dict[str, Any]:
    manifest = catalog.find(name)
    assert manifest is not None
    return {**manifest.config, **SMALL}


def _newer(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same config as transformers 5 writes it."""
    kept = {key: value for key, value in config.items() if key not in ("rope_theta", "rope_scaling", "torch_dtype")}
    parameters = {"rope_type": "default", **(config.get("rope_scaling") or {}), "rope_theta": config["rope_theta"]}
    return {**kept, "rope_parameters": parameters, "dtype": config["torch_dtype"]}


CASES = {
    "plain": (_small("llama3-8b"), "bfloat16"),
    "scaled": (_small("llama3.1-8b"), "bfloat16"),
    "windowed": (_small("mistral-7b-v0.1"), "bfloat16"),
    "plain_newer": (_newer(_small("llama3-8b")), "bfloat16"),
    "scaled_newer": (_newer(_small("llama3.2-3b")), "bfloat16"),
    "mistral_newer": (_newer(_small("mistral-7b-v0.3")), "bfloat16"),
    "scaled_float": (_small("llama3.1-8b"), "float32"),
    "scaled_newer_float": (_newer(_small("llama3.3-70b")), "float32"),
    "older_name_of_type": (
        {**_small("llama3.1-8b"), "rope_scaling": {**_small("llama3.1-8b")["rope_scaling"], "type": "llama3"}},
        "float16",
    ),
}


def _expected(config: Mapping[str, Any]) -> list[float]:
    """Frequencies by the formulas of the rotary embedding and of Llama 3.1's scaling, in double precision."""
    parameters = config.get("rope_parameters") or {**(config.get("rope_scaling") or {}), **config}
    plain = [parameters["rope_theta"] ** (-2 * i / 128) for i in range(64)]
    if "factor" not in parameters:
        return plain
    low, high, context = (
        parameters[key] for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    )
    scaled = []
    for frequency in plain:
        share = (context * frequency / (2 * math.pi) - low) / (high - low)
        share = min(1.0, max(0.0, share))
        scaled.append((1 - share) * frequency / parameters["factor"] + share * frequency)
    return scaled


def _check(tmp_path: Path, environment: Mapping[str, str], version: str) -> None:
    for name, (config, dtype) in CASES.items():
        (tmp_path / name).mkdir()
        text = hf_config.carried_text(None, config, dtype=dtype)
        (tmp_path / name / "config.json").write_text(text)
    folders = [str(tmp_path / name) for name in CASES]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *folders],
        env=dict(environment),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["version"].startswith(version)
    for name, (config, dtype) in CASES.items():
        read = result[str(tmp_path / name)]
        assert read["dtype"] == f"torch.{dtype}", name
        assert read["inv_freq"] == pytest.approx(_expected(config), rel=1e-5), name
        assert read["sizes"]["model.layers.0.self_attn.k_proj.weight"] == [128, 256], name


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
def test_transformers_5_reads_a_carried_config(tmp_path: Path) -> None:
    _check(tmp_path, os.environ, "5.")


def test_transformers_4_reads_a_carried_config(tmp_path: Path, transformers4: dict[str, str]) -> None:
    _check(tmp_path, transformers4, "4.45.")
