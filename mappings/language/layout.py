"""Binding a layout: options and a family's tensors to named arrays, and where in them each tensor lies."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from mappings.language import axes, expressions
from mappings.language.accounting import Ledger, check_codecs, check_complete
from mappings.language.arrays import Array
from mappings.language.errors import Issues, LanguageSyntaxError, MappingErrors, reading
from mappings.language.family import Family, IndexValue, Tensor
from mappings.language.limits import MAX_ARRAYS, check_enumerable
from mappings.language.naming import Namer
from mappings.language.nodes import Absent, Ignore, LayoutNode, LayoutSource, Mirror, Rule, Scope
from mappings.language.operations import bind_form
from mappings.language.options import bind_options, layout_symbols
from mappings.language.placement import Placer
from mappings.language.places import Place, Site
from mappings.language.scopes import Symbols
from mappings.language.sites import bind_site, top_site


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Ignored:
    """A name that is no weight.

    Attributes:
        reason: why.
        carry: whether it is kept between equal formats.
    """

    reason: str
    carry: bool


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Absence:
    """A tensor, or some of its layers, that a layout does not keep.

    Attributes:
        tensor: the tensor's id.
        values: the index values concerned.
        reason: why; goes into reports.
        refill: what a target gets: REFUSE, ZERO, ONE, MEAN or OMIT.
        mean_of: for MEAN, the tensor whose mean over the first axis is taken.
        must_be_zero: dropping the tensor is an error unless all its elements are zero.
        keep: whether a conversion keeps it beside its output, see `keeping`.
        location: "file:line".
    """

    tensor: str
    values: frozenset[IndexValue]
    reason: str
    refill: str
    mean_of: str
    must_be_zero: bool
    keep: bool
    location: str


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where one format keeps the tensors of one model.

    Attributes:
        family: the model's tensors.
        format: the format's name.
        options: final values of the layout's options.
        arrays: every array by full name, optional ones and mirrors included.
        places: places by (mirror, tensor id); mirror "" holds the weights.
        mirrors: names of the mirrors.
        ignored_names: arrays that are no weights.
        absences: by tensor id, what the layout does not keep.
        symbols: for expressions over options and config.
        source: the files' content.
    """

    family: Family
    format: str
    options: Mapping[str, object]
    arrays: Mapping[str, Array]
    places: Mapping[tuple[str, str], tuple[Place, ...]]
    mirrors: tuple[str, ...]
    ignored_names: Mapping[str, Ignored]
    absences: Mapping[str, tuple[Absence, ...]]
    symbols: Symbols
    source: LayoutSource

    @property
    def ignored(self) -> Mapping[str, str]:
        """Names of arrays that are no weights, with the reason."""
        return {name: ignored.reason for name, ignored in self.ignored_names.items()}

    @property
    def absent(self) -> tuple[Absence, ...]:
        """All that the layout does not keep."""
        return tuple(absence for found in self.absences.values() for absence in found)

    def absence(self, tensor: str, value: IndexValue) -> Absence | None:
        """Why a tensor is not kept for an index value; None if nothing says so."""
        return next((found for found in self.absences.get(tensor, ()) if value in found.values), None)

    def header(self, *, optional: bool = True, mirrors: bool = True) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what lies in a checkpoint: physical arrays where a codec stores them.

        Args:
            optional: whether arrays that a source may lack are listed.
            mirrors: whether training state is listed.
        """
        found: dict[str, tuple[int, ...]] = {}
        for name, array in self.arrays.items():
            if (optional or not array.optional) and (mirrors or not array.mirror):
                if array.codec is None:
                    found[name] = array.shape
                else:
                    found.update((stored.name, stored.shape) for stored in array.stored)
        return found


def bind_layout(family: Family, source: LayoutSource, options: Mapping[str, object] | None = None) -> Layout:
    """Names, shapes and places of all arrays of a format for one model.

    Args:
        family: the model's tensors.
        source: the layout, see `loader.load_layout`.
        options: values of options; the others have their defaults.

    Raises:
        MappingErrors: all issues found.
    """
    return _Binder(family, source).bind(options or {})


class _Binder:
    def __init__(self, family: Family, source: LayoutSource):
        self._family = family
        self._source = source
        self._node: LayoutNode = source.node
        self._symbols = layout_symbols(family, source)
        self._namer = Namer(self._symbols, {label.name: label for label in self._node.label})
        self._issues = Issues()
        self._ledger = Ledger(has_parts=bool(source.node.part))
        self._places: dict[tuple[str, str], list[Place]] = {}
        self._failed_rules: set[str] = set()
        self._failed_tensors: set[str] = set()

    def bind(self, given: Mapping[str, object]) -> Layout:
        """The bound layout."""
        options = bind_options(self._node, self._symbols, given)
        for atom in self._node.atom:
            with self._issues:
                self._symbols.add_atom(atom)
        self._place_all()
        absences = self._bind_absences()
        ignored = self._bind_ignored()
        self._check(absences, ignored)
        self._issues.raise_any()
        return Layout(
            family=self._family,
            format=self._node.format,
            options=options,
            arrays=self._ledger.arrays,
            places={key: tuple(places) for key, places in self._places.items()},
            mirrors=tuple(mirror.name for mirror in self._node.mirror),
            ignored_names=ignored,
            absences=absences,
            symbols=self._symbols,
            source=self._source,
        )

    # ---- rules

    def _place_all(self) -> None:
        placer = Placer(self._family, self._node, self._symbols, self._namer)
        applied: list[tuple[Rule, Site]] = []
        for rule, site in self._active():
            with self._noting_failure([rule]):
                form = bind_form(rule, self._symbols)
                self._enter(placer.place(rule, site, form))
                applied.append((rule, site))
        for mirror in self._node.mirror:
            for rule, site in applied:
                # A rule with a root of its own lies outside the parameters that training state mirrors.
                if not rule.root:
                    with self._issues:
                        self._enter(self._mirrored(placer, rule, site, mirror))

    @contextmanager
    def _noting_failure(self, rules: Iterable[Rule]) -> Iterator[None]:
        """Collects issues; what then lacks a place because of them is no issue of its own."""
        try:
            yield
        except MappingErrors as errors:
            self._issues.extend(errors.issues)
            for rule in rules:
                self._failed_rules.add(rule.location)
                self._failed_tensors.update(_tensors_named(rule))

    def _mirrored(self, placer: Placer, rule: Rule, site: Site, mirror: Mirror) -> list[Place]:
        form = dataclasses.replace(bind_form(rule, self._symbols), ops=(), codec=None)
        return placer.place(rule, site, form, mirror.name, mirror.root)

    def _enter(self, places: Iterable[Place]) -> None:
        for place in places:
            self._places.setdefault((place.form.mirror, place.tensor.id), []).append(place)
            self._ledger.enter(place)

    def _active(self) -> Iterator[tuple[Rule, Site]]:
        """Rules whose conditions hold, each with each site that it is applied in."""
        top = Scope(location=self._node.location, rule=self._node.rule)
        for scope in (top, *self._node.scope):
            active = False
            with self._noting_failure(scope.rule):
                active = self._symbols.holds(scope.when, scope.location)
            if active:
                yield from itertools.product(self._rules(scope), self._sites(scope))

    def _sites(self, scope: Scope) -> list[Site]:
        if not scope.at:
            return [top_site(scope.location)]
        sites: list[Site] = []
        for node in scope.at:
            with self._noting_failure(scope.rule):
                if self._symbols.holds(node.when, node.location):
                    sites.append(bind_site(node, self._symbols))
        return sites

    def _rules(self, scope: Scope) -> list[Rule]:
        rules: list[Rule] = []
        for rule in scope.rule:
            with self._noting_failure([rule]):
                if self._symbols.holds(rule.when, rule.location):
                    rules.append(rule)
        return rules

    # ---- what is not kept, and what is no weight

    def _bind_absences(self) -> dict[str, tuple[Absence, ...]]:
        found: dict[str, list[Absence]] = {}
        for node in self._node.absent:
            with self._issues:
                self._check_absent(node)
                if not self._symbols.holds(node.when, node.location):
                    continue
                for tensor in self._family.tensors.values():
                    absence = self._absence(node, tensor)
                    if absence is not None:
                        found.setdefault(tensor.id, []).append(absence)
        return {id: tuple(absences) for id, absences in found.items()}

    def _check_absent(self, node: Absent) -> None:
        if not any(_matches(node.tensor, id) for id in self._family.known):
            raise MappingErrors.of(node.location, f"unknown tensor '{node.tensor}'", "unknown")
        if node.keep and node.must_be_zero:
            raise MappingErrors.of(node.location, "'keep' and 'must_be_zero' exclude each other", "syntax")
        if (node.refill == "MEAN") != bool(node.mean_of):
            raise MappingErrors.of(node.location, "'mean_of' belongs to refill MEAN", "syntax")
        if node.mean_of and node.mean_of not in self._family.known:
            raise MappingErrors.of(node.location, f"unknown tensor '{node.mean_of}'", "unknown")

    def _absence(self, node: Absent, tensor: Tensor) -> Absence | None:
        if not _matches(node.tensor, tensor.id):
            return None
        values = tensor.present
        if node.where:
            named = expressions.names(reading(expressions.parse, node.where, node.location))
            # A condition over layers does not concern tensors outside of them.
            if not named & self._family.index_atoms <= set(tensor.index_atoms):
                return None
            values = tuple(
                value
                for value in values
                if self._symbols.holds(node.where, node.location, dict(zip(tensor.index_atoms, value, strict=True)))
            )
        if not values:
            return None
        return Absence(
            tensor=tensor.id,
            values=frozenset(values),
            reason=node.reason,
            refill=node.refill,
            mean_of=node.mean_of,
            must_be_zero=node.must_be_zero,
            keep=node.keep,
            location=node.location,
        )

    def _bind_ignored(self) -> dict[str, Ignored]:
        found: dict[str, Ignored] = {}
        for node in self._node.ignore:
            with self._issues:
                for name in self._ignored_names(node):
                    found[name] = Ignored(node.reason, node.carry)
        return found

    def _ignored_names(self, node: Ignore) -> Iterator[str]:
        name = self._namer.bind_full((node.part, node.location), ((node.name, node.location),), {})
        check_enumerable(math.prod(name.digits.values()), MAX_ARRAYS, "ignored names", node.location)
        for values in itertools.product(*map(range, name.digits.values())):
            yield name.text(dict(zip(name.digits, values, strict=True)))

    # ---- checks

    def _check(self, absences: Mapping[str, tuple[Absence, ...]], ignored: Mapping[str, Ignored]) -> None:
        self._ledger.check_filled(self._failed_rules, self._issues)
        check_codecs(self._ledger.arrays.values(), self._issues)
        gone = {
            id: {value: absence.location for absence in found for value in absence.values}
            for id, found in absences.items()
        }
        tensors = [tensor for id, tensor in self._family.tensors.items() if id not in self._failed_tensors]
        places = {id: found for (mirror, id), found in self._places.items() if not mirror}
        layout = (self._node.format, self._source.location)
        check_complete(tensors, self._family.ties, layout, places, gone, self._issues)
        for name in ignored:
            if name in self._ledger.arrays:
                self._issues.add(self._source.location, f"'{name}' is ignored but made by a rule too")


def _tensors_named(rule: Rule) -> tuple[str, ...]:
    try:
        return axes.parse(rule.axes).tensors or (rule.tensor,)
    except LanguageSyntaxError:
        return (rule.tensor,)


def _matches(pattern: str, id: str) -> bool:
    return id.startswith(pattern[:-1]) if pattern.endswith("*") else id == pattern
