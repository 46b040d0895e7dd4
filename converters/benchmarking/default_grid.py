"""Rewrites a checkpoint in the grid that MaxText writes by default.

With its 16 simulated devices each leaf is cut in 16 chunks along its first axis, and each chunk spans all layers; the
sharding codec holds one inner chunk, compressed by zstd at level 3.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import tensorstore as ts

_DEVICES = 16
_ZSTD_LEVEL = 3
_CONTEXT = {"cache_pool": {"total_bytes_limit": 0}, "file_io_sync": False}
_COPIED = ("0/_CHECKPOINT_METADATA", "0/commit_success.txt", "0/items/_METADATA", "0/items/commit_success.txt")
_EMPTY = ("None", "Dict", "List", "Tuple", "NamedTuple")


def rewrite(checkpoint: Path, destination: Path) -> None:
    """Copies the arrays of `checkpoint/0/items` into a new directory; what only Recast writes stays behind.

    Memory: one chunk at a time, a 16th of an array.
    """
    (destination / "0" / "items").mkdir(parents=True)
    for name in _COPIED:
        shutil.copyfile(checkpoint / name, destination / name)
    context = ts.Context(_CONTEXT)
    for name in array_names(checkpoint):
        _rewrite_array(_open(checkpoint, name, context), _spec(destination, name), context)


def array_names(checkpoint: Path) -> list[str]:
    """The dotted names of all arrays that `_METADATA` lists."""
    listed = json.loads((checkpoint / "0/items/_METADATA").read_text("utf-8"))["tree_metadata"]
    return [
        ".".join(key["key"] for key in leaf["key_metadata"])
        for leaf in listed.values()
        if leaf["value_metadata"]["value_type"] not in _EMPTY
    ]


def chunk_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The chunk of a leaf: its first axis that 16 divides is cut, or none."""
    axis = next((axis for axis, size in enumerate(shape) if size % _DEVICES == 0), None)
    return tuple(size // _DEVICES if at == axis else size for at, size in enumerate(shape))


def _rewrite_array(source: Any, spec: dict[str, Any], context: Any) -> None:
    shape = tuple(int(size) for size in source.shape)
    chunk = chunk_of(shape)
    spec["metadata"] = {
        "shape": list(shape),
        "data_type": source.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "codecs": [_sharding(chunk)],
        "fill_value": 0,
    }
    target = ts.open(spec, context=context, create=True).result()
    cut = next((axis for axis in range(len(shape)) if chunk[axis] != shape[axis]), None)
    if cut is None:
        target.write(source.read().result()).result()
        return
    for start in range(0, shape[cut], chunk[cut]):
        part = (slice(None),) * cut + (slice(start, start + chunk[cut]),)
        target[part].write(source[part].read().result()).result()


def _sharding(chunk: tuple[int, ...]) -> dict[str, Any]:
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    configuration = {
        "chunk_shape": list(chunk),
        "codecs": [little, {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL}}],
        "index_codecs": [little, {"name": "crc32c"}],
    }
    return {"name": "sharding_indexed", "configuration": configuration}


def _open(checkpoint: Path, name: str, context: Any) -> Any:
    return ts.open(_spec(checkpoint, name), context=context, open=True, read=True).result()


def _spec(checkpoint: Path, name: str) -> dict[str, Any]:
    base = {"driver": "file", "path": f"{checkpoint}/0/items/"}
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"},
        "store_data_equal_to_fill_value": True,
    }
