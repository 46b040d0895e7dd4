"""The headers that a model of a catalogue must have, derived from its family's layout, beside those of a checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping

from mappings.language import detection, loader
from mappings.language.errors import MappingErrors
from mappings.language.family import bind_family
from mappings.language.layout import Layout, bind_layout
from mappings.language.options import listed_values
from recast_proto import model_manifest_pb2
from validators.compatibility.facts import TensorInfo

Shape = tuple[int, ...]

FLOATS = ("BF16", "F16", "F32", "F64")
"""Dtypes of weights, as safetensors names them."""

_FORMAT = "hf"
_MAX_COMBINATIONS = 64
# Other layouts of a family differ in far more tensors than one in so many: where fewer differ, the layout is found.
_NEAR = 200


class UnknownFamilyError(LookupError):
    """A catalogue's model is of a family, or has a config, that no mapping of this installation understands."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deviation:
    """One tensor in which a checkpoint's headers differ from what the model has.

    Attributes:
        kind: "missing", "unexpected", "shape" or "dtype".
        name: the tensor.
        found: what the checkpoint has; "" for a missing tensor.
        expected: what the model has; "" for an unexpected tensor.
    """

    kind: str
    name: str
    found: str
    expected: str


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Headers of a checkpoint beside those of a model.

    Attributes:
        tensors: how many tensors the model's graph needs.
        deviations: all differences, in the order of names with their digits as numbers.
    """

    tensors: int
    deviations: tuple[Deviation, ...]

    def of(self, kind: str) -> tuple[Deviation, ...]:
        """The deviations of a kind."""
        return tuple(deviation for deviation in self.deviations if deviation.kind == kind)


def compare(model: model_manifest_pb2.ModelManifest, tensors: Mapping[str, TensorInfo]) -> Comparison:
    """How a checkpoint's headers differ from the model's, in the layout of the family that is nearest to them.

    Raises:
        UnknownFamilyError: the model's headers cannot be derived.
    """
    header = {name: info.shape for name, info in tensors.items()}
    best: tuple[Layout, tuple[detection.Difference, ...]] | None = None
    for layout in _layouts(model.family, model.config_json):
        found = detection.differences(layout, header)
        if best is None or len(found) < len(best[1]):
            best = (layout, found)
        if len(found) <= len(header) // _NEAR:
            break
    if best is None:
        raise UnknownFamilyError(f"no layout of the family {model.family} can be made of the config of {model.name}")
    layout, differences = best
    exceptions = [(_pattern(entry.name), entry) for entry in model.tensor_exception]
    found_all = [
        *_with_exceptions(differences, exceptions, header),
        *_wrong_dtypes(layout, tensors, exceptions),
    ]
    needed = len(layout.header(optional=False, mirrors=False))
    return Comparison(needed, tuple(sorted(found_all, key=lambda deviation: _order(deviation.name))))


def _layouts(family: str, config_json: str) -> Iterator[Layout]:
    """The family's layouts for a config: first that of the defaults, then each combination of listed values."""
    for choice in _choices(family):
        layout = _bound(family, config_json, choice)
        if layout is not None:
            yield layout


@functools.lru_cache(maxsize=64)
def _choices(family: str) -> tuple[tuple[tuple[str, object], ...], ...]:
    try:
        options = [option for option in loader.load_layout(family, _FORMAT).node.option if option.value]
    except MappingErrors as error:
        raise UnknownFamilyError(f"this installation has no mapping of the family {family}: {error}") from None
    values = ([(option.name, value) for value in listed_values(option)] for option in options)
    return ((), *itertools.islice(itertools.product(*values), _MAX_COMBINATIONS))


@functools.lru_cache(maxsize=2)
def _bound(family: str, config_json: str, choice: tuple[tuple[str, object], ...]) -> Layout | None:
    """The layout of one combination of options; None if the options do not go together."""
    try:
        bound = bind_family(loader.load_family(family), json.loads(config_json))
    except (MappingErrors, ValueError) as error:
        raise UnknownFamilyError(f"the catalogue's config does not make a model of {family}: {error}") from None
    try:
        return bind_layout(bound, loader.load_layout(family, _FORMAT), dict(choice))
    except MappingErrors:
        return None


Exceptions = list[tuple[re.Pattern[str], model_manifest_pb2.TensorException]]


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(r"\d+".join(re.escape(part) for part in name.split("*")))


def _exception(name: str, exceptions: Exceptions) -> model_manifest_pb2.TensorException | None:
    return next((entry for pattern, entry in exceptions if pattern.fullmatch(name)), None)


def _with_exceptions(
    differences: Iterable[detection.Difference], exceptions: Exceptions, header: Mapping[str, Shape]
) -> Iterator[Deviation]:
    """What of the differences the model's exceptions do not allow, and the shapes that only they demand."""
    judged = set()
    for difference in differences:
        entry = _exception(difference.name, exceptions)
        judged.add(difference.name)
        found = _shown(difference.found)
        if entry is None:
            yield Deviation(difference.kind, difference.name, found, _shown(difference.expected))
        elif difference.kind == "missing":
            if not entry.optional:
                yield Deviation("missing", difference.name, "", _shown(tuple(entry.shape) or difference.expected))
        elif entry.shape and tuple(entry.shape) != difference.found:
            yield Deviation("shape", difference.name, found, _shown(tuple(entry.shape)))
        elif not entry.shape and not entry.ignored:
            yield Deviation(difference.kind, difference.name, found, _shown(difference.expected))
    for name, shape in header.items() if exceptions else ():
        entry = _exception(name, exceptions)
        if entry is not None and entry.shape and name not in judged and tuple(entry.shape) != shape:
            yield Deviation("shape", name, _shown(shape), _shown(tuple(entry.shape)))


def _wrong_dtypes(layout: Layout, tensors: Mapping[str, TensorInfo], exceptions: Exceptions) -> Iterator[Deviation]:
    known = layout.header()
    for name, info in tensors.items():
        entry = _exception(name, exceptions) if exceptions else None
        allowed = tuple(entry.dtype) if entry is not None and entry.dtype else FLOATS
        if name in known and info.dtype not in allowed:
            yield Deviation("dtype", name, info.dtype, " or ".join(allowed))


def _shown(shape: Shape | None) -> str:
    return "" if shape is None else json.dumps(list(shape))


def _order(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if re.fullmatch(r"\d{1,9}", part) else (-1, part) for part in re.split(r"(\d+)", name)]
