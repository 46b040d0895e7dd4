"""Two checkpoints of one model, both opened and bound: what `verify` and `diff` start from.

What a run recorded beside its output is read here as a statement about the files, never as a proof: layouts are
detected from each side's own headers, and options that headers cannot show come from --model_name or the record.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from converters.engine import allocator, binding, drivers, kept, manifest, model, naming, train_state, values
from converters.engine import record as record_lib
from converters.engine import residue as residue_lib
from converters.engine.binding import Sides
from converters.engine.drivers import Opened
from converters.engine.model import Model
from converters.engine.naming import Naming
from converters.engine.record import ConversionRecord
from converters.engine.request import AUTO, ConversionRequest
from converters.engine.train_state import Tree
from converters.quantized.source import DecodingSource
from mappings import catalog
from mappings.language.family import Family
from mappings.language.layout import Layout
from mappings.language.regions import Move
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from validators import hf_config, quantization

MAXTEXT = "maxtext"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One side.

    Attributes:
        path: as it was given.
        format: of its layout.
        opened: its files.
        record: of the conversion that made it, if it is an output of one.
        stored: its files as they are, where `opened` decodes them.
    """

    path: Path
    format: str
    opened: Opened
    record: ConversionRecord | None
    stored: Opened | None = None

    @property
    def logical_dtypes(self) -> Mapping[str, str]:
        """Dtype of the values before the operations of this checkpoint's format, by array, where recorded."""
        return self.record.logical_dtypes if self.record else {}


@dataclasses.dataclass(frozen=True)
class Question:
    """What the flags say of the model.

    Attributes:
        model_name: published name or layout name; empty to take what the files say.
        config_path: config.json or its directory, where neither side has one.
    """

    model_name: str = ""
    config_path: Path | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
    """The model that both sides hold."""

    model: Model
    naming: Naming
    family: Family


@contextmanager
def opened_checkpoint(path: Path) -> Iterator[Checkpoint]:
    """Opens a checkpoint of any format by its headers; closes it after a block.

    Raises:
        RecastError: all that is wrong with the headers or the record.
    """
    # Before any thread of a reader has taken an arena of its own, in which it would keep buffers that no plan counts.
    allocator.keep_buffers()
    format = drivers.recognize(path)
    opened = drivers.driver_of(format).open(path)
    try:
        yield Checkpoint(path, format, opened, _record(format, opened))
    finally:
        opened.source.close()


def plain(first: Checkpoint, second: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Both sides as plain arrays: what is quantised is decoded, to the dtype that its config names.

    Once the arrays of both sides are matched, `alike` takes the dtype of the other side instead.

    Raises:
        RecastError: everything that is wrong with a config that announces codes, or with the codes.
    """
    return _plain(first), _plain(second)


def _plain(side: Checkpoint) -> Checkpoint:
    config = _config_of(side)
    if quantization.announced(config) is None:
        return side
    raise_all(quantization.check(config))
    return dataclasses.replace(side, opened=drivers.decoded(side.opened, config, AUTO), stored=side.opened)


def alike(first: Checkpoint, second: Checkpoint, moves: Sequence[Move] | None = None) -> tuple[Checkpoint, Checkpoint]:
    """Both sides as `plain` gives them, but what only one of them decodes in the dtype that the other keeps it in.

    Args:
        first: one side.
        second: the other.
        moves: from the first to the second; without them, arrays of one name are the same.
    """
    if (first.stored is None) == (second.stored is None):
        return first, second
    if moves is None:
        pairs = [_Pair(name, name, False) for name in first.opened.source.tensors]
    else:
        pairs = [_Pair(move.source, move.target, bool(move.source_ops or move.target_ops)) for move in moves]
    if second.stored is None:
        return _like(first, second, pairs), second
    return first, _like(second, first, [_Pair(pair.other, pair.name, pair.changed) for pair in pairs])


class _Pair(NamedTuple):
    """An array of one side, one of the other that holds its values, and whether an operation lies between the two."""

    name: str
    other: str
    changed: bool


def _like(side: Checkpoint, other: Checkpoint, pairs: Iterable[_Pair]) -> Checkpoint:
    """A side decoded to the dtype in which most of its decoded arrays lie on the other side."""
    source, there = side.opened.source, other.opened.source.tensors
    if side.stored is None or not isinstance(source, DecodingSource):
        return side
    found = [pair for pair in dict.fromkeys(pairs) if pair.other in there]
    decoded = [pair for pair in found if pair.name in source.stored]
    # Arrays that are as wide as a folded constant needs say nothing, nor do those that were never codes.
    dtypes = [there[pair.other].dtype for pair in decoded if not pair.changed]
    dtypes = dtypes or [there[pair.other].dtype for pair in found if not pair.changed]
    counted = Counter(dtype for dtype in dtypes if dtype in values.FLOAT_DTYPES)
    if not counted:
        return side
    dtype = counted.most_common(1)[0][0]
    return dataclasses.replace(side, opened=drivers.decoded(side.stored, _config_of(side), dtype))


def _config_of(side: Checkpoint) -> Mapping[str, Any]:
    """The config that says how this side is stored; nothing where it cannot be read, which others find out."""
    if side.format == MAXTEXT or not (side.opened.root / hf_config.FILE).is_file():
        return {}
    try:
        return hf_config.load(side.opened.root)
    except RecastError:
        return {}


def subject_of(first: Checkpoint, second: Checkpoint, question: Question) -> Subject:
    """Finds config, name and family from what was given, else from the first side, else from the second.

    Raises:
        RecastError: with everything that is wrong with them.
    """
    found = _model(first, second, question)
    name = question.model_name or next((c.record.model_name for c in (first, second) if c.record), "")
    format = MAXTEXT if MAXTEXT in (first.format, second.format) else first.format
    try:
        named = naming.resolve(name, found.config, format)
    except RecastError as error:
        # Two sides of one format mean the same by every value, whatever it is.
        family = catalog.family_of(found.config)
        ambiguous = all(d.id == "MODEL_NAME_AMBIGUOUS" for d in error.diagnostics)
        if family is None or not ambiguous or first.format != second.format:
            raise
        named = Naming(family, "", {}, "from config.json; the variants that fit differ on both sides alike")
    return Subject(found, named, binding.family_for(named.family, found.config))


def layouts_of(
    subject: Subject, first: Checkpoint, second: Checkpoint, question: Question, *, lenient: bool = False
) -> tuple[Layout, Layout]:
    """The layouts of both sides, each detected from its own headers.

    Args:
        subject: the model.
        first: one side.
        second: the other.
        question: what was asked.
        lenient: take the nearest layout where none fits.

    Raises:
        RecastError: the headers fit no layout, contradict metadata or record, or leave open what changes values.
    """
    source = _layout_of(subject, first, second, question, None, lenient=lenient)
    like = source if first.format == second.format else None
    return source, _layout_of(subject, second, first, question, like, lenient=lenient)


def _layout_of(
    subject: Subject,
    checkpoint: Checkpoint,
    other: Checkpoint,
    question: Question,
    like: Layout | None,
    *,
    lenient: bool,
) -> Layout:
    family, named = subject.family, subject.naming
    recorded = _options(checkpoint.record)
    if recorded:
        _check_recorded(subject, checkpoint, recorded, question)
    given = {**named.options, **_told_by(other, checkpoint.format), **recorded}
    given.pop("scan", None)
    header = checkpoint.opened.source.tensors
    layout, undecided = binding.detected_layout(family, named.family, checkpoint.format, given, header)
    if undecided and like is not None:
        given |= {name: like.options[name] for name in undecided}
        layout, undecided = binding.detected_layout(family, named.family, checkpoint.format, given, header)
    if checkpoint.format == other.format:
        undecided = {}
    if not lenient:
        drivers.check_metadata(layout.options.get("scan"), checkpoint.opened.options.get("scan"))
    raise_all(
        [
            Diagnostic(
                "MODEL_NAME_AMBIGUOUS",
                f"The files of {checkpoint.path} do not say whether {name} is "
                f"{' or '.join(str(value) for value in candidates)}.",
                subject="--model_name",
            )
            for name, candidates in undecided.items()
        ]
    )
    return layout


def compose(
    subject: Subject, first: Checkpoint, second: Checkpoint, source: Layout, target: Layout, *, initialise: bool = False
) -> Sides:
    """The moves from the first side to the second; between MaxText layouts, of training state too where both have it.

    Args:
        subject: the model.
        first: one side.
        second: the other.
        source: layout of the first.
        target: layout of the second.
        initialise: where only the second side has training state, or it has a new one, whether it must be that with
            which an optimizer starts.

    Raises:
        RecastError: as `binding.compose` and `train_state`.
    """
    header = first.opened.source.tensors
    mirrors = {name for name, array in source.arrays.items() if array.mirror}
    weights = {name: info for name, info in header.items() if name not in mirrors}
    composition = binding.compose(source, target, weights, wanted=second.opened.source.tensors)
    sides = Sides(subject.family, source, target, composition, {})
    if not first.format == second.format == MAXTEXT:
        return sides
    ours, theirs = _tree(first), _tree(second)
    if theirs.has_state and initialise:
        dtypes = {name: info.dtype for name, info in theirs.tensors.items()}
        new = train_state.initialise(sides, ours, dtypes, theirs.step)
        if not ours.has_state or _is_new(new, second, theirs):
            return new
    if ours.has_state and theirs.has_state:
        return train_state.keep(sides, ours, theirs.step)
    return train_state.strip(sides, ours, theirs.step)


def _is_new(new: Sides, checkpoint: Checkpoint, tree: Tree) -> bool:
    """Whether a training state was made anew: as recorded, or where no record says as its headers and counts look."""
    recorded = checkpoint.record.training_state if checkpoint.record else ""
    if recorded:
        return recorded == "initialise"
    return train_state.looks_new(new, tree, lambda name: int(checkpoint.opened.source.read(name, ())))


def has_state(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds training state."""
    return checkpoint.format == MAXTEXT and _tree(checkpoint).has_state


def _tree(checkpoint: Checkpoint) -> Tree:
    opened = checkpoint.opened
    return Tree(kept.own_of(opened.source.tensors), opened.leaves, opened.step, opened.metadata)


def residue_of(checkpoint: Checkpoint) -> residue_lib.Residue:
    """The elements that the checkpoint's own values do not give back.

    Raises:
        RecastError: RESIDUE_INVALID.
    """
    folder = checkpoint.opened.record_folder
    if folder is None:
        return residue_lib.Residue(residue_lib.EMPTY)
    found = residue_lib.read(folder / record_lib.RESIDUE_FILE)
    found.check(checkpoint.opened.source.tensors)
    return found


def options_of(*layouts: Layout) -> dict[str, str]:
    """Options of layouts, for the report."""
    return {f"{layout.format}.{name}": str(value) for layout in layouts for name, value in layout.options.items()}


def _record(format: str, opened: Opened) -> ConversionRecord | None:
    if opened.record_folder is None:
        return None
    manifest.check_listed(opened.record_folder.parent, record_lib.FOLDER)
    kept.check_files(opened.record_folder.parent, digests=False)
    found = record_lib.read(opened.record_folder)
    return found if found is not None and found.target_format == format else None


def _model(first: Checkpoint, second: Checkpoint, question: Question) -> Model:
    try:
        return _loaded(first, second.format, question)
    except RecastError as error:
        if any(d.id != "CONFIG_MISSING" for d in error.diagnostics):
            raise
        try:
            return _loaded(second, first.format, question)
        except RecastError as other:
            missing = all(d.id == "CONFIG_MISSING" for d in other.diagnostics)
            raise (error if missing else other) from other


def _loaded(checkpoint: Checkpoint, target_format: str, question: Question) -> Model:
    root = checkpoint.opened.root
    request = ConversionRequest(
        source=root,
        destination=root,
        source_format=checkpoint.format,
        target_format=target_format,
        dtype=AUTO,
        model_name=question.model_name,
        config_path=question.config_path,
    )
    found = model.load(request, checkpoint.opened)
    model.check_recorded_name(found)
    return found


def _options(record: ConversionRecord | None) -> Mapping[str, Any]:
    return record.target_options if record else {}


def _told_by(other: Checkpoint, format: str) -> Mapping[str, Any]:
    """Options of the checkpoint that the other side was made from, if that had this format."""
    record = other.record
    return record.source_options if record is not None and record.source_format == format else {}


def _check_recorded(subject: Subject, checkpoint: Checkpoint, recorded: Mapping[str, Any], question: Question) -> None:
    """Refuses recorded options that mean nothing, or that the given name contradicts."""
    try:
        binding.layout_for(subject.family, subject.naming.family, checkpoint.format, recorded)
    except RecastError as error:
        if any(d.id != "INVALID_FLAG" for d in error.diagnostics):
            raise
        raise model.record_error(f"holds options that do not fit: {_reasons(error.diagnostics)}") from error
    try:
        naming.check_record(subject.family, subject.naming, checkpoint.format, recorded)
    except RecastError as error:
        raise error if question.model_name else model.record_error(_reasons(error.diagnostics)) from error


def _reasons(diagnostics: Sequence[Diagnostic]) -> str:
    return "; ".join(d.reason for d in diagnostics)
