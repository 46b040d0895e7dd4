"""Where all layers, or layers as a whole, differ between config.json and the files: the two do not belong together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from converters.formats.base import TensorInfo
from mappings.language.arrays import Array
from mappings.language.errors import MappingErrors
from mappings.language.layout import Layout, bind_layout
from mappings.language.options import listed_values
from reporting.diagnostics import Diagnostic

# "layers.3", "layers_3", "experts.12": what is counted, and the number. No model has ten digits of anything.
_NUMBERED = re.compile(r"([A-Za-z]+)[._](\d{1,9})(?=[._]|$)")


def find(
    weights: Mapping[str, Array],
    header: Mapping[str, TensorInfo],
    unknown: Sequence[str],
    missing: Sequence[str],
    misshapen: Sequence[str],
) -> list[Diagnostic]:
    """What single tensors that are unknown, missing or of another shape have in common.

    Args:
        weights: the arrays that config.json implies.
        header: the arrays of the files.
        unknown: names of the files that config.json does not imply.
        missing: names that it implies and the files lack.
        misshapen: names of arrays of another shape than implied.
    """
    if not (unknown or missing or misshapen):
        return []
    reasons = []
    layers = _other_stack(weights, header, misshapen)
    if layers:
        reasons.append(f"The files hold stacks of {layers[0]} layers, config.json says {layers[1]}")
    groups = _by_rule(weights)
    wrong = [group for group in groups if set(misshapen).issuperset(group)] if not layers else []
    if wrong:
        names = ", ".join(group[0] for group in wrong[:4])
        reasons.append(f"In every layer the shapes differ from those that config.json implies, for example {names}")
    templates = {_template(group[0]) for group in groups}
    extra = [name for name in unknown if _template(name) in templates]
    implied = _counts(weights)
    reasons += _more(extra, implied)
    fewer = list(_fewer(missing, implied, _counts(name for name in header if _template(name) in templates)))
    reasons += fewer
    if not fewer:
        gone = [group for group in groups if set(missing).issuperset(group)]
        reasons += [f"config.json implies a tensor that no layer has, for example {group[0]}" for group in gone]
    return [Diagnostic("CONFIG_CONTRADICTS_TENSORS", f"{reason}.", subject="config.json") for reason in reasons]


def other_names(weights: Mapping[str, Array], unknown: Sequence[str], missing: Sequence[str]) -> list[Diagnostic]:
    """One error for files of which no array has a name that is wanted, in the place of one for each name.

    Args:
        weights: the arrays that config.json implies.
        unknown: names of the files that config.json does not imply.
        missing: names that it implies and the files lack.
    """
    if not unknown or not missing or len(missing) < len([name for name in weights if not weights[name].optional]):
        return []
    none = "No tensor of the files has a name that config.json implies"
    if all(".lora_" in name for name in unknown):
        reason = f"{none}: they hold an adapter, with {unknown[0]}, and no model."
        cure = "Merge the adapter into its base model (merge_and_unload of PEFT), and convert what that saves."
        return [Diagnostic("UNKNOWN_TENSOR", reason, suggestion=cure, subject=unknown[0])]
    lead = _lead(unknown, frozenset(weights))
    if lead:
        reason = f"{none}: all {len(unknown)} have one with {lead} in front."
        cure = f"Save the model itself, not what wraps it; or take {lead} off the names in the files."
        return [Diagnostic("UNKNOWN_TENSOR", reason, suggestion=cure, subject=unknown[0])]
    reason = f"{none}: {unknown[0]} is there, {missing[0]} is not, for example."
    cure = "Take config.json and the weights from the same model, as transformers saves it with save_pretrained."
    return [Diagnostic("CONFIG_CONTRADICTS_TENSORS", reason, suggestion=cure, subject="config.json")]


def _lead(names: Sequence[str], known: Container[str]) -> str:
    """What stands in front of a known name in all of some names; "" if that is not the same everywhere."""
    first = names[0]
    ends = [at + 1 for at, letter in enumerate(first) if letter == "."]
    leads = (first[:end] for end in ends if first[end:] in known)
    return next((lead for lead in leads if all(_has_lead(name, lead, known) for name in names)), "")


def _has_lead(name: str, lead: str, known: Container[str]) -> bool:
    return name.startswith(lead) and name.removeprefix(lead) in known


def claimed_twice(layout: Layout, unknown: Sequence[str], header: Container[str]) -> dict[str, str]:
    """Names that another form of the format has for tensors that are there already, each with the array that has them.

    Args:
        layout: the form in which most of the arrays are.
        unknown: names that it has not.
        header: names of all arrays.
    """
    found: dict[str, str] = {}
    for option in layout.source.node.option if unknown else ():
        for value in listed_values(option):
            if value == layout.options[option.name]:
                continue
            try:
                other = bind_layout(layout.family, layout.source, {**layout.options, option.name: value})
            except MappingErrors:
                # A form that this config cannot have.
                continue
            for name in other.arrays.keys() & set(unknown):
                holder = _holder(name, other, layout, header)
                if holder:
                    found[name] = holder
    return {name: found[name] for name in unknown if name in found}


def _holder(name: str, other: Layout, layout: Layout, header: Container[str]) -> str:
    """The array of a layout that holds a part of what another layout holds under a name."""
    for id in other.arrays[name].tensors:
        for place in other.places["", id]:
            for value, rank in place.ranks.items():
                if name not in place.names_of(rank):
                    continue
                for own in layout.places.get(("", id), ()):
                    names = own.names_of(own.ranks[value]) if value in own.ranks else ()
                    if names and names[0] in header:
                        return names[0]
    return ""


def _more(extra: Iterable[str], implied: Mapping[str, int]) -> Iterator[str]:
    """Names of a known form that config.json has nothing for: with too large a number, or in other layers."""
    examples: dict[str, str] = {}
    counts: dict[str, int] = {}
    for name in extra:
        over = [(what, number) for what, number in _numbers(name) if number >= implied.get(what, 0)]
        for what, number in over or [("", 0)]:
            examples.setdefault(what, name)
            counts[what] = max(counts.get(what, 0), number + 1)
    for what, name in examples.items():
        if what:
            found = f"{counts[what]}, not {implied.get(what, 0)}"
            yield f"The files hold more {what} than config.json says ({found}), for example {name}"
        else:
            yield f"By config.json other layers have tensors of this kind, for example {name}"


def _fewer(missing: Iterable[str], implied: Mapping[str, int], found: Mapping[str, int]) -> Iterator[str]:
    """Numbers up to which config.json implies names, and the files have none."""
    told: set[str] = set()
    for name in missing:
        for what, number in _numbers(name):
            count = found.get(what, 0)
            if number >= count and what not in told:
                told.add(what)
                if not count:
                    said = f"the {implied[what]} {what} that config.json says"
                    yield f"No name in the files is of one of {said}; {name} is missing, for example"
                    continue
                yield (
                    f"The files hold fewer {what} than config.json says ({count}, not {implied[what]}); {name} is "
                    "missing, for example"
                )


def _counts(names: Iterable[str]) -> dict[str, int]:
    """For each word that stands before numbers in names: one more than the largest number."""
    counts: dict[str, int] = {}
    for name in names:
        for what, number in _numbers(name):
            counts[what] = max(counts.get(what, 0), number + 1)
    return counts


def _numbers(name: str) -> list[tuple[str, int]]:
    return [(what, int(digits)) for what, digits in _NUMBERED.findall(name)]


def _template(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _by_rule(weights: Mapping[str, Array]) -> list[list[str]]:
    """Names that one rule makes, one for each layer; rules that make a single name are left out."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, array in weights.items():
        groups[array.location].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _other_stack(
    weights: Mapping[str, Array], header: Mapping[str, TensorInfo], misshapen: Sequence[str]
) -> tuple[int, int] | None:
    """(layers found, layers implied) if stacked arrays differ in the number of layers and in nothing else."""
    stacked = [name for name, array in weights.items() if array.stack_axes and name in header]
    if not stacked or not set(stacked).issubset(misshapen):
        return None
    axis = weights[stacked[0]].stack_axes[0]
    for name in stacked:
        found, implied = list(header[name].shape), list(weights[name].shape)
        if len(found) != len(implied) or axis >= len(found):
            return None
        found[axis] = implied[axis] = 0
        if found != implied:
            return None
    return header[stacked[0]].shape[axis], weights[stacked[0]].shape[axis]
