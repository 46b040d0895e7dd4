"""The names that a Hugging Face checkpoint's arrays should have, where what saved it gave them others.

transformers reads such files as well: wrappers (torch.compile, DistributedDataParallel, PEFT) put their own name in
front, a base model (AutoModel) is saved without the `model.` of the whole one, and `safetensors.torch.save_model` keeps
but one of two tied arrays, which may be the head.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from converters.engine import binding
from converters.formats.base import TensorInfo
from mappings import catalog
from reporting.diagnostics import RecastError
from validators import hf_config

_MODEL = "model."
_WRAPPERS = ("module.", "_orig_mod.", "base_model.model.")
# What any decoder has, by its names in a base model; and what only an EAGLE draft has, whose names lack `model.` too.
_BASE = (("embed_tokens.weight", "norm.weight"), ("language_model.embed_tokens.weight", "language_model.norm.weight"))
_DRAFT = "fc.weight"
_NESTED = ("model.model.embed_tokens.weight", "model.lm_head.weight")
_HEAD = "lm_head.weight"
_EMBEDDING = "embed_tokens.weight"
_LORA = ".lora_"


def usual_names(tensors: Mapping[str, TensorInfo], directory: Path) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The usual name of each array that has another one, and what was done to names, in words.

    Args:
        tensors: the arrays by the names in their files.
        directory: the checkpoint's; its config.json says whether arrays are tied.
    """
    usual = {name: name for name in tensors}
    lines = []
    while wrapper := _wrapper(usual.values()):
        usual = {name: now.removeprefix(wrapper) for name, now in usual.items()}
        lines.append(
            f"all names of the files begin with {wrapper}, of whatever wrapped the model; they are read without"
        )
    if _is_base(usual.values()):
        usual = {name: now if now == _HEAD else _MODEL + now for name, now in usual.items()}
        lines.append(f"the files are of a base model: their names are read with {_MODEL} in front")
    tied = _tied({now: tensors[name] for name, now in usual.items()}, directory)
    if tied:
        usual = {name: tied.get(now, now) for name, now in usual.items()}
        lines += [
            f"{old} is read as {new}, to which config.json ties it and which the files lack"
            for old, new in tied.items()
        ]
    return {name: now for name, now in usual.items() if name != now}, tuple(lines)


def _wrapper(names: Collection[str]) -> str:
    """What stands in front of all names, and not in those of a model; "" where nothing does."""
    if not names or any(_LORA in name for name in names):
        return ""
    candidates = [*_WRAPPERS, *([_MODEL] if any(name in names for name in _NESTED) else [])]
    return next((prefix for prefix in candidates if all(name.startswith(prefix) for name in names)), "")


def _is_base(names: Collection[str]) -> bool:
    whole = any(all(name in names for name in pair) for pair in _BASE)
    return whole and _DRAFT not in names and not any(name.startswith(_MODEL) for name in names)


def _tied(tensors: Mapping[str, TensorInfo], directory: Path) -> Mapping[str, str]:
    """The name of the embedding by that of the head, where config.json ties them and the head alone is stored."""
    heads = [name for name in tensors if name.endswith(_HEAD)]
    if not heads or any(name.endswith(_EMBEDDING) for name in tensors):
        return {}
    try:
        config = hf_config.load(directory)
        name = catalog.family_of(config)
        if name is None:
            return {}
        family = binding.family_for(name, config)
        layout, _ = binding.detected_layout(family, name, "hf", {}, tensors)
    except RecastError:
        # What is wrong with the config is told where it is read to be used.
        return {}
    arrays = {
        id: {
            name
            for place in layout.places.get(("", id), ())
            for rank in place.ranks.values()
            for name in place.names_of(rank)
        }
        for id in {*family.ties, *family.ties.values()}
    }
    found = {}
    for tied, target in family.ties.items():
        if len(arrays[tied]) == len(arrays[target]) == 1:
            (old,), (new,) = arrays[tied], arrays[target]
            if old in tensors and new not in tensors:
                found[old] = new
    return found
