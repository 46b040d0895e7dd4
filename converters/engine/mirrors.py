"""Finds the parts of a training state that mirror the weights, such as an optimizer's moments, by names and shapes.

A mirror is a set of arrays whose paths, behind a common prefix, are the paths of the weights: `opt_state.0.mu.` before
`params.decoder.layers.mlp.wi_0.kernel`. Optimizers that are given a part of the weights only (optax.masked,
multi_transform) leave an empty node at the place of each of the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Mirror:
    """One set of arrays that is named like the weights.

    Attributes:
        prefix: what stands before the paths, without the dot at its end.
        cut: how many keys of a weight's name its counterpart leaves out.
        arrays: name of each array, by the weight that it belongs to.
        masked: for each weight without one, the empty node that says so.
        missing: names that ought to be there.
    """

    prefix: str
    cut: int
    arrays: Mapping[str, str]
    masked: Mapping[str, str]
    missing: tuple[str, ...]

    def name_of(self, weight: str) -> str:
        """The name of a weight's counterpart."""
        return _join(self.prefix, _below(weight, self.cut))


def find(weights: Iterable[str], root: str, arrays: Iterable[str], empty: Iterable[str]) -> list[Mirror]:
    """All mirrors of a tree, in the order in which they first appear.

    Args:
        weights: names of the weights.
        root: what most of them begin with; the others form collections that a mirror may leave out.
        arrays: names of the other arrays.
        empty: names of leaves without data.
    """
    nodes = set(empty)
    others = tuple(arrays)
    if not others and not nodes:
        return []
    index = _Index(weights, root)
    found: dict[tuple[str, int], dict[str, str]] = {}
    for name in others:
        match = index.match(name)
        if match is not None:
            prefix, weight, cut = match
            found.setdefault((prefix, cut), {})[weight] = name
    for name in nodes:
        node = index.match_node(name)
        if node is not None:
            found.setdefault(node, {})
    return [_mirror(prefix, cut, members, index, nodes) for (prefix, cut), members in sorted(found.items())]


class _Index:
    """Looks a name's ends up among the paths of the weights, the longest first."""

    def __init__(self, weights: Iterable[str], root: str):
        self.weights = tuple(weights)
        self._root = root
        self._paths: dict[str, tuple[str, int]] = {}
        self._nodes: dict[str, int] = {}
        for cut in sorted({0, 1, root.count(".")}):
            for weight in self.weights:
                path = _below(weight, cut)
                if not path:
                    continue
                self._paths.setdefault(path, (weight, cut))
                for above in (path, *_above(path)):
                    self._nodes.setdefault(above, cut)

    def match(self, name: str) -> tuple[str, str, int] | None:
        """(prefix, weight, cut) of an array."""
        for prefix, path in _ends(name):
            if path in self._paths:
                return prefix, *self._paths[path]
        return None

    def match_node(self, name: str) -> tuple[str, int] | None:
        """(prefix, cut) of a leaf without data, which stands for a weight or for all weights below a path."""
        for prefix, path in _ends(name):
            if path in self._nodes:
                return prefix, self._nodes[path]
        return None

    def required(self, cut: int, members: Mapping[str, str]) -> Iterator[str]:
        """The weights that a mirror must have once it has these."""
        begun = {weight.split(".")[:2][-1] for weight in members if not weight.startswith(self._root)}
        for weight in self.weights:
            if weight.startswith(self._root) or (cut < 2 and weight.split(".")[:2][-1] in begun):
                yield weight


def _mirror(prefix: str, cut: int, members: Mapping[str, str], index: _Index, nodes: set[str]) -> Mirror:
    masked: dict[str, str] = {}
    missing: list[str] = []
    for weight in index.required(cut, members):
        if weight in members:
            continue
        name = _join(prefix, _below(weight, cut))
        node = next((above for above in (name, *_above(name)) if above in nodes and len(above) > len(prefix)), None)
        if node is not None:
            masked[weight] = node
        else:
            missing.append(name)
    # Where there are empty nodes only, nothing says that the other weights ever had a counterpart.
    return Mirror(prefix, cut, dict(members), masked, tuple(missing) if members else ())


def _ends(name: str) -> Iterator[tuple[str, str]]:
    """(prefix, rest) for each dot in a name, the longest rest first."""
    at = name.find(".")
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.find(".", at + 1)


def _above(path: str) -> Iterator[str]:
    """The paths above a path, the longest first."""
    at = path.rfind(".")
    while at > 0:
        yield path[:at]
        at = path.rfind(".", 0, at)


def _below(name: str, cut: int) -> str:
    return name.split(".", cut)[-1] if name.count(".") >= cut else ""


def _join(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if prefix else path
