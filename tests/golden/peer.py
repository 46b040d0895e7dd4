"""Seeded tiny models of several families, and the digests of what MaxText's own tools made from them.

Each case is a file beside this one: the model to make, the digests of its files, those of the leaves that MaxText's
unmodified `to_maxtext` wrote with bfloat16 as dtype, and those of the tensors that its `to_huggingface` gave back. No
code of this project had a part in them. No two axes are equal where that could hide a transposition.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests import checkpoints
from tests.golden.maxtext_llama31 import Leaf

_RECORDS = {
    "deepseek3": Path(__file__).with_name("maxtext_deepseek3.json"),
    "gemma2": Path(__file__).with_name("maxtext_gemma2.json"),
    "gpt_oss": Path(__file__).with_name("maxtext_gpt_oss.json"),
    "qwen25": Path(__file__).with_name("maxtext_qwen25.json"),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """What MaxText was given and what it made of it.

    Attributes:
        config: of the model, as transformers takes it.
        model_name: MaxText's name for it.
        stacked: the leaves of the checkpoint with stacked layers, `unstacked` without, by dotted path.
        back: the tensors that its `to_huggingface` made from the stacked one, in bfloat16; empty where it made none.
    """

    name: str
    config: Mapping[str, Any]
    model_name: str
    stacked: Mapping[str, Leaf]
    unstacked: Mapping[str, Leaf]
    back: Mapping[str, Leaf]

    def leaves(self, scan: bool) -> Mapping[str, Leaf]:
        """The leaves with or without stacked layers."""
        return self.stacked if scan else self.unstacked


@functools.cache
def case(name: str) -> Case:
    """A case by its name: deepseek3, gemma2, gpt_oss or qwen25."""
    record = _record(name)
    return Case(
        name,
        record["input"]["config"],
        record["model_name"],
        _leaves(record["leaves"]["scan"]),
        _leaves(record["leaves"]["unscan"]),
        _leaves(record["back"]),
    )


def make_input(name: str, directory: Path) -> Path:
    """Writes the Hugging Face checkpoint that MaxText was given, through transformers.

    Args:
        name: of the case.
        directory: where to write; it must not hold a checkpoint yet.

    Returns:
        directory.

    Raises:
        AssertionError: its bytes are not those that MaxText was given.
    """
    import torch

    given = _record(name)["input"]
    model = checkpoints.transformers_model(given["config"]).to(torch.bfloat16)
    for module in model.modules():
        for holder in (module._parameters, module._buffers):
            if holder.get("e_score_correction_bias") is not None:  # the hub has it in float32
                holder["e_score_correction_bias"].data = holder["e_score_correction_bias"].data.float()
    _fill(model, given["seed"])
    model.config.dtype = torch.bfloat16
    model.save_pretrained(directory, **given["save"])
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.safetensors"))
    }
    if found != given["files"]:
        raise AssertionError(f"the input differs from the recorded one: {found} instead of {given['files']}")
    return directory


def _fill(model: Any, seed: str) -> None:
    """Gives every tensor noise that depends on its name only, on no CPU and no order of initialisation."""
    import torch

    filled: set[int] = set()
    with torch.no_grad():
        for name, values in sorted(model.state_dict().items()):
            if not values.is_floating_point() or values.data_ptr() in filled:
                continue
            filled.add(values.data_ptr())
            mean, deviation = _distribution(name, values.float())
            noise = torch.from_numpy(_noise(f"{seed}|{name}", tuple(values.shape)))
            values.copy_((mean + deviation * noise).to(values.dtype))


def _distribution(name: str, initial: Any) -> tuple[float, float]:
    if "norm" in name and name.endswith("weight") and initial.dim() == 1:
        # A norm is its initial constant plus noise: a constant would not show a permutation.
        constant = initial[0].item() if bool((initial == initial[0]).all()) else None
        return (constant if constant in (0.0, 1.0) else 1.0), 0.1
    return 0.0, 0.5 if name.endswith(("sinks", "e_score_correction_bias")) else 0.05


def _noise(seed: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.PCG64(number)).standard_normal(shape).astype(np.float32)


def _record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(_RECORDS[name].read_text(encoding="utf-8"))
    return record


def _leaves(record: Mapping[str, tuple[str, list[int], str]]) -> dict[str, Leaf]:
    return {name: (dtype, tuple(shape), digest) for name, (dtype, shape, digest) in record.items()}
