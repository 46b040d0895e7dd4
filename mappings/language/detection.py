"""Detecting the options of a source from its names and shapes.

The layout is bound for each combination of listed option values and compared with the header. Options on which all
fitting combinations agree are decided. Of the others, one that changes no value keeps its default; one that changes
values must be given, or follow by its default from the config or from options that are given.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mappings.language import expressions
from mappings.language.errors import MappingErrors, reading
from mappings.language.family import Family
from mappings.language.layout import Layout, bind_layout
from mappings.language.limits import MAX_COMBINATIONS, check_enumerable
from mappings.language.nodes import LayoutSource, Let, Option
from mappings.language.options import bind_options, layout_symbols, listed_values
from mappings.language.places import Place, is_written_alike
from mappings.language.regions import normal_form
from mappings.language.transfer import logical_place, transfer

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One array in which a header differs from a layout.

    Attributes:
        kind: "missing", "unexpected" or "shape".
        name: the array's full name.
        expected: the layout's shape, None for an unexpected array.
        found: the header's shape, None for a missing one.
    """

    kind: str
    name: str
    expected: Shape | None
    found: Shape | None


@dataclasses.dataclass(frozen=True, slots=True)
class Detection:
    """What a header says of a layout's options.

    Attributes:
        fits: whether any combination of option values fits the header.
        options: final values; where nothing fits, those of the nearest combination. Undecided ones are left out.
        undecided: options that change values and that neither header nor defaults decide, with the candidates.
        defaulted: options that the header leaves open but that change no value; they have their default.
        nearest: where nothing fits, all differences from the nearest combination.
        layout: bound with `options`; None where some are undecided.
    """

    fits: bool
    options: Mapping[str, object]
    undecided: Mapping[str, tuple[object, ...]]
    defaulted: tuple[str, ...]
    nearest: tuple[Difference, ...]
    layout: Layout | None


def detect(
    family: Family, source: LayoutSource, header: Mapping[str, Shape], fixed: Mapping[str, object] | None = None
) -> Detection:
    """Which option values fit the arrays of a checkpoint.

    Args:
        family: the model's tensors.
        source: the layout of the checkpoint's format.
        header: full names and shapes of its arrays.
        fixed: values of options that are known.

    Raises:
        MappingErrors: the layout cannot be bound with any combination; the issues are those of the first.
    """
    fixed = dict(fixed or {})
    fitting: list[Layout] = []
    nearest: tuple[Layout, tuple[Difference, ...]] | None = None
    errors: MappingErrors | None = None
    for choice in _combinations(source, fixed):
        try:
            layout = bind_layout(family, source, choice)
        except MappingErrors as error:
            errors = errors or error
            continue
        found = differences(layout, header)
        if not found:
            fitting.append(layout)
        elif nearest is None or len(found) < len(nearest[1]):
            nearest = (layout, found)
    if fitting:
        return _decide(family, source, fitting, fixed)
    if nearest is None:
        raise errors or MappingErrors.of(source.location, "no combination of option values", "option")
    return Detection(False, nearest[0].options, {}, (), nearest[1], nearest[0])


def resting_on(family: Family, source: LayoutSource, name: str) -> frozenset[str]:
    """The options whose defaults depend on the value of another option, directly or through others."""
    return frozenset(option.name for option in source.node.option if name in _grounds(option, source, family).options)


def differences(layout: Layout, header: Mapping[str, Shape]) -> tuple[Difference, ...]:
    """Where a header differs from what a layout requires and allows. Training state may be there or not."""
    allowed = layout.header()
    required = layout.header(optional=False, mirrors=False)
    missing = [Difference("missing", name, shape, None) for name, shape in required.items() if name not in header]
    other: list[Difference] = []
    for name, found in header.items():
        expected = allowed.get(name)
        if expected is None:
            if name not in layout.ignored_names:
                other.append(Difference("unexpected", name, None, tuple(found)))
        elif expected != tuple(found):
            other.append(Difference("shape", name, expected, tuple(found)))
    return (*missing, *other)


def signature(layout: Layout) -> frozenset[object]:
    """Where each element of each weight lies, and by which operations: equal exactly if layouts mean the same."""
    return frozenset().union(*(_meaning(id, places) for id, places in _of_weights(layout).items()))


def _meaning(id: str, places: Iterable[Place]) -> frozenset[object]:
    meaning: set[object] = set()
    for place in places:
        if place.tensor.empty:
            continue
        to_logical = transfer(place, logical_place(place.tensor))
        for value in place.ranks:
            for move in to_logical.moves([value]):
                meaning.add((id, value, move.source, normal_form(move), move.source_ops, place.form.codec))
    return frozenset(meaning)


def mean_the_same(first: Layout, second: Layout) -> bool:
    """Whether signatures are equal; what is written alike is not spelled out."""
    ours, theirs = _of_weights(first), _of_weights(second)
    return all(
        _are_written_alike(ours.get(id, ()), theirs.get(id, ()))
        or _meaning(id, ours.get(id, ())) == _meaning(id, theirs.get(id, ()))
        for id in ours.keys() | theirs.keys()
    )


def _of_weights(layout: Layout) -> Mapping[str, Sequence[Place]]:
    return {id: places for (mirror, id), places in layout.places.items() if not mirror}


def _are_written_alike(ours: Sequence[Place], theirs: Sequence[Place]) -> bool:
    return len(ours) == len(theirs) and all(map(is_written_alike, ours, theirs))


def _combinations(source: LayoutSource, fixed: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Fixed values with each combination of the listed values of the other options."""
    free = [option for option in source.node.option if option.value and option.name not in fixed]
    count = math.prod(len(option.value) for option in free)
    check_enumerable(count, MAX_COMBINATIONS, "combinations of option values", source.location)
    for values in itertools.product(*(listed_values(option) for option in free)):
        yield {**fixed, **{option.name: value for option, value in zip(free, values, strict=True)}}


def _decide(family: Family, source: LayoutSource, fitting: list[Layout], fixed: Mapping[str, object]) -> Detection:
    """Goes through the options in the file's order; each that is decided narrows what fits."""
    known = dict(fixed)
    undecided: dict[str, tuple[object, ...]] = {}
    defaulted: list[str] = []
    for option in source.node.option:
        if not option.value or option.name in fixed:
            continue
        candidates = tuple(dict.fromkeys(layout.options[option.name] for layout in fitting))
        chosen = candidates[0]
        if len(candidates) > 1:
            default = bind_options(source.node, layout_symbols(family, source), known)[option.name]
            changes = _changes_values(option, fitting)
            if changes and not (default in candidates and _follows(option, source, family, known)):
                undecided[option.name] = candidates
                continue
            chosen = default if default in candidates else chosen
            if not changes:
                defaulted.append(option.name)
        known[option.name] = chosen
        fitting = [layout for layout in fitting if layout.options[option.name] == chosen]
    options = {name: value for name, value in fitting[0].options.items() if name not in undecided}
    return Detection(True, options, undecided, tuple(defaulted), (), None if undecided else fitting[0])


def _changes_values(option: Option, fitting: Iterable[Layout]) -> bool:
    """Whether two of the layouts that differ in this option only mean different values."""
    groups: dict[object, list[Layout]] = {}
    for layout in fitting:
        others = tuple((name, value) for name, value in layout.options.items() if name != option.name)
        groups.setdefault(others, []).append(layout)
    alike = [group for group in groups.values() if len(group) > 1]
    # Where the option never varies alone, what varies with it counts.
    compared = alike or [[layout for group in groups.values() for layout in group]]
    return any(not mean_the_same(group[0], other) for group in compared for other in group[1:])


@dataclasses.dataclass(frozen=True, slots=True)
class _Grounds:
    """What a default rests on: options, and whether anything else (config keys) too."""

    options: frozenset[str]
    config: bool


def _follows(option: Option, source: LayoutSource, family: Family, known: Mapping[str, object]) -> bool:
    """Whether an option's default follows from the config or from options that are known."""
    grounds = _grounds(option, source, family)
    return (grounds.config or bool(grounds.options)) and grounds.options <= _given(known)


def _given(values: Mapping[str, object]) -> frozenset[str]:
    return frozenset(name for name, value in values.items() if value not in ("", None))


def _grounds(option: Option, source: LayoutSource, family: Family) -> _Grounds:
    declared = {other.name for other in source.node.option}
    lets: dict[str, Let] = {let.name: let for let in (*family.source.node.let, *source.node.let)}
    options: set[str] = set()
    config = False
    seen: set[str] = set()
    waiting = [(option.default, option.location)]
    while waiting:
        text, location = waiting.pop()
        tree = reading(expressions.parse, text, location)
        config = config or bool(expressions.sizes(tree))
        for name in expressions.names(tree) - seen:
            seen.add(name)
            if name in declared:
                options.add(name)
            elif name in lets:
                waiting.append((lets[name].value, lets[name].location))
            else:
                config = True
    return _Grounds(frozenset(options), config)
