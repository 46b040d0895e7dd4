"""Binding a family to a config: which logical tensors a model has, their axes, and the layers that have them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

from mappings.language import requirements
from mappings.language.errors import Issues, MappingErrors
from mappings.language.limits import MAX_INDEX_VALUES, check_enumerable
from mappings.language.nodes import FamilyNode, FamilySource, Group, TensorNode
from mappings.language.scopes import Symbols

IndexValue = tuple[int, ...]
"""Values of a tensor's index atoms; () for a tensor outside layers."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A logical tensor of one model.

    Attributes:
        id: its id, such as "attn.q".
        atoms: its axes without the enumerated ones, as plain atoms, major first.
        index_atoms: its enumerated axes (layers).
        present: the index values for which it exists, ascending.
        sizes: the size of each of its atoms, index atoms included.
        location: "file:line".
        keep_dtype: whether the source's dtype is kept whatever a run asks for.
    """

    id: str
    atoms: tuple[str, ...]
    index_atoms: tuple[str, ...]
    present: tuple[IndexValue, ...]
    sizes: Mapping[str, int]
    location: str
    keep_dtype: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of `atoms`: the shape of the tensor for one index value."""
        return tuple(self.sizes[atom] for atom in self.atoms)

    @property
    def empty(self) -> bool:
        """Whether it has no elements."""
        return not self.present or 0 in self.shape


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Family:
    """The logical tensors of one model.

    Attributes:
        name: the family asked for.
        config: the config that bound it.
        tensors: by id; those outside groups first, each in the order of the file.
        ties: from the id of a tied tensor to the id of the tensor that it is.
        known: ids of all tensors of the family, of those too that this config lacks.
        index_atoms: atoms that are enumerated.
        symbols: for expressions over the config.
        source: the files' content.
    """

    name: str
    config: Mapping[str, object]
    tensors: Mapping[str, Tensor]
    ties: Mapping[str, str]
    known: frozenset[str]
    index_atoms: frozenset[str]
    symbols: Symbols
    source: FamilySource


def bind_family(source: FamilySource, config: Mapping[str, object]) -> Family:
    """The logical tensors that a config gives.

    Args:
        source: the family, see `loader.load_family`.
        config: config.json as parsed.

    Raises:
        MappingErrors: all issues found: keys that the config lacks, sizes that are no sizes, requirements that do
            not hold, ties between tensors of different axes.
    """
    node = source.node
    issues = Issues()
    symbols = Symbols(config, node.config_root)
    for let in node.let:
        with issues:
            symbols.define(let)
    for atom in node.atom:
        with issues:
            symbols.add_atom(atom)
    for require in node.require:
        with issues:
            requirements.check(require, symbols)
    tensors = _tensors(node, symbols, issues)
    ties = _ties(node, symbols, tensors, issues)
    issues.raise_any()
    return Family(
        name=source.name,
        config=config,
        tensors=tensors,
        ties=ties,
        known=frozenset(group.id + tensor.id for group, tensor in declared_tensors(node)),
        index_atoms=frozenset(atom.name for atom in node.atom if atom.index),
        symbols=symbols,
        source=source,
    )


def declared_tensors(node: FamilyNode) -> Iterator[tuple[Group, TensorNode]]:
    """All tensors of a family file with their group; one without id or axes for those that stand alone."""
    for tensor in node.tensor:
        yield Group(location=tensor.location), tensor
    for group in node.group:
        for tensor in group.tensor:
            yield group, tensor


def _tensors(node: FamilyNode, symbols: Symbols, issues: Issues) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    binder = _TensorBinder(symbols, frozenset(atom.name for atom in node.atom if atom.index))
    for group, tensor in declared_tensors(node):
        with issues:
            bound = binder.bind(group, tensor)
            if bound is None:
                continue
            if bound.id in tensors:
                raise MappingErrors.of(tensor.location, f"tensor '{bound.id}' defined twice", "syntax")
            tensors[bound.id] = bound
    return tensors


class _TensorBinder:
    """Binds tensors; the layers that a condition leaves are computed once."""

    def __init__(self, symbols: Symbols, index_atoms: frozenset[str]):
        self._symbols = symbols
        self._index_atoms = index_atoms
        self._present: dict[tuple[tuple[str, ...], str, str], tuple[IndexValue, ...]] = {}

    def bind(self, group: Group, node: TensorNode) -> Tensor | None:
        """The tensor, None where a condition excludes it."""
        symbols = self._symbols
        if not (symbols.holds(group.when, group.location) and symbols.holds(node.when, node.location)):
            return None
        named = (*group.axes.split(), *node.axes.split())
        atoms = [leaf for name in named for leaf in symbols.expand(name, node.location)]
        if len(set(atoms)) != len(atoms):
            raise MappingErrors.of(node.location, f"tensor '{group.id + node.id}' names an axis twice", "syntax")
        index_atoms = tuple(atom for atom in atoms if atom in self._index_atoms)
        sizes = self._sizes(atoms, node)
        return Tensor(
            id=group.id + node.id,
            atoms=tuple(atom for atom in atoms if atom not in self._index_atoms),
            index_atoms=index_atoms,
            present=self._index_values(index_atoms, sizes, group, node),
            sizes=sizes,
            location=node.location,
            keep_dtype=node.keep_dtype,
        )

    def _sizes(self, atoms: Iterable[str], node: TensorNode) -> dict[str, int]:
        """Sizes of atoms; all that are wrong are reported together."""
        issues = Issues()
        sizes: dict[str, int] = {}
        for atom in atoms:
            with issues:
                sizes[atom] = self._symbols.size(atom, node.location)
        issues.raise_any()
        return sizes

    def _index_values(
        self, atoms: tuple[str, ...], sizes: Mapping[str, int], group: Group, node: TensorNode
    ) -> tuple[IndexValue, ...]:
        key = (atoms, group.where, node.where)
        if key in self._present:
            return self._present[key]
        counts = [sizes[atom] for atom in atoms]
        for atom in atoms:
            place = self._symbols.atom(atom)
            location = place.location if place else node.location
            check_enumerable(sizes[atom], MAX_INDEX_VALUES, f"values of the index '{atom}'", location)
        check_enumerable(math.prod(counts), MAX_INDEX_VALUES, f"index values of '{group.id + node.id}'", node.location)
        values = tuple(
            value
            for value in itertools.product(*map(range, counts))
            if all(
                self._symbols.holds(where, place.location, dict(zip(atoms, value, strict=True)))
                for where, place in ((group.where, group), (node.where, node))
                if where
            )
        )
        self._present[key] = values
        return values


def _ties(node: FamilyNode, symbols: Symbols, tensors: Mapping[str, Tensor], issues: Issues) -> dict[str, str]:
    ties: dict[str, str] = {}
    for tie in node.tie:
        with issues:
            if tie.tensor not in tensors or not symbols.holds(tie.when, tie.location):
                continue
            tied, target = tensors[tie.tensor], tensors.get(tie.to)
            same = target is not None and (tied.atoms, tied.present) == (target.atoms, target.present)
            if not same or tie.to in ties or tie.tensor in ties:
                raise MappingErrors.of(tie.location, f"tie of '{tie.tensor}' to '{tie.to}': axes differ")
            ties[tie.tensor] = tie.to
    return ties
