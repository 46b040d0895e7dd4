"""Single tensors of an output that may be damaged: what can be read is read, whatever happened to the rest.

Sources refuse a checkpoint as a whole, which is right for a conversion. Here every tensor is opened on its own, so that
a flipped byte in one header or index names the tensors that it touches and no others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from converters.engine import kept, values
from converters.engine.values import AnyArray
from converters.formats.base import Region, TensorInfo
from mappings.language import keeping
from mappings.language.keeping import is_kept
from reporting.diagnostics import Diagnostic, RecastError

Box = tuple[tuple[int, int], ...]


class _Readable(Protocol):
    """What both formats' sources offer for one tensor."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def read(self, name: str, region: Region) -> AnyArray: ...

    def release(self, name: str, region: Region) -> None: ...

    def close(self) -> None: ...


class StoredTensors:
    """Tensors by name, each from the part of the checkpoint that holds it. Thread-safe."""

    def __init__(
        self,
        holders: Mapping[str, _Readable],
        faults: Mapping[str, Sequence[Diagnostic]],
        stored: Mapping[str, str] | None = None,
    ):
        """Makes it.

        Args:
            holders: what reads each tensor that could be opened.
            faults: why the others could not.
            stored: the names by which holders know tensors, where these are others.
        """
        self._holders = holders
        self._faults = faults
        self._stored = stored or {}

    def joined(self, beside: StoredTensors, names: Mapping[str, str]) -> StoredTensors:
        """These tensors and others; `names` are those by which the others are asked for here."""
        return StoredTensors(
            {**self._holders, **{names[name]: holder for name, holder in beside._holders.items() if name in names}},
            {**self._faults, **{names[name]: fault for name, fault in beside._faults.items()}},
            {new: name for name, new in names.items()},
        )

    def info(self, name: str) -> TensorInfo:
        """Shape and dtype as stored.

        Raises:
            RecastError: the tensor cannot be opened.
        """
        if name not in self._holders:
            raise RecastError(self._faults[name])
        return self._holders[name].tensors[self._stored.get(name, name)]

    def digest(self, name: str, box: Box, limit: int) -> tuple[str, int]:
        """BLAKE3 of a region's bytes in C order, and their number; read in parts of about `limit` bytes.

        Raises:
            RecastError: the region cannot be read.
        """
        import blake3

        holder, stored = self._holders[name], self._stored.get(name, name)
        info = holder.tensors[stored]
        inside = len(box) == len(info.shape) and all(
            0 <= a <= b <= n for (a, b), n in zip(box, info.shape, strict=True)
        )
        if not inside:
            raise RecastError.of("CHECKPOINT_DAMAGED", f"{box} is no region of it.", subject=name)
        hasher = blake3.blake3()
        size = 0
        for part in _parts(box, values.itemsize(info.dtype), limit):
            data = np.ascontiguousarray(holder.read(stored, part)).reshape(-1).view(np.uint8)
            size += data.nbytes
            hasher.update(data.data)
            holder.release(stored, part)
        return str(hasher.hexdigest()), size

    def close(self) -> None:
        """Closes all that is open."""
        for holder in {id(holder): holder for holder in self._holders.values()}.values():
            holder.close()


def open_tensors(root: Path, names: Sequence[str]) -> StoredTensors:
    """Opens tensors of an output one by one; what cannot be opened is an error only where it is asked for."""
    own = [name for name in names if not is_kept(name)]
    beside = {name.removeprefix(keeping.ROOT): name for name in names if is_kept(name)}
    opened = _from_safetensors(root, own) if any(root.glob("*.safetensors")) else _from_orbax(root, own)
    return opened.joined(_from_safetensors(root / kept.PLACE, list(beside)), beside) if beside else opened


def _from_safetensors(root: Path, names: Sequence[str]) -> StoredTensors:
    from converters.formats.safetensors_source import SafetensorsSource

    holders: dict[str, _Readable] = {}
    broken: list[Diagnostic] = []
    for path in sorted(root.glob("*.safetensors")):
        try:
            source = SafetensorsSource(path)
        except RecastError as error:
            broken.extend(error.diagnostics)
            continue
        holders.update(dict.fromkeys(source.tensors, source))
    lacking = Diagnostic("MISSING_TENSOR", "no safetensors file holds it")
    return StoredTensors(holders, {name: broken or [lacking] for name in names if name not in holders})


def _from_orbax(root: Path, names: Sequence[str]) -> StoredTensors:
    from converters.formats.orbax_pieces import OrbaxPieces

    found = [path.parent for path in sorted(root.glob("*/items/manifest.ocdbt"))] or sorted(root.glob("*/items"))
    if not found:
        missing = [Diagnostic("SOURCE_NOT_RECOGNIZED", "there are neither safetensors files nor an Orbax item")]
        return StoredTensors({}, dict.fromkeys(names, missing))
    pieces = OrbaxPieces(found[0], names)
    holders: dict[str, _Readable] = dict.fromkeys(pieces.tensors, pieces)
    return StoredTensors(holders, pieces.faults)


def _parts(box: Box, itemsize: int, limit: int) -> Iterator[Box]:
    """A box in boxes of at most `limit` bytes whose elements follow each other in the box's C order."""
    rows = math.prod(stop - start for start, stop in box[1:]) * itemsize
    if not box or (box[0][1] - box[0][0]) * rows <= limit:
        yield box
        return
    (start, stop), rest = box[0], box[1:]
    if rows <= limit:
        step = limit // max(rows, 1)
        for low in range(start, stop, step):
            yield ((low, min(low + step, stop)), *rest)
        return
    for low in range(start, stop):
        for part in _parts(rest, itemsize, limit):
            yield ((low, low + 1), *part)
