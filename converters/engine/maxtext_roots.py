"""Where MaxText's different trees keep the same parameters, and a source in which all lie where Linen's lie.

Training and conversion write `params/params/decoder/...`; bare NNX models start at `decoder/...`, reinforcement
learning keeps them under `base`. Facts: maxtext_layout, "other trees it can read".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from converters.engine.values import AnyArray
from converters.formats.base import Region, Source, TensorInfo
from converters.formats.fingerprints import Fingerprint
from converters.formats.orbax_metadata import DICT_KEY, Leaf

ROOT = "params.params."
_OTHER_ROOTS = ("params.", "base.", "model.", "")
_DECODER = "decoder."
# Collections of a bare tree that are no parameters.
_BESIDE = ("opt_state", "optimizer", "step", "rngs", "nnx_aux")


def usual_names(names: Iterable[str]) -> Mapping[str, str]:
    """The usual name of each array that has another one; empty where the tree is the usual one, or no model's."""
    listed = list(names)
    if any(name.startswith(ROOT) for name in listed):
        return {}
    for root in _OTHER_ROOTS:
        if any(name.startswith(f"{root}{_DECODER}") for name in listed):
            inside = [name for name in listed if name.startswith(root)]
            return {name: ROOT + name.removeprefix(root) for name in inside if root or not _is_beside(name)}
    return {}


def usual_leaves(leaves: Mapping[str, Leaf], names: Mapping[str, str]) -> Mapping[str, Leaf]:
    """The leaves of a tree whose arrays get usual names, in the form in which such a tree is written."""
    return {names.get(name, name): _usual(leaf, names.get(name)) for name, leaf in leaves.items()}


class RenamedSource:
    """A source under other names. Thread-safe as the source is."""

    def __init__(self, source: Source, names: Mapping[str, str]):
        """Args: the new names of those arrays that get one."""
        self._source = source
        self._tensors = {
            names.get(name, name): dataclasses.replace(info, name=names.get(name, name))
            for name, info in source.tensors.items()
        }
        self._inner = {new: old for old, new in names.items()}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All stored arrays by name."""
        return self._tensors

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """The box sizes in which the array is stored."""
        return self._source.chunk(self._inner.get(name, name))

    def read(self, name: str, region: Region) -> AnyArray:
        """The elements of a region."""
        return self._source.read(self._inner.get(name, name), region)

    def release(self, name: str, region: Region) -> None:
        """Gives memory back."""
        self._source.release(self._inner.get(name, name), region)

    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """Of the source's files."""
        return tuple(self._source.fingerprints())

    def close(self) -> None:
        """Closes the source."""
        self._source.close()


def _usual(leaf: Leaf, name: str | None) -> Leaf:
    if name is None:
        return leaf
    keys = tuple(name.split("."))
    return dataclasses.replace(leaf, keys=keys, key_types=(DICT_KEY,) * len(keys))


def _is_beside(name: str) -> bool:
    return name.split(".")[0] in _BESIDE
