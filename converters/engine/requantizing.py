"""--requantize=source: what the original stored as float8 blocks is stored so again, and what that loses is stated.

Which arrays these were is recorded beside a converted checkpoint, in recast/quantized.json; how they were stored, its
config.json says, which a conversion carries along as it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.engine import record as record_lib
from converters.engine.binding import Sides
from converters.engine.drivers import Opened
from converters.engine.model import Model
from converters.engine.plan import Plan
from converters.engine.precision import Precision
from converters.engine.request import AUTO, ConversionRequest
from converters.engine.staging import Staging
from converters.engine.values import AnyArray
from converters.formats.base import Reader, Region, Sink
from converters.quantized import nearest
from converters.quantized.blocks import SCALES, SCALES_DTYPE, Blocks, bytes_stored
from converters.quantized.notes import Notes
from converters.quantized.reader import DecodingReader
from converters.quantized.sink import EncodingSink
from converters.quantized.source import DecodingSource
from converters.quantized.stored import Stored
from mappings import strict_json
from reporting.diagnostics import RecastError
from reporting.report import Report
from validators import quantization
from validators.quantization import FLOAT8, Weights

FILE = "quantized.json"
_NOTES = "requantized.journal"
_FLAG = "--requantize"
_SCHEMA = 1
_LIMIT = 256 << 20


def record(request: ConversionRequest, opened: Opened, staging: Staging) -> None:
    """Writes beside an output that is not Hugging Face's which arrays of the original were decoded."""
    if request.target_format == "hf":
        return
    if isinstance(opened.source, DecodingSource):
        ways = {name: str(one.weights) for name, one in opened.source.stored.items()}
        text = json.dumps({"schema": _SCHEMA, "arrays": ways}, indent=1, sort_keys=True) + "\n"
        staging.path(record_lib.FOLDER, FILE).write_text(text, "utf-8")
    elif opened.record_folder is not None and (opened.record_folder / FILE).is_file():
        staging.path(record_lib.FOLDER, FILE).write_bytes((opened.record_folder / FILE).read_bytes())


def asked(request: ConversionRequest, opened: Opened, subject: Model, sides: Sides) -> Blocks | None:
    """The arrays to encode and how, where a request asks for it.

    Raises:
        RecastError: INVALID_FLAG where the original was stored otherwise, or where nothing says what was stored how;
            RESIDUE_INVALID where what says so is damaged.
    """
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
    strange = sorted(name for name in names if name not in sides.composition.produced)
    if strange:
        raise _refused(f"{strange[0]} was stored as codes, and this output has no array of that name.")
    given = quantization.announced(subject.config) or {}
    return Blocks(weights.block, given.get("scale_fmt") == "ue8m0", frozenset(names))


def widened(precision: Precision, blocks: Blocks | None) -> Precision:
    """The same, but float32 for what is encoded from it."""
    if blocks is None:
        return precision
    wide = dict.fromkeys(blocks.names, "float32")
    if precision.dtype == AUTO:
        return dataclasses.replace(precision, original={**precision.original, **wide})
    return dataclasses.replace(precision, dtype=AUTO, original=wide, default=precision.dtype)


def sized(plan: Plan, blocks: Blocks | None) -> Plan:
    """The plan with the bytes that are written: codes and scales instead of what they are made from."""
    if blocks is None:
        return plan
    size = sum(
        bytes_stored(array.info.shape, blocks) if name in blocks.names else array.bytes
        for name, array in plan.arrays.items()
    )
    return dataclasses.replace(plan, bytes_out=size)


def encoding(sink: Sink, blocks: Blocks | None, staging: Staging, resume: bool) -> Sink:
    """The sink, or one that encodes what it passes on."""
    return sink if blocks is None else EncodingSink(sink, blocks, staging.folder / _NOTES, resume=resume)


def entries(plain: Mapping[str, Mapping[str, Any]], blocks: Blocks | None, staging: Staging) -> Mapping[str, Any]:
    """A manifest's entries of the arrays as they are stored."""
    return plain if blocks is None else Notes(staging.folder / _NOTES).entries(plain, blocks)


def tell(report: Report, blocks: Blocks | None, staging: Staging) -> Sequence[str]:
    """Gives the report the dtypes that are stored; returns what was lost, in words."""
    if blocks is None:
        return ()
    report.tensors = [
        dataclasses.replace(tensor, dtype=FLOAT8) if tensor.name in blocks.names else tensor
        for tensor in report.tensors
    ]
    lost = Notes(staging.folder / _NOTES).loss()
    if not lost:
        return ("no array was encoded",)
    absolute = max(lost, key=lambda name: lost[name].absolute)
    relative = max(lost, key=lambda name: lost[name].relative)
    error, total = (sum(getattr(loss, part) for loss in lost.values()) for part in ("error", "total"))
    return (
        f"{len(lost)} arrays encoded as {FLOAT8}, a scale for {blocks.size[0]} x {blocks.size[1]}",
        f"largest absolute error {lost[absolute].absolute:.9g}, in {absolute}",
        f"largest relative error {lost[relative].relative:.9g}, in {relative}",
        f"root mean square error {math.sqrt(error / total) if total else 0:.9g} of the root mean square value",
    )


class NearestTo:
    """What a quantised checkpoint can hold of values, by the scales that it has; values themselves, of a plain one."""

    def __init__(self, source: DecodingSource | None, reader: DecodingReader | None):
        """Args: the checkpoint in bulk, and element by element; None where values stay as they are."""
        self._source = source
        self._reader = reader

    def region(self, name: str, region: Region, values: AnyArray) -> AnyArray:
        """Of a region's values."""
        return values if self._source is None else self._source.nearest(name, region, values)

    def elements(self, name: str, coordinates: AnyArray, values: AnyArray) -> AnyArray:
        """Of the values at coordinates, by other arithmetic."""
        stored = {} if self._source is None else self._source.stored
        if self._reader is None or name not in stored or stored[name].weights.codes != FLOAT8:
            return values
        scales = self._reader.scales(name, coordinates)
        found = [nearest.float8(float(value), scale) for value, scale in zip(values, scales, strict=True)]
        return np.array(found, np.float32).astype(values.dtype)


def nearest_to(first: Opened, second: Opened) -> NearestTo:
    """How values of a plain side are held against a quantised one: nearest codes, as far as codes are float8."""
    source, reader = second.source, second.reader()
    one_sided = isinstance(source, DecodingSource) and not isinstance(first.source, DecodingSource)
    if not one_sided or not isinstance(source, DecodingSource) or not isinstance(reader, DecodingReader):
        return NearestTo(None, None)
    return NearestTo(source, reader)


class Codes:
    """Reads an output's elements as plain values, those that are encoded through codes and scales."""

    def __init__(self, reader: Reader, plan: Plan, blocks: Blocks | None):
        """Args: reads what is stored; what was planned; what is encoded, if anything is."""
        self._blocks = blocks
        stored = {} if blocks is None else {name: _stored(name, plan, blocks) for name in blocks.names}
        self._reader = DecodingReader(reader, stored, "float32") if stored else None
        self._plain = reader

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at coordinates."""
        return (self._reader or self._plain).elements(name, coordinates)

    def nearest(self, name: str, coordinates: AnyArray, values: AnyArray) -> AnyArray:
        """Of values, what the code nearest to each stands for, by the scale that is stored."""
        if self._reader is None or self._blocks is None or name not in self._blocks.names:
            return values
        scales = self._reader.scales(name, coordinates)
        found = [nearest.float8(float(value), scale) for value, scale in zip(values, scales, strict=True)]
        return np.array(found, np.float32)


def _stored(name: str, plan: Plan, blocks: Blocks) -> Stored:
    shape = plan.arrays[name].info.shape
    weights = Weights(FLOAT8, 8, blocks.size)
    return Stored(name, shape, weights, name, name + SCALES, blocks.grid(shape), SCALES_DTYPE)


def _recorded(path: Path) -> list[str]:
    place = f"{record_lib.FOLDER}/{FILE}"
    try:
        content = path.read_bytes() if path.stat().st_size <= _LIMIT else b""
        said = strict_json.loads(content)
        arrays = said["arrays"] if said.get("schema") == _SCHEMA else None
    except (ValueError, KeyError, AttributeError, TypeError):
        arrays = None
    if not isinstance(arrays, dict) or not all(isinstance(way, str) for way in arrays.values()):
        reason = f"{place} does not say which arrays were stored how."
        raise RecastError.of("RESIDUE_INVALID", reason, subject=place)
    return list(arrays)


def _refused(reason: str) -> RecastError:
    return RecastError.of("INVALID_FLAG", f"{_FLAG}=source: {reason}", subject=_FLAG, suggestion=_WITHOUT)


_WITHOUT = "Leave --requantize out to write plain weights."
