"""Where MaxText's different trees keep the same parameters, and their names where all lie where Linen's lie.

Training and conversion write `params/params/decoder/...`; bare NNX models start at `decoder/...`, reinforcement
learning keeps them under `base`. Facts: maxtext_layout, "other trees it can read".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from converters.formats.orbax_metadata import DICT_KEY, Leaf

ROOT = "params.params."
Keys = tuple[tuple[str, int], ...]
"""Keys of a tree with the type of each."""

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
    """The leaves of a tree by the usual names of its arrays; their keys stay those of the tree.

    Only where a key with a dot in it reaches beyond the root are they those of the usual tree.
    """
    whole = all(_root_length(names[name], leaf) is not None for name, leaf in leaves.items() if name in names)
    return {names.get(name, name): leaf if whole else _usual(leaf, names.get(name)) for name, leaf in leaves.items()}


def own_root(leaves: Mapping[str, Leaf]) -> Keys | None:
    """The keys below which a tree keeps its parameters, none or one; None where they lie below `params`, `params`."""
    for name, leaf in leaves.items():
        count = _root_length(name, leaf) if name.startswith(ROOT) else None
        if count is not None:
            return tuple(zip(leaf.keys[:count], leaf.key_types[:count], strict=True))
    return None


def below(leaf: Leaf, root: Keys) -> Leaf:
    """A leaf by the keys that follow its root."""
    return dataclasses.replace(leaf, keys=leaf.keys[len(root) :], key_types=leaf.key_types[len(root) :])


def _root_length(name: str, leaf: Leaf) -> int | None:
    """How many keys of a leaf lie before the path that its usual name has behind `params.params`."""
    path = f"{name.removeprefix(ROOT)}."
    return next((n for n in (0, 1) if f"{'.'.join(leaf.keys[n:])}.".startswith(path)), None)


def _usual(leaf: Leaf, name: str | None) -> Leaf:
    if name is None:
        return leaf
    keys = tuple(name.split("."))
    return dataclasses.replace(leaf, keys=keys, key_types=(DICT_KEY,) * len(keys))


def _is_beside(name: str) -> bool:
    return name.split(".")[0] in _BESIDE
