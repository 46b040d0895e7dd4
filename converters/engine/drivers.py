"""The on-disk formats behind the names of layouts: how each is opened, written, read again and recognised."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from converters.engine import hf_names, kept, maxtext_roots, renaming
from converters.engine import record as record_lib
from converters.engine.binding import Sides
from converters.engine.plan import Plan
from converters.engine.request import ConversionRequest
from converters.engine.staging import Staging
from converters.engine.values import AnyArray
from converters.formats import orbax_directory, orbax_extended, torch_source
from converters.formats.base import Declared, Reader, Sink, Source
from converters.formats.orbax_extended import Extended
from converters.formats.orbax_metadata import Leaf
from converters.quantized import opening
from converters.quantized.reader import DecodingReader
from reporting.diagnostics import Diagnostic, RecastError
from validators import quantization


@dataclasses.dataclass(frozen=True)
class Opened:
    """An opened source.

    Attributes:
        source: its arrays.
        description: what it is, in words.
        remarks: what lies beside it and was not taken.
        root: the directory that holds the checkpoint; nothing may be written inside.
        record_folder: the `recast/` folder of an earlier conversion, if there is one.
        options: layout options that the checkpoint's own metadata states.
        fingerprint: digest that changes when the files do.
        fingerprint_now: takes it again.
        reader: opens a second reader of the source, which shares nothing with `source`.
        step: number of the step, where the path says it.
        leaves: every leaf of the tree by name, where the format has a tree.
        metadata: what the checkpoint's writer added to its metadata.
        extended: reads what the checkpoint keeps of arrays beside their values, by stored name.
        decoded: what was decoded from what, in words, where the checkpoint is quantised.
        left: arrays that belong to no weight and are not converted, with the reason.
        items: directory of the arrays' files, where the format has one.
    """

    source: Source
    description: str
    remarks: tuple[str, ...]
    root: Path
    record_folder: Path | None
    options: Mapping[str, Any]
    fingerprint: str
    fingerprint_now: Callable[[], str]
    reader: Callable[[], Reader]
    step: int | None = None
    leaves: Mapping[str, Leaf] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extended: Callable[[], Extended] = dict
    decoded: tuple[str, ...] = ()
    left: Mapping[str, str] = dataclasses.field(default_factory=dict)
    items: Path | None = None


@dataclasses.dataclass(frozen=True)
class Driver:
    """One on-disk format.

    Attributes:
        open: opens a source.
        sink: makes a sink in a staging folder, the last argument says whether it goes on with what is there.
        reader: opens a second reader of what the sink wrote.
        free_grid: whether chunks may be any boxes.
        last: gives the entries of the output that must appear after all others.
    """

    open: Callable[[Path], Opened]
    sink: Callable[[ConversionRequest, Staging, Sides, bool], Sink]
    reader: Callable[[Staging], Reader]
    free_grid: bool
    last: Callable[[Sides], tuple[str, ...]]


def driver_of(format: str) -> Driver:
    """The driver for a layout's format."""
    return _DRIVERS[format]


def recognize(path: Path) -> str:
    """The format of a checkpoint, from the names of its files.

    Raises:
        RecastError: SOURCE_NOT_FOUND or SOURCE_NOT_RECOGNIZED.
    """
    if not path.exists():
        raise RecastError.of("SOURCE_NOT_FOUND", f"{path} does not exist.", subject=str(path))
    if path.is_file() or _is_hf(path):
        return "hf"
    marks = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "items")
    if any((path / mark).exists() for mark in marks) or any(entry.name.isdigit() for entry in path.iterdir()):
        return "maxtext"
    if orbax_directory.steps_by_other_names(path):
        return "maxtext"
    reason = f"{path} holds no safetensors files, no pytorch_model.bin and no Orbax checkpoint"
    raise _told(Diagnostic("SOURCE_NOT_RECOGNIZED", reason, subject=str(path)), "", path)


def _is_hf(directory: Path) -> bool:
    names = ("*.safetensors", "*.safetensors.index.json")
    return any(any(directory.glob(name)) for name in names) or torch_source.is_here(directory)


def _is_maxtext(path: Path) -> bool:
    try:
        orbax_directory.resolve(path)
    except RecastError:
        return False
    return True


def _open(format: str, path: Path) -> Opened:
    try:
        return _with_kept(_open_hf(path) if format == "hf" else _open_maxtext(path))
    except RecastError as error:
        if [diagnostic.id for diagnostic in error.diagnostics] != ["SOURCE_NOT_RECOGNIZED"]:
            raise
        raise _told(error.diagnostics[0], format, path) from None


def _told(unread: Diagnostic, format: str, path: Path) -> RecastError:
    """What is wrong with a path that is not of the format that was wanted, and what it is, where that can be seen."""
    is_gguf = path.suffix == ".gguf" or (path.is_dir() and any(path.glob("*.gguf")))
    if format == "hf" and _is_maxtext(path):
        what, suggestion = "a MaxText checkpoint", "Give it to `recast maxtext-to-hf`."
    elif format == "maxtext" and (_is_hf(path) or path.suffix == ".safetensors"):
        what = "a Hugging Face checkpoint"
        suggestion = "Give it to `recast hf-to-maxtext`."
    elif is_gguf:
        what = "GGUF, as llama.cpp reads it"
        suggestion = "Give the directory of the Hugging Face checkpoint that the GGUF file was made from."
    else:
        return RecastError([unread])
    return RecastError(
        [dataclasses.replace(unread, reason=f"{unread.reason.rstrip('.')}; it is {what}.", suggestion=suggestion)]
    )


def decoded(opened: Opened, config: Mapping[str, Any], dtype: str) -> Opened:
    """A Hugging Face checkpoint as plain arrays, where its config announces codes.

    Args:
        opened: the files.
        config: the checkpoint's own, checked.
        dtype: of decoded arrays, or `auto`.

    Raises:
        RecastError: everything that is wrong with codes, scales and their shapes.
    """
    scheme = quantization.read(config)
    if scheme is None:
        return opened
    found = opening.recognised(opened.source, scheme)
    source = opening.decoding(opened.source, config, found, dtype)
    return dataclasses.replace(
        opened,
        source=source,
        reader=lambda: DecodingReader(opened.reader(), found.stored, source.dtype),
        decoded=opening.lines(scheme, source),
        left=found.left,
    )


def declared(plan: Plan) -> list[Declared]:
    """What a sink must know before the first write."""
    return [Declared(array.info, array.chunk) for array in plan.arrays.values()]


def check_scan(found: object, asked: object, how: str) -> None:
    """Refuses a --scan_layers that contradicts the checkpoint.

    Args:
        found: what the checkpoint says, None if it says nothing.
        asked: what the flag says, None if it was not given.
        how: by what the checkpoint says it.

    Raises:
        RecastError: SCAN_LAYERS_MISMATCH.
    """
    if found is None or asked is None or str(found).lower() == str(asked).lower():
        return
    raise RecastError.of(
        "SCAN_LAYERS_MISMATCH",
        f"--scan_layers={asked}, but the checkpoint {how} with scan_layers={str(found).lower()}.",
        subject="--scan_layers",
    )


def check_metadata(found: object, said: object) -> None:
    """Refuses a checkpoint whose metadata says another scan_layers than its arrays.

    Raises:
        RecastError: SCAN_LAYERS_MISMATCH.
    """
    if found is None or said is None or str(found).lower() == str(said).lower():
        return
    raise RecastError.of(
        "SCAN_LAYERS_MISMATCH",
        f"The checkpoint's metadata says scan_layers={str(said).lower()}, but its arrays are saved with "
        f"scan_layers={str(found).lower()}.",
        subject="_CHECKPOINT_METADATA",
        suggestion="Take the checkpoint from the original source again, or correct scan_layers in its metadata.",
    )


def sink_of(request: ConversionRequest, staging: Staging, sides: Sides, plan: Plan, resume: bool) -> Sink:
    """The sink of an output, in a staging folder; the last argument says whether it goes on with what is there."""
    from converters.formats.safetensors_sink import SafetensorsSink

    own = driver_of(request.target_format).sink(request, staging, sides, resume)
    if not kept.names_in(plan.arrays):
        return own
    folder = _kept_folder(staging)
    folder.mkdir(parents=True, exist_ok=True)
    return kept.JoinedSink(own, SafetensorsSink(folder, resume=resume))


def reader_of(request: ConversionRequest, staging: Staging, plan: Plan) -> Reader:
    """A second reader of what the sink wrote."""
    own = driver_of(request.target_format).reader(staging)
    if not kept.names_in(plan.arrays):
        return own
    return kept.JoinedReader(own, SafetensorsReader(_headers(sorted(_kept_folder(staging).glob("*.safetensors")))))


def _kept_folder(staging: Staging) -> Path:
    return staging.path(record_lib.FOLDER, kept.FOLDER)


def _with_kept(opened: Opened) -> Opened:
    """A source with the arrays that are kept beside it."""
    folder = kept.folder_of(opened.record_folder)
    if folder is None:
        return opened
    try:
        beside = kept.open_source(folder)
    except RecastError:
        opened.source.close()
        raise
    joined = kept.JoinedSource(opened.source, beside)
    files = {name: folder / info.location for name, info in beside.tensors.items()}
    return dataclasses.replace(
        opened,
        source=joined,
        description=f"{opened.description} and {kept.PLACE}",
        fingerprint=_digest(joined.fingerprints()),
        fingerprint_now=lambda: _digest(joined.fingerprints()),
        reader=lambda: kept.JoinedReader(opened.reader(), SafetensorsReader(files)),
    )


def _open_hf(path: Path) -> Opened:
    """A Hugging Face checkpoint under the names that its model's arrays usually have."""
    opened = _open_hf_files(path)
    names, lines = hf_names.usual_names(opened.source.tensors, opened.root)
    if not names:
        return opened
    return dataclasses.replace(
        opened,
        source=renaming.RenamedSource(opened.source, names),
        remarks=(*opened.remarks, *lines),
        reader=lambda: renaming.RenamedReader(opened.reader(), names),
    )


def _open_hf_files(path: Path) -> Opened:
    from converters.formats.safetensors_source import SafetensorsSource

    if torch_source.is_here(path):
        return _open_torch(path)
    source = SafetensorsSource(path)
    files = len(source.files)
    return Opened(
        source=source,
        description=f"{files} safetensors file{'s' if files > 1 else ''}",
        remarks=_not_read(source.unused),
        root=source.directory,
        record_folder=_record_folder(source.directory),
        options={},
        fingerprint=_digest(source.fingerprints()),
        fingerprint_now=lambda: _digest(source.fingerprints()),
        reader=lambda: SafetensorsReader(
            {name: source.directory / info.location for name, info in source.tensors.items()}
        ),
    )


def _not_read(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name} is no part of the checkpoint and was not read" for name in names)


def _open_torch(path: Path) -> Opened:
    source = torch_source.TorchSource(path)
    files = len(source.files)
    places = {name: path / info.location for name, info in source.tensors.items()}
    return Opened(
        source=source,
        description=f"{files} file{'s' if files > 1 else ''} of torch.save",
        remarks=_not_read(source.unused),
        root=path,
        record_folder=_record_folder(path),
        options={},
        fingerprint=_digest(source.fingerprints()),
        fingerprint_now=lambda: _digest(source.fingerprints()),
        reader=lambda: torch_source.TorchElements(places),
    )


def _open_maxtext(path: Path) -> Opened:
    from converters.formats.orbax_source import OrbaxSource

    source = OrbaxSource(path)
    items = source.location.items
    names = maxtext_roots.usual_names(source.tensors)
    scan = source.custom_metadata.get("scan_layers")
    return Opened(
        source=renaming.RenamedSource(source, names) if names else source,
        description="an Orbax checkpoint" + ("" if source.location.step is None else f", step {source.location.step}"),
        remarks=_other_steps(source.location.other_steps, source.location.unfinished),
        root=_checkpoint_root(items),
        record_folder=_record_folder(items.parent.parent) or _record_folder(items.parent),
        options={"scan": "true" if scan else "false"} if isinstance(scan, bool) else {},
        fingerprint=_digest(source.fingerprints()),
        fingerprint_now=lambda: _digest(source.fingerprints()),
        reader=lambda: OrbaxReader(items),
        step=source.location.step,
        leaves=maxtext_roots.usual_leaves(source.leaves, names),
        metadata=source.custom_metadata,
        extended=lambda: orbax_extended.read(items),
        items=items,
    )


def _hf_sink(request: ConversionRequest, staging: Staging, _: Sides, resume: bool) -> Sink:
    from converters.formats.safetensors_sink import SafetensorsSink

    numbered, size = request.numbered_shards, request.max_shard_bytes
    return SafetensorsSink(staging.root, max_shard_size=size, numbered=numbered, resume=resume)


def _maxtext_sink(request: ConversionRequest, staging: Staging, sides: Sides, resume: bool) -> Sink:
    from converters.formats.orbax_sink import OrbaxSink

    scan = sides.target.options.get("scan")
    custom = {"scan_layers": scan in (True, "true")} if scan is not None else {}
    storage: dict[str, Any] = {
        "compression": request.compression,
        "use_zarr3": request.use_zarr3,
        "use_ocdbt": request.use_ocdbt,
        "resume": resume,
    }
    state = sides.state
    if state is None:
        return OrbaxSink(staging.root, custom_metadata=custom, **storage)
    return OrbaxSink(
        staging.root,
        step=state.step,
        custom_metadata={**state.metadata, **custom},
        scalars=state.scalars,
        empty=(),
        leaves=state.leaves,
        extended=state.extended,
        **storage,
    )


def _hf_reader(staging: Staging) -> Reader:
    return SafetensorsReader(_headers(sorted(staging.root.glob("*.safetensors"))))


def _maxtext_reader(staging: Staging) -> Reader:
    (step,) = (entry for entry in staging.root.iterdir() if entry.name.isdigit())
    return OrbaxReader(step / "items")


def _step_directory(sides: Sides) -> tuple[str, ...]:
    return (str(sides.state.step if sides.state is not None else 0),)


class SafetensorsReader:
    """Elements of safetensors files, by a plain parse of their headers."""

    def __init__(self, files: Mapping[str, Path]):
        """Args: the file of each tensor."""
        from converters.formats.safetensors_second_reader import SafetensorsElements

        opened = {path: SafetensorsElements(path) for path in dict.fromkeys(files.values())}
        self._elements = {name: opened[path] for name, path in files.items()}

    def names(self) -> frozenset[str]:
        """The tensors that are there."""
        return frozenset(self._elements)

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at coordinates."""
        return self._elements[name].read(name, coordinates)


class OrbaxReader:
    """Elements of an Orbax checkpoint, through a fresh TensorStore context opened from `_METADATA`."""

    def __init__(self, items: Path):
        """Args: the item's directory."""
        from converters.formats.orbax_second_reader import OrbaxElements

        self._elements = OrbaxElements(items)
        known = maxtext_roots.usual_names(self._elements.stored)
        self._stored = {known.get(name, name): stored for name, stored in self._elements.stored.items()}

    def names(self) -> frozenset[str]:
        """The arrays that are there."""
        return frozenset(self._stored)

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at coordinates."""
        return self._elements.read(self._stored[name], coordinates)


def _headers(paths: Sequence[Path]) -> dict[str, Path]:
    found = {}
    for path in paths:
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        found.update({name: path for name in header if name != "__metadata__"})
    return found


def _other_steps(others: Sequence[int], unfinished: Sequence[str]) -> tuple[str, ...]:
    remarks = [f"step {name} was passed over: its save was interrupted" for name in unfinished]
    finished = [str(step) for step in others if str(step) not in unfinished]
    if finished:
        remarks.append(f"steps not taken: {', '.join(finished)}")
    return tuple(remarks)


def _checkpoint_root(items: Path) -> Path:
    """The directory that holds a checkpoint's steps, as far as its names say so."""
    step = items.parent
    return step.parent if step.name.isdigit() else items


def _record_folder(directory: Path) -> Path | None:
    folder = directory / record_lib.FOLDER
    return folder if folder.is_dir() and not folder.is_symlink() else None


def _digest(fingerprints: Sequence[Any]) -> str:
    return sha256(json.dumps([dataclasses.asdict(f) for f in fingerprints], sort_keys=True).encode()).hexdigest()


_DRIVERS: Mapping[str, Driver] = {
    "hf": Driver(
        lambda path: _open("hf", path),
        _hf_sink,
        _hf_reader,
        False,
        lambda _: ("config.json", "model.safetensors.index.json"),
    ),
    "maxtext": Driver(lambda path: _open("maxtext", path), _maxtext_sink, _maxtext_reader, True, _step_directory),
}
