"""What a checkpoint holds, from its headers alone: one object of the same form for every format."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from converters.engine import drivers, maxtext_roots, mirrors, values
from converters.engine import record as record_lib
from converters.engine.destination import DONE
from converters.engine.drivers import Opened
from converters.engine.kept import own_of
from converters.engine.request import AUTO
from converters.formats.base import TensorInfo
from mappings.language.keeping import is_kept
from reporting.diagnostics import RecastError
from validators import hf_config, quantization

SCHEMA = 1
_PARAMS = "params"
_LAYER = re.compile(r"layers_\d+")


@dataclasses.dataclass(frozen=True)
class StatePiece:
    """One part of a training state: moments that mirror the weights, or a single array.

    Attributes:
        name: its path in the tree, as `opt_state.0.mu`.
        arrays: how many arrays it has.
        bytes: their size.
    """

    name: str
    arrays: int
    bytes: int


def describe(path: Path) -> dict[str, Any]:
    """A checkpoint of any format as JSON values.

    Raises:
        RecastError: what is wrong with its headers.
    """
    format = drivers.recognize(path)
    opened = drivers.driver_of(format).open(path)
    try:
        listed = sorted(opened.source.tensors.values(), key=lambda info: info.name)
        quantized = _quantized(opened) if format == "hf" else ()
        special = _hf(opened) if format == "hf" else _maxtext(path, opened)
    finally:
        opened.source.close()
    infos = [info for info in listed if not is_kept(info.name)]
    grids: Mapping[str, Mapping[str, Any]] = special.pop("grids", {})
    return {
        "schema": SCHEMA,
        "format": format,
        "description": opened.description,
        "path": str(opened.root),
        **special,
        "remarks": list(opened.remarks),
        "quantized": list(quantized),
        "made_by_recast": _made(opened),
        "bytes": sum(map(_bytes, infos)),
        "dtypes": dict(Counter(info.dtype for info in infos).most_common()),
        "tensors": [{**_listed(info), **grids.get(info.name, {})} for info in infos],
        "kept": [_listed(info) for info in listed if is_kept(info.name)],
    }


def _quantized(opened: Opened) -> tuple[str, ...]:
    """What the arrays are decoded to in a conversion, where a config beside them announces codes that are known."""
    try:
        config = hf_config.load(opened.root)
    except RecastError:
        return ()
    return () if quantization.check(config) else drivers.decoded(opened, config, AUTO).decoded


def _listed(info: TensorInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "dtype": info.dtype,
        "shape": list(info.shape),
        "bytes": _bytes(info),
        "file": info.location,
    }


def _hf(opened: Opened) -> dict[str, Any]:
    files = Counter(info.location for info in own_of(opened.source.tensors).values())
    return {
        "files": [
            {"name": name, "bytes": (opened.root / name).stat().st_size, "tensors": count}
            for name, count in sorted(files.items())
        ]
    }


def _maxtext(path: Path, opened: Opened) -> dict[str, Any]:
    from converters.formats import orbax_description
    from converters.formats.orbax_directory import resolve

    location = resolve(path)
    stored = orbax_description.describe(location.items)
    names = maxtext_roots.usual_names(stored.arrays)
    scan, known = _scan(opened)
    return {
        "step": location.step,
        "item": location.items.name,
        "other_steps": [step for step in location.other_steps if str(step) not in location.unfinished],
        "unfinished_steps": list(location.unfinished),
        "scan_layers": scan,
        "scan_layers_known_from": known,
        "custom_metadata": dict(opened.metadata),
        "storage": {
            "zarr": stored.zarr,
            "ocdbt": stored.ocdbt,
            "compression": list(stored.compression),
            "bytes": stored.bytes,
            "files": stored.files,
        },
        "training_state": [dataclasses.asdict(piece) for piece in _pieces(own_of(opened.source.tensors))],
        "empty_nodes": {
            name: leaf.value_type for name, leaf in opened.leaves.items() if name not in opened.source.tensors
        },
        "grids": {
            names.get(name, name): {
                "chunk": list(array.chunk),
                "inner_chunk": list(array.inner),
                "compression": array.compression,
            }
            for name, array in stored.arrays.items()
        },
    }


def _scan(opened: Opened) -> tuple[bool | None, str | None]:
    """Whether layers are stacked, and what says so: the metadata, or else names as MaxText gives them."""
    stated = opened.options.get("scan")
    if stated is not None:
        return stated == "true", "metadata"
    keys = {key for name in opened.source.tensors for key in name.split(".")}
    if any(_LAYER.fullmatch(key) for key in keys):
        return False, "names"
    return (True, "names") if "layers" in keys else (None, None)


def _pieces(tensors: Mapping[str, TensorInfo]) -> Iterator[StatePiece]:
    """What lies outside of the parameters; arrays that mirror them count as one piece."""
    pieces: dict[str, list[int]] = {}
    weights = [name for name in tensors if name.startswith(maxtext_roots.ROOT)]
    others = [name for name in tensors if name.split(".")[0] != _PARAMS]
    found = mirrors.find(weights, maxtext_roots.ROOT, others, ())
    mirrored = {name: mirror.prefix for mirror in found for name in mirror.arrays.values()}
    for name in others:
        keys = name.split(".")
        end = keys.index(_PARAMS) if _PARAMS in keys else len(keys)
        pieces.setdefault(mirrored.get(name, ".".join(keys[:end])), []).append(_bytes(tensors[name]))
    return (StatePiece(name, len(sizes), sum(sizes)) for name, sizes in sorted(pieces.items()))


def _made(opened: Opened) -> dict[str, Any] | None:
    """What an earlier run recorded, if the checkpoint is an output of one."""
    if opened.record_folder is None:
        return None
    found = record_lib.read(opened.record_folder)
    if found is None:
        return None
    return {
        "family": found.family,
        "model_name": found.model_name,
        "from": found.source_format,
        "options": dict(found.target_options),
        "done": (opened.record_folder.parent / DONE).exists(),
    }


def _bytes(info: TensorInfo) -> int:
    return math.prod(info.shape) * values.itemsize(info.dtype)
