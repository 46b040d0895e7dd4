"""The model behind a source: its config, what an earlier conversion recorded of it, and the files that go with it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.engine import binding, manifest
from converters.engine import record as record_lib
from converters.engine.drivers import Opened
from converters.engine.plan import Plan
from converters.engine.record import ConversionRecord
from converters.engine.request import AUTO, ConversionRequest
from converters.engine.staging import Staging
from mappings import catalog
from mappings.language.family import Family
from reporting.diagnostics import RecastError, raise_all
from validators import carried_files, hf_config

# Where a MaxText output keeps the Hugging Face files of its source.
CARRIED_FOLDER = "hf"


@dataclasses.dataclass(frozen=True)
class Model:
    """What is known of a model besides its weights.

    Attributes:
        config: its config.json.
        folder: where config.json and the files beside it lie; None when the config is a published one.
        record: of the conversion that made the source, if it was one.
    """

    config: Mapping[str, Any]
    folder: Path | None
    record: ConversionRecord | None

    @property
    def recorded_name(self) -> str:
        """The model name that the record holds, or nothing."""
        return self.record.model_name if self.record else ""

    @property
    def source_options(self) -> Mapping[str, Any]:
        """Options of the source's layout that the record holds."""
        return self.record.target_options if self.record else {}

    @property
    def target_options(self) -> Mapping[str, Any]:
        """Options of the original's layout that the record holds: what a way back should make again."""
        return self.record.source_options if self.record else {}

    @property
    def source_dtypes(self) -> Mapping[str, str]:
        """Dtype of each original tensor, where recorded."""
        return self.record.source_dtypes if self.record else {}

    def dtypes_of(self, format: str) -> Mapping[str, str]:
        """Dtype of each array of the original, where recorded and where that was of this format."""
        return self.record.source_dtypes if self.record and self.record.source_format == format else {}

    @property
    def logical_dtypes(self) -> Mapping[str, str]:
        """Dtype of the values before the source's operations, by array, where recorded."""
        return self.record.logical_dtypes if self.record else {}

    @property
    def config_dtype(self) -> str:
        """The dtype that the config names; float32 if it names none."""
        return hf_config.dtype_of(self.config)


def load(request: ConversionRequest, opened: Opened) -> Model:
    """Finds config and record.

    Raises:
        RecastError: with everything that is wrong with the config.
    """
    record = record_lib.read(opened.record_folder) if opened.record_folder else None
    if record is not None and record.target_format != request.source_format:
        record = None
    folder = _config_folder(request, opened)
    if folder is not None:
        config: Mapping[str, Any] = hf_config.load(folder)
    else:
        config = _published(request.model_name or (record.model_name if record else ""), opened)
    raise_all(hf_config.check_config(config))
    if folder is not None and not folder.is_dir():
        folder = folder.parent
    if folder is not None:
        carried_files.carried_files(folder)
    return Model(config, folder, record)


def doubt(subject: Model, opened: Opened, residue: str) -> str:
    """Why values under the source's operations may not come back bit for bit, in words; empty if they do.

    Args:
        subject: with the record.
        opened: the source.
        residue: what the run does with the record's.
    """
    record = subject.record
    if record is None:
        return "no record says what they were"
    if residue == "drop":
        return "--residue=drop leaves out what their arrays do not hold"
    if not record.invertible:
        return "its record does not promise it"
    if opened.record_folder is None:
        return ""  # of a published model, as Recast writes it
    root = opened.record_folder.parent
    if opened.items is None or not opened.items.is_relative_to(root):
        return "its files are not those of an output"
    return manifest.doubt(root, opened.items.relative_to(root).as_posix(), record.logical_dtypes.keys())


def fingerprint(request: ConversionRequest, opened: Opened) -> str:
    """A digest of everything beside the weights that the output depends on: config, tokenizer, record, residue."""
    hasher = hashlib.sha256()
    folder = _config_folder(request, opened)
    files = [folder] if folder is not None and folder.is_file() else []
    beside = folder.parent if files and folder is not None else folder
    if beside is not None and beside.is_dir():
        files += [beside / name for name in carried_files.names(beside)]
    if opened.record_folder is not None:
        files += sorted(entry for entry in opened.record_folder.iterdir() if entry.is_file())
    for path in files:
        # What cannot be read is reported where it is used.
        digest = manifest.file_digest(path) if path.is_file() and os.access(path, os.R_OK) else "-"
        hasher.update(f"{path.name}:{digest}\n".encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()


def check_recorded_name(subject: Model) -> None:
    """Refuses a record whose model name means nothing.

    Raises:
        RecastError: RESIDUE_INVALID.
    """
    name = subject.recorded_name
    if not name:
        return
    published = catalog.find(name)
    families = (published.family,) if published else catalog.layout_names().get(name, ())
    if not families:
        raise record_error(f"names the model {name}, which is not known")
    expected = catalog.family_of(subject.config)
    recorded = subject.record.family if subject.record else families[0]
    if expected not in families or recorded != expected:
        raise record_error(f"is about {name} of the family {recorded}, the config about {expected}")


def check_recorded_options(subject: Model, family: Family, name: str, request: ConversionRequest) -> None:
    """Refuses a record whose options the layouts do not take.

    Raises:
        RecastError: RESIDUE_INVALID.
    """
    pairs = ((request.source_format, subject.source_options), (request.target_format, subject.target_options))
    for format, options in pairs:
        if subject.record is None:
            return
        try:
            binding.check_options(family, name, format, options)
        except RecastError as error:
            if any(d.id != "INVALID_FLAG" for d in error.diagnostics):
                raise
            reasons = "; ".join(d.reason for d in error.diagnostics)
            raise record_error(f"holds options that do not fit: {reasons}") from error


def record_error(what: str) -> RecastError:
    """A fault in what an earlier conversion recorded; `what` goes on after the file's name."""
    place = f"{record_lib.FOLDER}/{record_lib.FILE}"
    return RecastError.of("RESIDUE_INVALID", f"{place} {what}.", subject=place)


def carry(
    request: ConversionRequest,
    subject: Model,
    plan: Plan,
    staging: Staging,
    quantization: Mapping[str, Any] | None = None,
) -> None:
    """Copies config, tokenizer and their kind into the output; `quantization` is what the config is to announce."""
    if request.target_format != "hf":
        if subject.folder is not None:
            target = staging.path("recast", CARRIED_FOLDER, "config.json").parent
            carried_files.copy_carried(subject.folder, target)
        return
    if subject.folder is not None:
        carried_files.copy_carried(subject.folder, staging.root)
    dtype = _written_dtype(request, subject, plan)
    quantized = bool(request.requantize)
    config = {**subject.config, **request.config_changes}
    text = hf_config.carried_text(
        subject.folder, config, dtype=dtype, quantized=quantized, quantization_config=quantization
    )
    staging.path("config.json").write_text(text, "utf-8")


def _written_dtype(request: ConversionRequest, subject: Model, plan: Plan) -> str:
    """The dtype to name in config.json: the one that most bytes are written in."""
    if request.dtype != AUTO:
        return request.dtype
    if request.requantize:
        return subject.config_dtype  # most bytes are codes, as they were
    sizes: dict[str, int] = {}
    for array in plan.arrays.values():
        sizes[array.info.dtype] = sizes.get(array.info.dtype, 0) + array.bytes
    return max(sizes, key=lambda name: sizes[name], default=subject.config_dtype)


def _config_folder(request: ConversionRequest, opened: Opened) -> Path | None:
    if request.config_path is not None:
        return request.config_path
    if request.source_format == "hf":
        return opened.root
    carried = opened.record_folder / CARRIED_FOLDER if opened.record_folder else None
    return carried if carried is not None and carried.is_dir() else None


def _published(model_name: str, opened: Opened) -> Mapping[str, Any]:
    published = catalog.find(model_name) if model_name else None
    if published is None:
        raise RecastError.of(
            "CONFIG_MISSING",
            "The checkpoint carries no config.json, and no published model was named.",
            subject=str(opened.root),
            suggestion="Pass --hf_config_path, or --model_name with a published name.",
        )
    return published.config
