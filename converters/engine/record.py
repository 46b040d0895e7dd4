"""recast/conversion.json: what the way back must know of a conversion, kept beside its output."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.engine.values import FLOAT_DTYPES
from converters.formats.dtypes import NAMES
from mappings import strict_json
from reporting.diagnostics import RecastError

FOLDER = "recast"
FILE = "conversion.json"
RESIDUE_FILE = "residue.safetensors"
_SCHEMA = 1
_LIMIT = 256 << 20
_TRAINING_STATES = ("", "keep", "strip", "initialise")


@dataclasses.dataclass(frozen=True)
class ConversionRecord:
    """Everything that the weights themselves do not say.

    Attributes:
        family: folder of the mappings.
        model_name: as the run took it; empty if none was needed.
        source_format: format of the source, `target_format` of the output.
        source_options: options of the source's layout, `target_options` of the output's.
        source_dtypes: dtype of each array of the source, by name.
        logical_dtypes: for each array of the output whose values were changed: the dtype of the values before that.
        step: number of the training step that the output stands for.
        training_state: between MaxText checkpoints what became of it: `keep`, `strip` or `initialise`; else, and in
            records that do not say, empty.
        invertible: whether the output, as it was written, holds all that gives those values back bit for bit; not where
            the residue was dropped, where nobody could say it of the source, and in records that do not say.
    """

    family: str
    model_name: str
    source_format: str
    target_format: str
    source_options: Mapping[str, Any]
    target_options: Mapping[str, Any]
    source_dtypes: Mapping[str, str]
    logical_dtypes: Mapping[str, str]
    step: int = 0
    training_state: str = ""
    invertible: bool = False

    def to_json(self) -> str:
        """The record as JSON text."""
        return json.dumps({"schema": _SCHEMA, **dataclasses.asdict(self)}, indent=1, sort_keys=True) + "\n"


def read(folder: Path) -> ConversionRecord | None:
    """The record in a `recast/` folder, None if there is none.

    Raises:
        RecastError: RESIDUE_INVALID if the file is there but does not say what it must.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    if path.stat().st_size > _LIMIT:
        raise _invalid(path, "is larger than any record")
    try:
        data = strict_json.loads(path.read_bytes())
    except ValueError as error:
        raise _invalid(path, f"is not JSON ({error})") from error
    if not isinstance(data, dict) or data.pop("schema", None) != _SCHEMA:
        raise _invalid(path, f"is not of schema {_SCHEMA}")
    data.setdefault("training_state", "")
    data.setdefault("invertible", False)
    expected = {field.name for field in dataclasses.fields(ConversionRecord)}
    if set(data) != expected:
        raise _invalid(path, f"has the fields {sorted(data)}, not {sorted(expected)}")
    tables = ("source_options", "target_options", "source_dtypes", "logical_dtypes")
    texts = ("family", "model_name", "source_format", "target_format")
    if not all(isinstance(data[name], dict) for name in tables):
        raise _invalid(path, "has a table that is not an object")
    rightly = all(isinstance(data[name], str) for name in texts) and isinstance(data["invertible"], bool)
    if not rightly or type(data["step"]) is not int:
        raise _invalid(path, "has a field of the wrong type")
    if data["training_state"] not in _TRAINING_STATES:
        raise _invalid(path, f"says of the training state {data['training_state']!r}")
    for name in ("source_options", "target_options"):
        if not all(isinstance(value, str | bool | int) for value in data[name].values()):
            raise _invalid(path, f"has an option in {name} that is no text, number or truth value")
    _check_dtypes(path, "logical_dtypes", data["logical_dtypes"], FLOAT_DTYPES)
    # Records name arrays that are no weights, too: steps, counts, moments, buffers.
    _check_dtypes(path, "source_dtypes", data["source_dtypes"], NAMES)
    return ConversionRecord(**data)


def _check_dtypes(path: Path, table: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for name, dtype in given.items():
        if not isinstance(dtype, str) or dtype not in known:
            raise _invalid(path, f"says in {table} that {name} is of type {dtype!r}, which it cannot be")


def _invalid(path: Path, what: str) -> RecastError:
    return RecastError.of("RESIDUE_INVALID", f"{FOLDER}/{path.name} {what}.", subject=f"{FOLDER}/{path.name}")
