"""What the engine says: sentences for relations that hold and that do not, with the values that were compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from validators.compatibility.headers import Deviation
from validators.compatibility.relations import Relation, equal

_MAX_SHOWN = 160
_ABSENT = "not stated"
_PLACE = re.compile(r"\{(attribute|found|expected|model)\}")


def shown(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    if value is None:
        return _ABSENT
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value, sort_keys=True)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def filled(template: str, attribute: str, found: Any, expected: Any, model: str) -> str:
    """A rule's own message with its places filled; "" for no message. Other braces stay as they are."""
    values = {"attribute": attribute, "found": _listed(found), "expected": _listed(expected), "model": model}
    return _PLACE.sub(lambda place: values[place[1]], template)


def _listed(value: Any) -> str:
    return ", ".join(map(shown, value)) if isinstance(value, list) else shown(value)


def agreement(attribute: str, found: Any, expected: Any, relation: Relation, place: str, other: str) -> str:
    """Why a relation holds, without a full stop."""
    if equal(found, expected):
        return f"{attribute} is {shown(found)} in {place} and in {other}"
    return f"{attribute} is {shown(found)} in {place}, {relation.agrees} {shown(expected)} of {other}"


def difference(attribute: str, found: Any, expected: Any, relation: Relation, place: str, other: str) -> str:
    """Why a relation does not hold. Of two objects only what differs is shown."""
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        found, expected = (_different(one, two) for one, two in ((found, expected), (expected, found)))
    if relation.differs == "not" or found is None or expected is None:
        return f"{attribute} is {shown(found)} in {place}, and {shown(expected)} in {other}."
    return f"{attribute} is {shown(found)} in {place}, which is {relation.differs} {shown(expected)} of {other}."


def _different(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any] | None:
    found = {key: value for key, value in one.items() if key not in two or not equal(value, two[key])}
    return found or None


def file(pattern: str, there: str | None) -> str:
    """What is wrong about a file: it is there, or it is not."""
    return f"There is no {pattern} in the checkpoint." if there is None else f"There is {there} in the checkpoint."


def tensors_agree(kind: str, count: int) -> str:
    """Why the headers are as they must be, without a full stop."""
    said = {
        "missing": f"all {count} tensors of the model are there",
        "unexpected": f"there is no tensor beside the {count} of the model",
        "shape": f"none of the model's {count} tensors has another shape",
        "dtype": f"none of the model's {count} tensors is of another type than a floating-point one",
    }
    return said[kind]


def tensors_differ(deviations: Iterable[Deviation]) -> list[tuple[str, str]]:
    """Reason and subject of each violation; tensors of several layers or experts that differ alike are one."""
    groups: dict[tuple[str, ...], list[Deviation]] = {}
    for deviation in deviations:
        pattern = re.sub(r"(?<=\.)\d+(?=\.)", "*", deviation.name)
        groups.setdefault((deviation.kind, pattern, deviation.found, deviation.expected), []).append(deviation)
    return [(_of_group(found), found[0].name) for found in groups.values()]


def _of_group(found: list[Deviation]) -> str:
    first, more = found[0], len(found) - 1
    said = {
        "missing": f"{first.name} of shape {first.expected} is missing",
        "unexpected": f"{first.name} of shape {first.found} is no tensor of the model",
        "shape": f"{first.name} has the shape {first.found}, and in the model {first.expected}",
        "dtype": f"{first.name} is of type {first.found}, and must be {first.expected}",
    }
    return said[first.kind] + (f"; likewise {more} more, up to {found[-1].name}." if more else ".")
