"""The linter: rules S1 to S6 over a family's files, and B1 to B8 over its examples and their options.

B1 to B6 are what binding checks; they are tried for each example with each combination of listed option values.
What no linter sees (a misspelt name, rotated axes, swapped branches, a lost operation) needs headers and values that
were made without the language.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mappings.language import loader, static_lint
from mappings.language.arrays import BoundOp
from mappings.language.detection import signature
from mappings.language.errors import Issues, MappingErrors, MappingIssue
from mappings.language.family import Family, bind_family, declared_tensors
from mappings.language.layout import Layout, bind_layout
from mappings.language.limits import MAX_COMBINATIONS, check_enumerable
from mappings.language.nodes import FamilySource, LayoutSource, Option
from mappings.language.options import listed_values, text_of

_FRAGMENTS = "common"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Bound:
    """A layout bound to an example with some options."""

    example: str
    choice: Mapping[str, object]
    layout: Layout


@dataclasses.dataclass(frozen=True, slots=True)
class _Report:
    """What linting one family gives; places in files of all its parts, and of those that do something."""

    issues: tuple[MappingIssue, ...]
    parts: frozenset[str] = frozenset()
    effective: frozenset[str] = frozenset()


def lint_family(name: str, root: Path | None = None) -> list[MappingIssue]:
    """All issues of one family with all its layouts; [] if there are none.

    Args:
        name: the family's folder.
        root: the folder that holds the families.
    """
    return list(_lint(name, root).issues)


def lint_all(root: Path | None = None) -> list[MappingIssue]:
    """All issues of all families, and fragments and parts of fragments that no family makes use of."""
    root = root or loader.mappings_root()
    names = loader.families(root)
    reports = [_lint(name, root) for name in names]
    issues = Issues()
    for report in reports:
        issues.extend(report.issues)
    used = _included(names, root)
    for file in sorted((root / _FRAGMENTS).glob("*.textproto")):
        fragment = f"{_FRAGMENTS}/{file.name}"
        if fragment not in used:
            issues.add(f"{fragment}:1", "no family includes this fragment [S2]", "lint")
    parts = frozenset[str]().union(*(report.parts for report in reports))
    effective = frozenset[str]().union(*(report.effective for report in reports))
    for location in sorted(parts - effective):
        if _in_fragment(location):
            issues.add(location, "this has no effect in any example of any family [S4]", "lint")
    return list(issues.found)


def _in_fragment(location: str) -> bool:
    """Whether a part stands in a fragment, of which each family may use but a part."""
    return location.startswith(_FRAGMENTS + "/")


def _included(names: Iterable[str], root: Path) -> set[str]:
    used: set[str] = set()
    for name in names:
        try:
            used.update(loader.load_family(name, root).fragments)
            for format in loader.formats_of(name, root):
                used.update(loader.load_layout(name, format, root).fragments)
        except MappingErrors:
            # The family's own report has what is wrong with it.
            continue
    return used


def _lint(name: str, root: Path | None) -> _Report:
    issues = Issues()
    layouts: list[LayoutSource] = []
    source: FamilySource | None = None
    with issues:
        source = loader.load_family(name, root)
        for format in loader.formats_of(name, root):
            with issues:
                layouts.append(loader.load_layout(name, format, root))
                if layouts[-1].format != format:
                    text = f"the layout says format '{layouts[-1].format}' in the file of '{format}' [S1]"
                    issues.add(layouts[-1].location, text, "lint")
    if source is None:
        return _Report(issues.found)
    static_lint.check_family(source, layouts, issues)
    if any(issue.kind == "syntax" for issue in issues.found):
        return _Report(issues.found)
    binding = Issues()
    families = _bind_examples(source, binding)
    bound = [found for layout in layouts for found in _bind_all(families, layout, binding)]
    issues.extend(binding.found)
    _check_examples(source, list(families.values()), issues)
    effective = _effective(families.values(), bound)
    if not binding:
        # An example that does not bind has no effects to speak of.
        for layout in layouts:
            _check_effects(layout, effective, issues)
            _check_values(layout, [found for found in bound if found.layout.source is layout], issues)
        _check_mirrors(bound, issues)
    return _Report(issues.found, _parts(source, layouts), effective)


def _parts(source: FamilySource, layouts: Iterable[LayoutSource]) -> frozenset[str]:
    rules = (rule.location for layout in layouts for rule in static_lint.rules_of(layout.node))
    tensors = (tensor.location for _, tensor in declared_tensors(source.node))
    return frozenset((*rules, *tensors, *(tie.location for tie in source.node.tie)))


def _bind_examples(source: FamilySource, issues: Issues) -> dict[str, Family]:
    families: dict[str, Family] = {}
    for example in source.node.example:
        with issues:
            families[example.name] = bind_family(source, json.loads(example.config))
    return families


def _bind_all(families: Mapping[str, Family], layout: LayoutSource, issues: Issues) -> Iterator[_Bound]:
    """The layout for each example and combination of options.

    A value that an option merely suggests to try (`tried`) may not suit each example's sizes, but must suit one.
    """
    refused: dict[tuple[str, object], MappingErrors] = {}
    suited: set[tuple[str, object]] = set()
    for example, family in families.items():
        for choice in _choices(layout):
            tried = [(o.name, choice[o.name]) for o in layout.node.option if not o.value and o.name in choice]
            try:
                bound = bind_layout(family, layout, choice)
            except MappingErrors as errors:
                if tried and all(issue.kind == "size" for issue in errors.issues):
                    refused.update(dict.fromkeys(tried, errors))
                else:
                    issues.extend(errors.issues)
                continue
            suited.update(tried)
            yield _Bound(example, choice, bound)
    for value, refusal in refused.items():
        if value not in suited:
            issues.extend(refusal.issues)


def _choices(layout: LayoutSource) -> Iterator[dict[str, object]]:
    options = [option for option in layout.node.option if _values(option)]
    count = math.prod(len(_values(option)) for option in options)
    check_enumerable(count, MAX_COMBINATIONS, "combinations of option values", layout.location)
    for values in itertools.product(*map(_values, options)):
        yield {option.name: value for option, value in zip(options, values, strict=True) if value is not None}


def _values(option: Option) -> tuple[object, ...]:
    """The values to bind with; None stands for the default of an option that lists no values."""
    return listed_values(option) or ((None, *option.tried) if option.tried else ())


# ---- S4 and S6


def _effective(families: Iterable[Family], bound: Iterable[_Bound]) -> frozenset[str]:
    """Places in the files of tensors, ties, rules, `at` lines and absences that do something."""
    found: set[str] = set()
    for family in families:
        found.update(tensor.location for tensor in family.tensors.values() if tensor.present)
        found.update(tie.location for tie in family.source.node.tie if tie.tensor in family.ties)
    for each in bound:
        for places in each.layout.places.values():
            for place in places:
                if place.names:
                    found.update((place.location, place.form.site.node.location))
        found.update(absence.location for absence in each.layout.absent)
    return frozenset(found)


def _check_effects(layout: LayoutSource, effective: frozenset[str], issues: Issues) -> None:
    for rule in static_lint.rules_of(layout.node):
        if rule.location not in effective and not _in_fragment(rule.location):
            issues.add(rule.location, f"rule '{rule.name}' places nothing in any example [S4]", "lint")
    for scope in layout.node.scope:
        for at in scope.at:
            if at.location not in effective:
                issues.add(at.location, f"nothing lies at '{at.name}' in any example [S4]", "lint")
    for absent in layout.node.absent:
        if absent.location not in effective:
            issues.add(absent.location, f"absent '{absent.tensor}' concerns nothing in any example [S4]", "lint")


def _check_values(layout: LayoutSource, bound: Sequence[_Bound], issues: Issues) -> None:
    """Each value of an option makes a difference to another one, in some example with some other options."""
    meaning = {each: (frozenset(each.layout.header().items()), signature(each.layout)) for each in bound}
    for option in layout.node.option:
        groups: dict[object, list[_Bound]] = {}
        for each in bound:
            others = tuple((name, value) for name, value in each.choice.items() if name != option.name)
            groups.setdefault((each.example, others), []).append(each)
        for value in _values(option):
            if value is not None and not any(_differs(group, option.name, value, meaning) for group in groups.values()):
                text = f"option {option.name}={text_of(value)} makes no difference in any example [S6]"
                issues.add(option.location, text, "lint")


def _differs(group: Sequence[_Bound], option: str, value: object, meaning: Mapping[_Bound, object]) -> bool:
    here = [meaning[each] for each in group if each.choice.get(option) == value]
    there = [meaning[each] for each in group if each.choice.get(option) != value]
    return any(one != other for one in here for other in there)


# ---- B7 and B8


def _check_examples(source: FamilySource, families: Sequence[Family], issues: Issues) -> None:
    """Each tensor occurs, in some example with axes of distinct sizes: else a swap of two would not be seen."""
    for group, declared in declared_tensors(source.node):
        tensor = group.id + declared.id
        occurring = [family for family in families if tensor in family.tensors and family.tensors[tensor].present]
        if not occurring and not _in_fragment(declared.location):
            issues.add(declared.location, f"tensor '{tensor}' is in no example [B7]", "lint")
        elif occurring and not any(_tells_axes_apart(family, tensor) for family in occurring):
            text = f"no example has axes of distinct sizes above 1 for tensor '{tensor}' [B7]"
            issues.add(declared.location, text, "lint")
    for tie in source.node.tie:
        if not _in_fragment(tie.location) and not any(tie.tensor in family.ties for family in families):
            issues.add(tie.location, f"the tie of '{tie.tensor}' holds in no example [B7]", "lint")


def _tells_axes_apart(family: Family, tensor: str) -> bool:
    """Axes of one size expression are alike by meaning (a square matrix); sizes cannot tell these apart."""
    sizes = family.tensors[tensor].sizes
    by_size: dict[int, set[str]] = {}
    for atom, size in sizes.items():
        definition = family.symbols.atom(atom)
        by_size.setdefault(size, set()).add(definition.size if definition else atom)
    return 1 not in by_size and all(len(expressions) == 1 for expressions in by_size.values())


def _check_mirrors(bound: Iterable[_Bound], issues: Issues) -> None:
    """Training state moves only between equal operations: all layouts that have a mirror must agree on them."""
    known: dict[tuple[str, str, str], tuple[frozenset[tuple[BoundOp, ...]], Layout]] = {}
    for each in bound:
        for mirror in each.layout.source.node.mirror:
            for (state, id), places in each.layout.places.items():
                if state == mirror.name:
                    ops = frozenset(place.form.ops for place in each.layout.places.get(("", id), places))
                    first = known.setdefault((each.example, mirror.name, id), (ops, each.layout))
                    if first[0] != ops:
                        text = f"mirror '{mirror.name}' of '{id}' has other operations in '{first[1].format}' [B8]"
                        issues.add(mirror.location, text, "lint")
