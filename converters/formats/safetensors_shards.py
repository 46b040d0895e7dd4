"""How tensors are laid out over safetensors files, down to each byte of each header.

Shards follow `huggingface_hub.split_torch_state_dict_into_shards`, which `save_pretrained` calls; the order inside of a
file is that of the safetensors library: by element type, then by name.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from converters.formats.base import TensorInfo
from converters.formats.dtypes import element_size
from converters.formats.safetensors_files import INDEX_FILE, SINGLE_FILE
from converters.formats.safetensors_header import DTYPES, Entry

DEFAULT_MAX_SHARD_SIZE = 5 * 10**9
_CODES = {name: code for code, name in DTYPES.items()}
_RANKS = {name: rank for rank, name in enumerate(DTYPES.values())}


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file to be written.

    Attributes:
        file: its name.
        header: its first bytes, up to the data.
        entries: its tensors by name, in file order.
        size: bytes of the whole file.
    """

    file: str
    header: bytes
    entries: Mapping[str, Entry]
    size: int


def plan_shards(
    tensors: Sequence[TensorInfo], max_shard_size: int, metadata: Mapping[str, str], *, numbered: bool = False
) -> tuple[Shard, ...]:
    """The files that hold tensors given in the order of the model.

    Args:
        tensors: at least one, with distinct names.
        max_shard_size: bytes of tensors per file; a larger tensor has a file of its own.
        metadata: the `__metadata__` of each file.
        numbered: whether a single file is model-00001-of-00001.safetensors.

    Raises:
        ValueError: no tensors, or a name twice.
    """
    if not tensors or len({tensor.name for tensor in tensors}) != len(tensors):
        raise ValueError("shards need at least one tensor, and distinct names")
    groups = list(_split(tensors, max_shard_size))
    if len(groups) == 1 and not numbered:
        return (_shard(SINGLE_FILE, groups[0], metadata),)
    names = (f"model-{number:05d}-of-{len(groups):05d}.safetensors" for number in range(1, len(groups) + 1))
    return tuple(_shard(name, group, metadata) for name, group in zip(names, groups, strict=True))


def index_file(shards: Sequence[Shard]) -> tuple[str, bytes] | None:
    """Name and content of the index as transformers 5 writes it; None for a single file without a number.

    `total_parameters` counts the elements that are stored; transformers counts the model's parameters, which differs
    where a stored tensor is a buffer.
    """
    if [shard.file for shard in shards] == [SINGLE_FILE]:
        return None
    entries = [(name, shard.file, entry) for shard in shards for name, entry in shard.entries.items()]
    index: dict[str, Any] = {
        "metadata": {
            "total_parameters": sum(math.prod(entry.shape) for _, _, entry in entries),
            "total_size": sum(entry.nbytes for _, _, entry in entries),
        },
        "weight_map": {name: file for name, file, _ in entries},
    }
    return INDEX_FILE, (json.dumps(index, indent=2, sort_keys=True) + "\n").encode()


def _split(tensors: Sequence[TensorInfo], limit: int) -> Iterable[list[TensorInfo]]:
    group: list[TensorInfo] = []
    size = 0
    for tensor in tensors:
        nbytes = _nbytes(tensor)
        if nbytes > limit:
            yield [tensor]
            continue
        if size + nbytes > limit:
            yield group
            group, size = [], 0
        group.append(tensor)
        size += nbytes
    if group:
        yield group


def _nbytes(tensor: TensorInfo) -> int:
    return math.prod(tensor.shape) * element_size(tensor.dtype)


def _shard(file: str, tensors: Iterable[TensorInfo], metadata: Mapping[str, str]) -> Shard:
    ordered = sorted(tensors, key=lambda tensor: (-_RANKS[tensor.dtype], tensor.name.encode()))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for tensor in ordered:
        stop = position + _nbytes(tensor)
        code = _CODES[tensor.dtype]
        header[tensor.name] = {"dtype": code, "shape": list(tensor.shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = 8 + len(text)
    entries = {
        tensor.name: Entry(
            tensor.name, tensor.dtype, tensor.shape, start + header[tensor.name]["data_offsets"][0], _nbytes(tensor)
        )
        for tensor in ordered
    }
    return Shard(file, len(text).to_bytes(8, "little") + text, entries, start + position)
