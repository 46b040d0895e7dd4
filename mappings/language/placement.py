"""Placing the tensors of one rule in one site: array shape, address of every digit, and what spells every atom."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Container, Iterable, Mapping

from mappings.language import axes as axis_language
from mappings.language.axes import Axes, Branch, Sum
from mappings.language.errors import MappingErrors, reading
from mappings.language.family import Family, IndexValue, Tensor
from mappings.language.limits import MAX_ARRAYS, MAX_ELEMENTS, check_enumerable
from mappings.language.naming import BoundName, Digits, Namer
from mappings.language.nodes import LayoutNode, Rule
from mappings.language.operations import RuleForm
from mappings.language.places import Form, Padding, Place, Site
from mappings.language.scopes import Symbols


@dataclasses.dataclass(frozen=True, slots=True)
class _Geometry:
    """The arrays of a rule: shape, where each written axis went, and stacked digits."""

    axes: Axes
    shape: tuple[int, ...]
    positions: tuple[int, ...]
    stacked: Mapping[str, int]


class Placer:
    """Places rules of one layout."""

    def __init__(self, family: Family, node: LayoutNode, symbols: Symbols, namer: Namer):
        self._family = family
        self._node = node
        self._symbols = symbols
        self._namer = namer
        self._arrays = 0

    def place(self, rule: Rule, site: Site, form: RuleForm, mirror: str = "", root: str | None = None) -> list[Place]:
        """The places of a rule's tensors in a site; [] if this config has none of them.

        Args:
            rule: the rule.
            site: where it is applied.
            form: its operations and codec, evaluated.
            mirror: the training state to place instead of weights.
            root: the prefix of names, instead of the rule's or layout's.

        Raises:
            MappingErrors: the rule does not give each element of its tensors one place.
        """
        axes = reading(axis_language.parse, rule.axes, rule.location)
        ids = self._tensor_ids(rule, axes)
        if not ids:
            return []
        tensors = [self._family.tensors[id] for id in ids]
        name = self._name(rule, site, root)
        geometry = self._geometry(rule, site, axes)
        shared = Form(
            rule=rule,
            site=site,
            shape=geometry.shape,
            stack_axes=tuple(sorted(geometry.stacked.values())),
            tensors=ids,
            paddings=self._paddings(rule, site, geometry),
            ops=form.ops,
            codec=form.codec,
            optional=form.optional,
            keep_dtype=tensors[0].keep_dtype,
            mirror=mirror,
        )
        if len({tensor.keep_dtype for tensor in tensors}) > 1:
            raise MappingErrors.of(rule.location, f"only some of {list(ids)} keep their dtype", "syntax")
        return [self._place(shared, geometry, tensor, name) for tensor in tensors]

    # ---- what the rule says

    def _tensor_ids(self, rule: Rule, axes: Axes) -> tuple[str, ...]:
        if axes.tensors and rule.tensor:
            raise MappingErrors.of(rule.location, "a rule with labelled branches has no 'tensor'", "syntax")
        ids = axes.tensors or ((rule.tensor,) if rule.tensor else ())
        if not ids:
            raise MappingErrors.of(rule.location, "a rule without tensor", "syntax")
        for id in ids:
            if id not in self._family.known:
                raise MappingErrors.of(rule.location, f"unknown tensor '{id}'", "unknown")
        live = [id for id in ids if id in self._family.tensors]
        if live and len(live) != len(ids):
            text = f"only {live} of {list(ids)} exist for this config; give the rule a 'when'"
            raise MappingErrors.of(rule.location, text)
        return ids if live else ()

    def _name(self, rule: Rule, site: Site, root: str | None) -> BoundName:
        prefix = root if root is not None else rule.root or self._node.root
        texts = (prefix, rule.location), (site.node.name, site.node.location), (rule.name, rule.location)
        return self._namer.bind_full((self._node.part, self._node.location), texts, site.over)

    def _size(self, digit: str, site: Site, rule: Rule) -> int:
        return site.over[digit] if digit in site.over else self._symbols.size(digit, rule.location)

    def _leaves(self, atoms: Iterable[str], site: Site, rule: Rule) -> Digits:
        """Plain digits of atoms, major first, with their sizes."""
        return tuple(
            (leaf, self._size(leaf, site, rule))
            for atom in atoms
            for leaf in ((atom,) if atom in site.over else self._symbols.expand(atom, rule.location))
        )

    # ---- arrays

    def _geometry(self, rule: Rule, site: Site, axes: Axes) -> _Geometry:
        plain = [math.prod([self._factor_size(factor, site, rule) for factor in axis]) for axis in axes.axes]
        at = 0
        text, location = self._node.stack_axis, self._node.location
        if site.node.stack_axis:
            text, location = site.node.stack_axis, site.node.location
        if text and site.stack:
            at = self._symbols.integer(text, location)
        if at < 0:
            raise MappingErrors.of(location, f"stack_axis is {at}", "size")
        at = min(at, len(plain))
        stacked = {digit: at + i for i, digit in enumerate(site.stack)}
        sizes = [self._size(digit, site, rule) for digit in site.stack]
        shape = (*plain[:at], *sizes, *plain[at:])
        check_enumerable(math.prod(shape), MAX_ELEMENTS, "elements of one array", rule.location)
        positions = tuple(i if i < at else i + len(sizes) for i in range(len(plain)))
        return _Geometry(axes, shape, positions, stacked)

    def _factor_size(self, factor: str | Sum, site: Site, rule: Rule) -> int:
        if isinstance(factor, str):
            return math.prod([size for _, size in self._leaves((factor,), site, rule)])
        return sum(self._branch_size(branch, site, rule) for branch in factor.branches)

    def _branch_size(self, branch: Branch, site: Site, rule: Rule) -> int:
        if not branch.padding:
            return math.prod([size for _, size in self._leaves(branch.atoms, site, rule)])
        size = self._symbols.integer(branch.padding, rule.location)
        if size < 0:
            raise MappingErrors.of(rule.location, f"padding of {size} elements, from '{branch.padding}'", "size")
        return size

    def _paddings(self, rule: Rule, site: Site, geometry: _Geometry) -> tuple[Padding, ...]:
        if geometry.axes.sum is None or geometry.axes.sum_at is None:
            return ()
        axis, factor = geometry.axes.sum_at
        position = geometry.positions[axis]
        factors = geometry.axes.axes[axis]
        minor = math.prod([self._factor_size(f, site, rule) for f in factors[factor + 1 :]])
        major = math.prod([self._factor_size(f, site, rule) for f in factors[:factor]])
        total = self._factor_size(geometry.axes.sum, site, rule)
        others = [(size, i, 1) for i, size in enumerate(geometry.shape) if i != position]
        found: list[Padding] = []
        offset = 0
        for branch in geometry.axes.sum.branches:
            size = self._branch_size(branch, site, rule)
            if branch.padding and size:
                base = tuple(offset * minor if i == position else 0 for i in range(len(geometry.shape)))
                dims = [*others, (major, position, total * minor), (size * minor, position, 1)]
                found.append(Padding(base, tuple(dim for dim in dims if dim[0] != 1)))
            offset += size
        return tuple(found)

    def _address(self, form: Form, geometry: _Geometry, tensor: Tensor) -> tuple[dict[str, tuple[int, int]], list[int]]:
        """(axis, weight) of each digit in an array axis, and where the tensor's branch starts."""
        rule, site = form.rule, form.site
        address: dict[str, tuple[int, int]] = {}
        start = [0] * len(form.shape)

        def lay(atoms: Iterable[str], axis: int, weight: int) -> None:
            for leaf, size in reversed(self._leaves(atoms, site, rule)):
                if leaf in address:
                    raise MappingErrors.of(rule.location, f"axis '{leaf}' appears twice", "syntax")
                address[leaf] = (axis, weight)
                weight *= size

        for factors, axis in zip(geometry.axes.axes, geometry.positions, strict=True):
            weight = 1
            for factor in reversed(factors):
                if isinstance(factor, str):
                    lay((factor,), axis, weight)
                else:
                    offset = 0
                    for branch in factor.branches:
                        if not branch.padding and branch.tensor in ("", tensor.id):
                            start[axis] += offset * weight
                            lay(branch.atoms, axis, weight)
                        offset += self._branch_size(branch, site, rule)
                weight *= self._factor_size(factor, site, rule)
        for digit, axis in geometry.stacked.items():
            if digit in address:
                raise MappingErrors.of(rule.location, f"stacked digit '{digit}' stands in the axes", "syntax")
            address[digit] = (axis, 1)
        return address, start

    # ---- one tensor

    def _place(self, form: Form, geometry: _Geometry, tensor: Tensor, name: BoundName) -> Place:
        rule, site = form.rule, form.site
        self._check_digits(site, tensor.atoms, tensor)
        address, start = self._address(form, geometry, tensor)
        both = next((digit for digit in name.digits if digit in address), None)
        if both is not None:
            raise MappingErrors.of(rule.location, f"'{both}' stands in the name and in an axis", "syntax")
        mentioned = {**dict.fromkeys(address), **dict.fromkeys(name.digits)}
        spelling = {atom: self._spell(atom, tensor, mentioned, rule) for atom in tensor.atoms}
        used = {digit for digits in spelling.values() for digit, _ in digits}
        self._check_digits(site, used, tensor)
        used |= self._check_index(tensor, site, mentioned, rule)
        copies = self._copies(rule, name, used)
        extra = next((digit for digit in mentioned if digit not in used and digit not in copies), None)
        if extra is not None:
            text = f"'{extra}' is not an axis of tensor '{tensor.id}' (say copies: if equal copies are meant)"
            raise MappingErrors.of(rule.location, text)
        return self._enumerated(form, tensor, name, address, tuple(start), spelling, copies)

    def _check_digits(self, site: Site, axes: Container[str], tensor: Tensor) -> None:
        clash = next((digit for digit in site.over if digit in axes), None)
        if clash is not None:
            text = f"digit '{clash}' of 'over' is an axis of tensor '{tensor.id}'"
            raise MappingErrors.of(site.node.location, text, "syntax")

    def _spell(self, atom: str, tensor: Tensor, mentioned: Mapping[str, None], rule: Rule) -> Digits:
        candidates = [self._symbols.expand(atom, rule.location), *self._symbols.spellings(atom)]
        fitting = [leaves for leaves in dict.fromkeys(candidates) if all(leaf in mentioned for leaf in leaves)]
        if len(fitting) != 1:
            what = "several places" if fitting else "no place"
            raise MappingErrors.of(rule.location, f"axis '{atom}' of tensor '{tensor.id}' has {what} in this rule")
        digits = tuple((leaf, self._symbols.size(leaf, rule.location)) for leaf in fitting[0])
        if math.prod([size for _, size in digits]) != tensor.sizes[atom]:
            product = " * ".join(f"{leaf}={size}" for leaf, size in digits)
            text = f"'{atom}' = {tensor.sizes[atom]} is not the product {product}"
            raise MappingErrors.of(rule.location, text, "size")
        return digits

    def _check_index(self, tensor: Tensor, site: Site, mentioned: Mapping[str, None], rule: Rule) -> set[str]:
        """Digits that the index values determine."""
        if site.mapped and site.mapped not in tensor.index_atoms:
            raise MappingErrors.of(rule.location, f"tensor '{tensor.id}' has no axis '{site.mapped}'")
        lost = next((a for a in tensor.index_atoms if a != site.mapped and a not in mentioned), None)
        if lost is not None:
            raise MappingErrors.of(rule.location, f"axis '{lost}' of tensor '{tensor.id}' has no place in this rule")
        determined = {*tensor.index_atoms, *site.over}
        loose = next((digit for digit in site.stack if digit not in determined), None)
        if loose is not None:
            text = f"'{loose}' is stacked, but is no index of tensor '{tensor.id}'"
            raise MappingErrors.of(site.node.location, text)
        return determined

    def _copies(self, rule: Rule, name: BoundName, used: set[str]) -> dict[str, int]:
        """Digits of the name that enumerate equal copies of this tensor, with their sizes."""
        declared = [leaf for copy in rule.copies.split() for leaf in self._symbols.expand(copy, rule.location)]
        if not all(leaf in name.digits for leaf in declared):
            raise MappingErrors.of(rule.location, f"copies '{rule.copies}' are not in the name", "syntax")
        return {leaf: name.digits[leaf] for leaf in declared if leaf not in used}

    def _enumerated(
        self,
        form: Form,
        tensor: Tensor,
        name: BoundName,
        address: dict[str, tuple[int, int]],
        start: tuple[int, ...],
        spelling: dict[str, Digits],
        copies: dict[str, int],
    ) -> Place:
        fixed = _index_digits(tensor, form.site)
        determined = {*tensor.index_atoms, *form.site.over}
        free = {digit: size for digit, size in name.digits.items() if digit not in determined}
        count = math.prod(free.values())
        self._arrays += count * len(fixed)
        check_enumerable(self._arrays, MAX_ARRAYS, "arrays of the layout", form.rule.location)
        values = itertools.product(*map(range, free.values()))
        combinations = [dict(zip(free, value, strict=True)) for value in values]
        names = tuple(name.texts(fixed.values(), combinations))
        weights = _row_major(free)
        stacked = {digit: address[digit][0] for digit in form.site.stack}
        return Place(
            tensor=tensor,
            form=form,
            address={digit: at for digit, at in address.items() if digit not in stacked},
            name_weights=weights,
            spelling=spelling,
            ranks={value: rank for rank, value in enumerate(fixed)},
            bases=tuple(_stack_base(start, stacked, digits) for digits in fixed.values()),
            names=names,
            names_per_rank=count,
            copies=_copy_numbers(copies, weights),
        )


def _index_digits(tensor: Tensor, site: Site) -> dict[IndexValue, dict[str, int]]:
    """For each index value that lies in the site: values of its index atoms and of the site's digits."""
    found: dict[IndexValue, dict[str, int]] = {}
    for value in tensor.present:
        digits = dict(zip(tensor.index_atoms, value, strict=True))
        if site.mapped:
            inner = site.inverse.get(digits[site.mapped])
            if inner is None:
                continue
            digits.update(zip(site.over, inner, strict=True))
        found[value] = digits
    return found


def _row_major(sizes: Mapping[str, int]) -> dict[str, int]:
    weights: dict[str, int] = {}
    weight = 1
    for digit, size in reversed(tuple(sizes.items())):
        weights[digit] = weight
        weight *= size
    return weights


def _stack_base(start: tuple[int, ...], stacked: Mapping[str, int], digits: Mapping[str, int]) -> tuple[int, ...]:
    if not stacked:
        return start
    base = list(start)
    for digit, axis in stacked.items():
        base[axis] += digits[digit]
    return tuple(base)


def _copy_numbers(copies: Mapping[str, int], weights: Mapping[str, int]) -> tuple[int, ...]:
    numbers = [0]
    for digit, size in copies.items():
        numbers = [number + value * weights[digit] for number in numbers for value in range(size)]
    return tuple(numbers)
