"""Arrays that are encoded with one scale for all of their elements, and which arrays of a model these are."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from converters.formats.base import Region
from validators.quantization import FLOAT8, Weights

ENCODING_BYTES = 6 << 20
"""What encoding a unit allocates: tables of all numbers of 16 bits, and how often each occurs."""

_MATRICES = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
    *("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"),
    *("in_proj_qkv", "in_proj_qkvz", "in_proj_z", "out_proj", "wq_b", "wk"),
)
_STACKS = ("gate_up_proj", "down_proj")
# A layer of the language model: those of a vision tower have another root.
_LAYER = r"(?:(?:model|language_model)\.)*layers\.\d+\."
_MATRIX = re.compile(rf"{_LAYER}(?:.*\.)?(?:{'|'.join(_MATRICES)})\.weight")
_STACK = re.compile(rf"{_LAYER}(?:.*\.)?experts\.(?:{'|'.join(_STACKS)})")
_EXPERTS = r"re:.*\.experts$"
_LANGUAGE = re.compile(r"((?:model|language_model)\.)*(layers|embed_tokens|norm|lm_head)\.")


@dataclasses.dataclass(frozen=True)
class WholeTensors:
    """How arrays are encoded.

    Attributes:
        names: of the arrays.
    """

    names: frozenset[str]

    @property
    def ending(self) -> str:
        """What compressed-tensors adds to the name of a weight."""
        return "_scale"

    @property
    def weights(self) -> Weights:
        """The way in which the arrays are stored."""
        return Weights(FLOAT8, 8, (0, 0))

    @property
    def encoding_bytes(self) -> int:
        """What encoding a unit allocates beside its codes, at most."""
        return ENCODING_BYTES

    def grid(self, shape: Sequence[int]) -> tuple[int, ...]:
        """A list of one, whatever the shape."""
        return (1,)

    def region(self, region: Region) -> Region:
        """The one scale."""
        return ((0, 1),)

    def units(self, chunk: Sequence[int], shape: Sequence[int], room: int) -> tuple[int, ...]:
        """All of an array where there is room, since it is then read only once; else the given size."""
        return tuple(shape) if math.prod(shape) <= room else tuple(chunk)


def chosen(shapes: Mapping[str, Sequence[int]]) -> frozenset[str]:
    """The arrays of a model that get codes: matrices of its language layers' linear modules, and stacks of experts.

    Args:
        shapes: of all arrays, by their Hugging Face names.
    """
    return frozenset(
        name
        for name, shape in shapes.items()
        if (len(shape) == 2 and _MATRIX.fullmatch(name)) or (len(shape) == 3 and _STACK.fullmatch(name))
    )


def stacks(names: Iterable[str]) -> list[str]:
    """Those of the names that are stacks of experts, which are no weight of a linear module."""
    return [name for name in names if _STACK.fullmatch(name)]


def announced(form: WholeTensors, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The quantization_config of a checkpoint in this form, as compressed-tensors has it.

    Args:
        form: what is encoded.
        shapes: of all arrays that are written.
    """
    weights = {
        "num_bits": 8,
        "type": "float",
        "symmetric": True,
        "strategy": "tensor",
        "group_size": None,
        "block_structure": None,
        "dynamic": False,
        "actorder": None,
    }
    # Stacks of experts are parameters of a module of its own kind.
    targets = ["Linear"], *([_EXPERTS] for _ in stacks(form.names)[:1])
    groups = {
        f"group_{i}": {"targets": each, "weights": weights, "input_activations": None, "output_activations": None}
        for i, each in enumerate(targets)
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": _ignored(form, shapes),
        "kv_cache_scheme": None,
    }


def _ignored(form: WholeTensors, shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Patterns of the modules that stay plain: by the last part of their names, as versions change the first."""
    found = {"lm_head": None}
    for name, shape in shapes.items():
        if name in form.names or not name.endswith(".weight") or len(shape) != 2:
            continue
        module = name.removesuffix(".weight")
        leaf = module.rpartition(".")[2]
        if not _LANGUAGE.match(name):
            root = module.removeprefix("model.").partition(".")[0]
            found[f"re:.*{re.escape(root)}\\..*"] = None
        elif leaf != "embed_tokens" and module != "lm_head":
            found[f"re:.*\\.{re.escape(leaf)}$"] = None
    return list(found)
