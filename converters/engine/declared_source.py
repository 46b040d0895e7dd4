"""A checkpoint of which only the headers exist: what a published model's would be, for plans without files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.engine import binding, kept, naming, planning
from converters.engine.binding import Sides
from converters.engine.drivers import Opened
from converters.engine.model import Model
from converters.engine.precision import Precision
from converters.engine.record import ConversionRecord
from converters.engine.values import AnyArray
from converters.formats.base import Reader, Region, TensorInfo
from converters.formats.fingerprints import Fingerprint
from mappings.catalog import Manifest
from mappings.language.keeping import is_kept
from mappings.language.layout import Layout
from validators import hf_config

_NOWHERE = Path("/nonexistent")
_GRID_BUDGET = 2 << 30


class DeclaredSource:
    """Headers without data."""

    def __init__(self, tensors: Mapping[str, TensorInfo], chunks: Mapping[str, tuple[int, ...]]):
        """Args: the box sizes in which arrays would be stored; none where any region costs the same."""
        self._tensors = tensors
        self._chunks = chunks

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All arrays by name."""
        return self._tensors

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """The box sizes of an array."""
        return self._chunks.get(name)

    def read(self, name: str, region: Region) -> AnyArray:
        """Raises ValueError: there is nothing to read."""
        raise ValueError(f"{name} is declared, not stored")

    def release(self, name: str, region: Region) -> None:
        """Nothing to give back."""

    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """None: there are no files."""
        return ()

    def close(self) -> None:
        """Nothing to release."""


def open_published(manifest: Manifest, format: str, options: Mapping[str, object]) -> Opened:
    """The headers that a published model has in a format: as published for Hugging Face, as Recast writes it else.

    Args:
        manifest: the model.
        format: hf or maxtext.
        options: layout options of the format.
    """
    return open_with_model(manifest, format, options)[0]


def open_with_model(manifest: Manifest, format: str, options: Mapping[str, object]) -> tuple[Opened, Model]:
    """What `open_published` returns, and what is known of the model besides: of what Recast writes, its record."""
    family = binding.family_for(naming.resolve(manifest.name, manifest.config, "maxtext").family, manifest.config)
    original = binding.layout_for(family, manifest.family, "hf", {})
    source = DeclaredSource(_headers(original, hf_config.dtype_of(manifest.config)), {})
    record = None
    if format != "hf":
        source, record = _as_written(source, original, manifest, format, options)
    opened = Opened(
        source=source,
        description=f"the headers of {manifest.name} in the format {format}; no files",
        remarks=(),
        root=_NOWHERE,
        record_folder=None,
        options={},
        fingerprint="",
        fingerprint_now=lambda: "",
        reader=_no_reader,
    )
    return opened, Model(manifest.config, None, record)


def _as_written(
    source: DeclaredSource, original: Layout, manifest: Manifest, format: str, options: Mapping[str, object]
) -> tuple[DeclaredSource, ConversionRecord]:
    family = original.family
    given = {**manifest.options.get(format, {}), **options}
    bound = binding.layout_for(family, manifest.family, format, given)
    target = kept.kept_by(original, bound, source.tensors, "keep")
    sides = Sides(family, original, target, binding.compose(original, target, source.tensors), {})
    dtype = hf_config.dtype_of(manifest.config)
    plan = planning.make(sides, source, Precision(dtype), {}, planning.Grid(True, 1, _GRID_BUDGET))
    arrays = plan.arrays.values()
    record = ConversionRecord(
        family=manifest.family,
        model_name=manifest.name,
        source_format="hf",
        target_format=format,
        source_options=dict(original.options),
        target_options=dict(target.options),
        source_dtypes={name: info.dtype for name, info in source.tensors.items()},
        logical_dtypes=plan.logical_dtypes,
        invertible=True,
    )
    chunks = {a.info.name: a.chunk for a in arrays if not is_kept(a.info.name)}
    return DeclaredSource({a.info.name: a.info for a in arrays}, chunks), record


def _headers(layout: Layout, dtype: str) -> Mapping[str, TensorInfo]:
    return {
        name: TensorInfo(name, array.shape, dtype)
        for name, array in layout.arrays.items()
        if not array.mirror and not array.optional
    }


def _no_reader() -> Reader:
    raise ValueError("there are no files to read")
