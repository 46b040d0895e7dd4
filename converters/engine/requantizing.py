"""Weights that are written as float8 codes and scales, and what that loses.

--requantize=source stores again as float8 blocks what the original stored so. Which arrays these were is recorded
beside a converted checkpoint, in recast/quantized.json; how they were stored, its config.json says, which a conversion
carries along as it was. A request's `weights_form` asks for one scale for each tensor instead, and needs no record.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.engine import record as record_lib
from converters.engine import tensor_scales, values
from converters.engine.binding import Sides
from converters.engine.drivers import Opened
from converters.engine.journal import UnitRecord
from converters.engine.model import Model
from converters.engine.plan import Plan
from converters.engine.precision import Precision
from converters.engine.request import AUTO, FP8_PER_TENSOR, ConversionRequest
from converters.engine.staging import Staging
from converters.engine.values import AnyArray
from converters.formats.base import Reader, Region, Sink
from converters.quantized import nearest, whole_tensors
from converters.quantized.blocks import Blocks
from converters.quantized.encoders import BlockEncoder, TensorEncoder
from converters.quantized.forms import SCALES_DTYPE, Form, bytes_stored
from converters.quantized.magnitudes import Magnitudes
from converters.quantized.notes import Notes
from converters.quantized.reader import DecodingReader
from converters.quantized.sink import EncodingSink
from converters.quantized.source import DecodingSource
from converters.quantized.stored import Stored
from converters.quantized.whole_tensors import WholeTensors, chosen
from mappings import strict_json
from reporting.diagnostics import RecastError
from reporting.report import Report
from validators import plain_files, quantization
from validators.plain_files import UnreadableError
from validators.quantization import FLOAT8

FILE = "quantized.json"
_NOTES = "requantized.journal"
_FLAG = "--requantize"
_SCHEMA = 1
_LIMIT = 256 << 20


def record(request: ConversionRequest, opened: Opened, staging: Staging) -> None:
    """Writes beside an output that is not Hugging Face's which arrays of the original were decoded.

    Raises:
        RecastError: RESIDUE_INVALID where what says so beside the source is damaged.
    """
    if request.target_format == "hf":
        return
    if isinstance(opened.source, DecodingSource):
        ways = {name: str(one.weights) for name, one in opened.source.stored.items()}
    elif opened.record_folder is not None and (opened.record_folder / FILE).is_file():
        # Not copied as it is: the file may be a link to anything.
        ways = _recorded(opened.record_folder / FILE)
    else:
        return
    text = json.dumps({"schema": _SCHEMA, "arrays": ways}, indent=1, sort_keys=True) + "\n"
    staging.path(record_lib.FOLDER, FILE).write_text(text, "utf-8")


def asked(request: ConversionRequest, opened: Opened, subject: Model, sides: Sides) -> Form | None:
    """The arrays to encode and how, where a request asks for it.

    Raises:
        RecastError: INVALID_FLAG where the original was stored otherwise, or where nothing says what was stored how;
            RESIDUE_INVALID where what says so is damaged.
    """
    if request.weights_form == FP8_PER_TENSOR:
        return WholeTensors(chosen({name: sides.target.arrays[name].shape for name in sides.composition.produced}))
    if not request.requantize:
        return None
    scheme = quantization.read(subject.config)
    if scheme is None:
        raise _refused("the config of this checkpoint announces plain weights.")
    weights = scheme.weights[0] if scheme.weights else None
    if scheme.method != "fp8" or weights is None or weights.block == (0, 0):
        shown = "; ".join(str(each) for each in scheme.weights)
        raise _refused(f"only {FLOAT8} in blocks is encoded, and the original was stored as {scheme.method}: {shown}.")
    if opened.record_folder is None or not (opened.record_folder / FILE).is_file():
        raise _refused(f"nothing beside this checkpoint ({record_lib.FOLDER}/{FILE}) says which arrays were codes.")
    names = _recorded(opened.record_folder / FILE)
    others = sorted(set(names.values()) - {str(weights)})
    if others:
        raise _refused(f"only {FLOAT8} in blocks is encoded, and the original was stored as {'; '.join(others)}.")
    strange = sorted(name for name in names if name not in sides.composition.produced)
    if strange:
        raise _refused(f"{strange[0]} was stored as codes, and this output has no array of that name.")
    given = quantization.announced(subject.config) or {}
    return Blocks(weights.block, given.get("scale_fmt") == "ue8m0", frozenset(names))


def refined(precision: Precision, form: Form | None, names: Iterable[str]) -> Precision:
    """The precision in which values come to be encoded: float32 for blocks; for whole tensors, as they are stored.

    Args:
        precision: what the run asks for.
        form: what is encoded, and how.
        names: of all arrays that are written.
    """
    if form is None:
        return precision
    if isinstance(form, WholeTensors):
        if precision.dtype == AUTO:
            return precision
        others = dict.fromkeys(frozenset(names) - form.names, precision.dtype)
        return dataclasses.replace(precision, dtype=AUTO, original=others, default="")
    wide = dict.fromkeys(form.names, "float32")
    if precision.dtype == AUTO:
        return dataclasses.replace(precision, original={**precision.original, **wide})
    return dataclasses.replace(precision, dtype=AUTO, original=wide, default=precision.dtype)


def sized(plan: Plan, form: Form | None) -> Plan:
    """The plan with the bytes that are written, codes and scales instead of what they are made from, and those read."""
    if form is None:
        return plan
    size = sum(
        bytes_stored(array.info.shape, form) if name in form.names else array.bytes
        for name, array in plan.arrays.items()
    )
    again = sum(array.bytes for array in tensor_scales.read_twice(plan, form))
    return dataclasses.replace(plan, bytes_out=size, bytes_decoded=plan.bytes_decoded + again)


def bytes_of(records: Iterable[UnitRecord], plan: Plan, form: Form | None) -> int:
    """What units take that were written: of one that is encoded, a byte for each element."""
    encoded = frozenset() if form is None else form.names
    return sum(
        record.bytes // values.itemsize(plan.arrays[record.array].info.dtype)
        if record.array in encoded
        else record.bytes
        for record in records
    )


def plan_lines(plan: Plan, form: Form | None) -> list[str]:
    """What a plan says of encoding."""
    if form is None:
        return []
    lines = [f"{len(form.names)} arrays to encode: {form.weights}"]
    stacked = len(whole_tensors.stacks(form.names)) if isinstance(form, WholeTensors) else 0
    if stacked:
        lines.append(f"{stacked} of them are stacks of experts, whose scales transformers does not read; Recast does")
    twice = len(tensor_scales.read_twice(plan, form))
    if twice:
        lines.append(
            f"{twice} of them are read twice, first for their scales: the memory budget has no room for all of one"
        )
    return lines


def encoding(sink: Sink, form: Form | None, staging: Staging, resume: bool, magnitudes: Magnitudes | None) -> Sink:
    """The sink, or one that encodes what it passes on."""
    path = staging.folder / _NOTES
    if isinstance(form, WholeTensors) and magnitudes is not None:
        return EncodingSink(sink, TensorEncoder(form, magnitudes), path, resume=resume, magnitudes=magnitudes)
    if isinstance(form, Blocks):
        return EncodingSink(sink, BlockEncoder(form), path, resume=resume)
    return sink


def entries(plain: Mapping[str, Mapping[str, Any]], form: Form | None, staging: Staging) -> Mapping[str, Any]:
    """A manifest's entries of the arrays as they are stored."""
    return plain if form is None else Notes(staging.folder / _NOTES).entries(plain, form)


def announced(form: Form | None, plan: Plan) -> Mapping[str, Any] | None:
    """The quantization_config to write, where the config that is carried along does not announce what is written."""
    if not isinstance(form, WholeTensors):
        return None
    return whole_tensors.announced(form, {name: array.info.shape for name, array in plan.arrays.items()})


def tell(report: Report, form: Form | None, staging: Staging) -> Sequence[str]:
    """Gives the report the dtypes that are stored; returns what was lost, in words."""
    if form is None:
        return ()
    report.tensors = [
        dataclasses.replace(tensor, dtype=FLOAT8) if tensor.name in form.names else tensor for tensor in report.tensors
    ]
    lost = Notes(staging.folder / _NOTES).loss()
    if not lost:
        return ("no array was encoded",)
    absolute = max(sorted(lost), key=lambda name: lost[name].absolute)
    relative = max(sorted(lost), key=lambda name: lost[name].relative)
    error, total = (sum(getattr(loss, part) for loss in lost.values()) for part in ("error", "total"))
    return (
        f"{len(lost)} arrays encoded as {form.weights}",
        f"largest absolute error {lost[absolute].absolute:.9g}, in {absolute}",
        f"largest relative error {lost[relative].relative:.9g}, in {relative}",
        f"root mean square error {math.sqrt(error / total) if total else 0:.9g} of the root mean square value",
    )


class NearestTo:
    """What a quantised checkpoint can hold of values, by the scales that it has; values themselves, of a plain one."""

    def __init__(self, source: DecodingSource | None, reader: DecodingReader | None, alike: frozenset[str]):
        """Args: the checkpoint in bulk, and element by element, None where values stay as they are; arrays that do."""
        self._source = source
        self._reader = reader
        self._alike = alike

    def region(self, name: str, region: Region, values: AnyArray) -> AnyArray:
        """Of a region's values."""
        return values if self._source is None or name in self._alike else self._source.nearest(name, region, values)

    def elements(self, name: str, coordinates: AnyArray, values: AnyArray) -> AnyArray:
        """Of the values at coordinates, by other arithmetic."""
        stored = {} if self._source is None else self._source.stored
        plain = name not in stored or name in self._alike or stored[name].weights.codes != FLOAT8
        if self._reader is None or plain:
            return values
        scales = self._reader.scales(name, coordinates)
        found = [nearest.float8(float(value), scale) for value, scale in zip(values, scales, strict=True)]
        return np.array(found, np.float32).astype(values.dtype)


def nearest_to(first: Opened, second: Opened) -> NearestTo:
    """How values of one side are held against a quantised one: nearest codes, as far as codes are float8.

    Arrays that both sides store in the same way are compared as they are.
    """
    source, reader = second.source, second.reader()
    if not isinstance(source, DecodingSource) or not isinstance(reader, DecodingReader):
        return NearestTo(None, None, frozenset())
    ours = first.source.stored if isinstance(first.source, DecodingSource) else {}
    alike = {name for name, one in source.stored.items() if name in ours and ours[name].weights == one.weights}
    return NearestTo(source, reader, frozenset(alike))


class Codes:
    """Reads an output's elements as plain values, those that are encoded through codes and scales."""

    def __init__(self, reader: Reader, plan: Plan, form: Form | None):
        """Args: reads what is stored; what was planned; what is encoded, if anything is."""
        self._form = form
        stored = {} if form is None else {name: _stored(name, plan, form) for name in form.names}
        self._reader = DecodingReader(reader, stored, "float32") if stored else None
        self._plain = reader

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at coordinates."""
        return (self._reader or self._plain).elements(name, coordinates)

    def nearest(self, name: str, coordinates: AnyArray, values: AnyArray) -> AnyArray:
        """Of values, what the code nearest to each stands for, by the scale that is stored.

        A value for which that scale is too small stays as it is, so that it differs from whatever is stored.
        """
        if self._reader is None or self._form is None or name not in self._form.names:
            return values
        scales = self._reader.scales(name, coordinates)
        found = [
            nearest.float8(float(value), scale) if abs(float(value)) <= _reach(scale) else np.float32(value)
            for value, scale in zip(values, scales, strict=True)
        ]
        return np.array(found, np.float32)


def _reach(scale: float) -> float:
    """The largest value that a scale can be made from: its own rounding included, which is coarse near zero."""
    return 448 * (scale * (1 + 2.0**-22) + 2.0**-149)


def _stored(name: str, plan: Plan, form: Form) -> Stored:
    shape = plan.arrays[name].info.shape
    return Stored(name, shape, form.weights, name, name + form.ending, form.grid(shape), SCALES_DTYPE)


def _recorded(path: Path) -> dict[str, str]:
    place = f"{record_lib.FOLDER}/{FILE}"
    try:
        said = strict_json.loads(plain_files.read(path, _LIMIT))
        arrays = said["arrays"] if said.get("schema") == _SCHEMA else None
    except (UnreadableError, ValueError, KeyError, AttributeError, TypeError):
        arrays = None
    if not isinstance(arrays, dict) or not all(isinstance(way, str) for way in arrays.values()):
        reason = f"{place} does not say which arrays were stored how."
        raise RecastError.of("RESIDUE_INVALID", reason, subject=place)
    return arrays


def _refused(reason: str) -> RecastError:
    return RecastError.of("INVALID_FLAG", f"{_FLAG}=source: {reason}", subject=_FLAG, suggestion=_WITHOUT)


_WITHOUT = "Leave --requantize out to write plain weights."
