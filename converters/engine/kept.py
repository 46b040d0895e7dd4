"""Arrays that an output's format has no place for: they lie in `recast/kept` beside it, as safetensors files.

To the engine both are one checkpoint: a source lists the kept arrays beside its own, under names with the prefix
`kept/`, a sink takes them, and a second reader finds them. `mappings.language.keeping` says which arrays these are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from converters.engine import manifest, values
from converters.engine import record as record_lib
from converters.engine.values import AnyArray
from converters.formats.base import Declared, Reader, Region, Sink, Source, TensorInfo
from converters.formats.fingerprints import Fingerprint
from mappings.language import keeping
from mappings.language.composition import Composition
from mappings.language.keeping import Keepable, is_kept
from mappings.language.layout import Layout
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import NoteLine

FOLDER = "kept"
PLACE = f"{record_lib.FOLDER}/{FOLDER}"
"""Where kept arrays lie in an output."""


def folder_of(record_folder: Path | None) -> Path | None:
    """The folder of kept arrays in a `recast/` folder, if there is one."""
    found = record_folder / FOLDER if record_folder is not None else None
    return found if found is not None and found.is_dir() and not found.is_symlink() else None


def names_in(tensors: Collection[str]) -> tuple[str, ...]:
    """The kept ones of some arrays."""
    return tuple(name for name in tensors if is_kept(name))


def own_of(tensors: Mapping[str, TensorInfo]) -> Mapping[str, TensorInfo]:
    """The arrays of a checkpoint itself, without kept ones."""
    return {name: info for name, info in tensors.items() if not is_kept(name)}


def open_source(folder: Path) -> Source:
    """The kept arrays by their names in files, which lack the prefix.

    Raises:
        RecastError: RESIDUE_INVALID if anything is wrong with the files.
    """
    from converters.formats.safetensors_source import SafetensorsSource

    try:
        return SafetensorsSource(folder)
    except RecastError as error:
        first, *others = error.diagnostics
        more = f" (and {len(others)} more faults)" if others else ""
        raise invalid(f"{PLACE} cannot be read: {first.reason}{more}.") from error


def check_files(root: Path, *, digests: bool) -> None:
    """Holds the kept files against the manifest of the output, if there is one.

    Args:
        root: of the output.
        digests: whether all bytes are read, or sizes alone are compared.

    Raises:
        RecastError: RESIDUE_INVALID for each file that is gone or not the one that is listed.
    """
    manifest.check_listed(root, PLACE, digests=digests)


def extended(layout: Layout, names: Collection[str]) -> Layout:
    """The layout of a checkpoint that has these kept arrays.

    Raises:
        RecastError: RESIDUE_INVALID if the model has no such tensor, or the format a place for it.
    """
    known = keeping.keepable(layout)
    strange = sorted(name for name in names if name not in known)
    if strange:
        raise invalid(f"{PLACE} holds {_inner(strange[0])}, which this model and its format do not leave out.")
    return keeping.extended(layout, names)


def kept_by(source: Layout, target: Layout, header: Mapping[str, TensorInfo], residue: str) -> Layout:
    """The layout of an output, with what it keeps beside its own arrays.

    Args:
        source: layout of the source, extended by what is kept beside it.
        target: layout of the output.
        header: the source's arrays.
        residue: `keep`, `drop` or `refuse`.

    Raises:
        RecastError: RESIDUE_REFUSED, with every tensor that would have to be kept, where that is not allowed.
    """
    lost = keeping.lost(source, target, header)
    if residue == "refuse":
        raise_all([_refused(each, target) for each in lost])
    return keeping.extended(target, [each.name for each in lost]) if residue == "keep" else target


def notes(target: Layout, composition: Composition) -> list[NoteLine]:
    """What is kept of each array of the source, for the report."""
    known = keeping.keepable(target)
    reasons = {
        (move.source, move.target): f"{known[move.target].absence.reason}; kept in {PLACE} as {_inner(move.target)}"
        for move in composition.moves
        if is_kept(move.target)
    }
    return [NoteLine("KEPT", name, reason) for (name, _), reason in reasons.items()]


def lines(source: Layout, target: Layout, header: Mapping[str, TensorInfo]) -> list[str]:
    """What becomes of the tensors that an output has no place for, in words."""
    lost = keeping.lost(source, target, header)
    held = sum(each.name in target.arrays for each in lost)
    said = f"kept in {PLACE}", "not kept"
    return [
        f"{count} tensors that the format {target.format} has no place for are {what}"
        for count, what in zip((held, len(lost) - held), said, strict=True)
        if count
    ]


def check_record(composition: Composition, header: Mapping[str, TensorInfo], recorded: Mapping[str, str]) -> None:
    """Holds kept arrays against the record of the conversion that kept them.

    Args:
        composition: the moves from the source.
        header: the source's arrays.
        recorded: dtype of each array of the output in the original checkpoint, where it is known.

    Raises:
        RecastError: RESIDUE_INVALID for each that has another dtype than the tensors had, or that is gone while others
            are there.
    """
    was: dict[str, set[str]] = {}
    for move in composition.moves:
        if is_kept(move.source) and recorded.get(move.target) in values.FLOAT_DTYPES:
            was.setdefault(move.source, set()).add(recorded[move.target])
    found = [
        Diagnostic(
            "RESIDUE_INVALID",
            f"{_inner(name)} in {PLACE} is of type {header[name].dtype}, but was {values.common(dtypes)}.",
            subject=_inner(name),
        )
        for name, dtypes in was.items()
        if header[name].dtype != values.common(dtypes)
    ]
    if names_in(header):
        found += [
            Diagnostic("RESIDUE_INVALID", f"{PLACE} has nothing for {note.array}.", subject=note.array)
            for note in composition.notes
            if note.kind in ("ABSENT_IN_SOURCE", "REFILLED") and note.array in recorded
        ]
    raise_all(found)


def invalid(reason: str, subject: str = PLACE) -> RecastError:
    """A fault in what was kept."""
    return RecastError.of("RESIDUE_INVALID", reason, subject=subject)


class JoinedSource:
    """A source and the arrays that are kept beside it. Thread-safe as both are."""

    def __init__(self, own: Source, beside: Source):
        """Args: the checkpoint's own arrays; the kept ones, by the names in their files."""
        self.own = own
        self._beside = beside
        kept = {
            keeping.ROOT + name: dataclasses.replace(
                info, name=keeping.ROOT + name, location=f"{PLACE}/{info.location}"
            )
            for name, info in beside.tensors.items()
        }
        self._tensors = {**own.tensors, **kept}

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """All stored arrays by name, kept ones last."""
        return self._tensors

    def chunk(self, name: str) -> tuple[int, ...] | None:
        """The box sizes in which the array is stored."""
        return self._holder(name).chunk(_inner(name))

    def read(self, name: str, region: Region) -> AnyArray:
        """The elements of a region."""
        return self._holder(name).read(_inner(name), region)

    def release(self, name: str, region: Region) -> None:
        """Gives memory back."""
        self._holder(name).release(_inner(name), region)

    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """Of the files of both."""
        return (*self.own.fingerprints(), *self._beside.fingerprints())

    def close(self) -> None:
        """Closes both."""
        self.own.close()
        self._beside.close()

    def _holder(self, name: str) -> Source:
        return self._beside if is_kept(name) else self.own


class JoinedSink:
    """A sink and the one that takes what is kept beside it. `write` is thread-safe as theirs are."""

    def __init__(self, own: Sink, beside: Sink):
        """Args: where the output's own arrays go; where kept ones go, by names without the prefix."""
        self._own = own
        self._beside = beside

    def declare(self, arrays: Sequence[Declared]) -> None:
        """States every array before the first write."""
        self._own.declare([array for array in arrays if not is_kept(array.info.name)])
        self._beside.declare([_renamed(array) for array in arrays if is_kept(array.info.name)])

    def check_written(self, regions: Iterable[tuple[str, Region]]) -> None:
        """Holds what an earlier sink made durable against the files of both."""
        known = list(regions)
        self._own.check_written((name, region) for name, region in known if not is_kept(name))
        self._beside.check_written((_inner(name), region) for name, region in known if is_kept(name))

    def write(self, name: str, region: Region, values: AnyArray) -> None:
        """Stores values."""
        if is_kept(name):
            self._beside.write(_inner(name), region, values)
        else:
            self._own.write(name, region, values)

    def sync(self) -> None:
        """Makes all writes that have returned durable."""
        self._beside.sync()
        self._own.sync()

    def commit(self) -> None:
        """Completes both."""
        self._beside.commit()
        self._own.commit()

    def abort(self) -> None:
        """Releases both without completing anything."""
        self._beside.abort()
        self._own.abort()


class JoinedReader:
    """A second reader of a checkpoint and of what is kept beside it."""

    def __init__(self, own: Reader, beside: Reader):
        """Args: a reader of the checkpoint's own arrays; one of the kept ones, by the names in their files."""
        self._own = own
        self._beside = beside

    def names(self) -> frozenset[str]:
        """The arrays that are there."""
        return self._own.names() | {keeping.ROOT + name for name in self._beside.names()}

    def elements(self, name: str, coordinates: AnyArray) -> AnyArray:
        """The values at coordinates."""
        return (self._beside if is_kept(name) else self._own).elements(_inner(name), coordinates)


def _inner(name: str) -> str:
    return name.removeprefix(keeping.ROOT)


def _renamed(array: Declared) -> Declared:
    return dataclasses.replace(array, info=dataclasses.replace(array.info, name=_inner(array.info.name)))


def _refused(each: Keepable, target: Layout) -> Diagnostic:
    reason = f"{_inner(each.name)} would have to be kept beside the output ({target.format}: {each.absence.reason})."
    return Diagnostic("RESIDUE_REFUSED", reason, subject=_inner(each.name))
