"""A seeded tiny Llama 3.1 and the digests of what MaxText's own `to_maxtext` and `to_huggingface` made from it.

The digests were taken from MaxText 0.2.5 (0.2.4 gives the same) with model_name llama3.1-8b and bfloat16 as dtype.
head_dim is 128, so the multiplication of the query by 128 ** -0.5 is inexact, and no two axes are equal where that
could hide a transposition. No code of this project had a part in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Leaf = tuple[str, tuple[int, ...], str]
"""dtype, shape, and the first 24 hex digits of the SHA-256 of the elements in C order."""

MODEL_NAME = "llama3.1-8b"
SAVE_DTYPE = "bfloat16"
CONFIG: Mapping[str, Any] = {
    "vocab_size": 272,
    "hidden_size": 192,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072,
    "rope_parameters": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_theta": 500000.0,
    },
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_SEED = "maxtext-holdout-1|llama31"
_RECORD = Path(__file__).with_name("maxtext_llama31.json")


def make_input(out_dir: Path) -> Path:
    """Writes the Hugging Face checkpoint that MaxText was given, through transformers.

    Args:
        out_dir: the directory to write; it must not hold a checkpoint yet.

    Returns:
        out_dir.

    Raises:
        AssertionError: its bytes are not those that MaxText was given.
    """
    import torch
    import transformers

    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**CONFIG)).bfloat16()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            # A norm is 1 plus noise: a constant would not show a permutation.
            mean, deviation = (1.0, 0.1) if tensor.dim() == 1 else (0.0, 0.05)
            noise = torch.from_numpy(_noise(name, tuple(tensor.shape)))
            tensor.copy_((mean + deviation * noise).to(tensor.dtype))
    model.config.dtype = torch.bfloat16
    model.save_pretrained(out_dir, max_shard_size="1MB")
    found = {path.name: _file_digest(path) for path in sorted(out_dir.glob("*.safetensors"))}
    recorded = _record()["input"]["files"]
    if found != recorded:
        raise AssertionError(f"the input differs from the recorded one: {found} instead of {recorded}")
    return out_dir


def expected_leaves(scan: bool) -> dict[str, Leaf]:
    """The leaves under `params` of MaxText's checkpoint, by dotted path.

    Args:
        scan: whether its layers are stacked.
    """
    return _leaves(_record()["leaves"]["scan" if scan else "unscan"])


def expected_tensors() -> dict[str, Leaf]:
    """The Hugging Face tensors that MaxText's `to_huggingface` gave back; the query's are not those of the input."""
    return _leaves(_record()["back"])


def compare(tree: Mapping[str, Any], expected: Mapping[str, Leaf]) -> list[str]:
    """What differs from MaxText's checkpoint, one line a leaf; leaves outside `params` are not looked at.

    Args:
        tree: a restored checkpoint, nested or with dotted paths as keys.
        expected: what `expected_leaves` gave.
    """
    return compare_tensors({path: values for path, values in _flat(tree, "") if path.startswith("params.")}, expected)


def compare_tensors(tensors: Mapping[str, object], expected: Mapping[str, Leaf]) -> list[str]:
    """What differs between named arrays and MaxText's, one line an array.

    Args:
        tensors: arrays by name.
        expected: what `expected_leaves` or `expected_tensors` gave.
    """
    found = {path: _leaf(values) for path, values in tensors.items()}
    problems = [f"{path}: missing" for path in expected if path not in found]
    problems += [f"{path}: not made by MaxText" for path in found if path not in expected]
    problems += [
        f"{path}: {found[path]} instead of {leaf}"
        for path, leaf in expected.items()
        if path in found and found[path] != leaf
    ]
    return sorted(problems)


def _record() -> dict[str, Any]:
    record: dict[str, Any] = json.loads(_RECORD.read_text(encoding="utf-8"))
    return record


def _leaves(record: Mapping[str, tuple[str, list[int], str]]) -> dict[str, Leaf]:
    return {name: (dtype, tuple(shape), digest) for name, (dtype, shape, digest) in record.items()}


def _noise(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Standard normal noise that depends on the name only, on no CPU and no order of initialisation."""
    seed = int.from_bytes(hashlib.sha256(f"{_SEED}|{name}".encode()).digest()[:16], "little")
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _flat(tree: object, path: str) -> list[tuple[str, object]]:
    if isinstance(tree, Mapping):
        children: list[tuple[object, object]] = list(tree.items())
    elif isinstance(tree, Sequence) and not isinstance(tree, str | bytes):
        children = list(enumerate(tree))
    else:
        return [] if tree is None else [(path, tree)]
    return [leaf for key, child in children for leaf in _flat(child, f"{path}.{key}" if path else str(key))]


def _leaf(values: object) -> Leaf:
    array = np.asarray(values)
    return array.dtype.name, array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:24]
