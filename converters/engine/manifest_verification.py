"""Holds a finished output against its own manifest, without the source: files, their digests, tensors, their digests.

DONE authenticates the manifest, the manifest every file and every written region. A damaged file is traced to the
tensors that it touches by reading all of them.
"""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from converters.engine import manifest, values
from converters.engine.destination import DONE, STAGING
from converters.engine.stored_tensors import StoredTensors, open_tensors
from mappings import strict_json
from reporting.diagnostics import Diagnostic, RecastError
from reporting.progress import Progress
from validators import memory

# Written after the manifest, which therefore cannot list them.
_UNLISTED = (DONE, manifest.FILE, "report.txt", "report.json")
_HINT = "Recast writes both into every output."


@dataclasses.dataclass(frozen=True)
class ListedUnit:
    """One region of a tensor as the manifest lists it."""

    box: tuple[tuple[int, int], ...]
    blake3: str


@dataclasses.dataclass(frozen=True)
class ListedTensor:
    """One tensor as the manifest lists it."""

    dtype: str
    shape: tuple[int, ...]
    units: tuple[ListedUnit, ...]


@dataclasses.dataclass(frozen=True)
class Listed:
    """What a manifest says.

    Attributes:
        root: the directory that it describes.
        files: size and digest of each file.
        tensors: by name.
    """

    root: Path
    files: Mapping[str, tuple[int, str]]
    tensors: Mapping[str, ListedTensor]


def read(path: Path) -> Listed:
    """Reads a manifest that DONE confirms.

    Args:
        path: a finished output, or the manifest in it.

    Raises:
        RecastError: MANIFEST_INVALID, SOURCE_NOT_FOUND.
    """
    root = path if path.is_dir() else path.parent
    if not path.exists():
        raise RecastError.of("SOURCE_NOT_FOUND", f"{path} does not exist.", subject=str(path))
    if path.is_file() and path.name != manifest.FILE:
        raise _invalid(f"{path.name} is not called {manifest.FILE}.", path.name, _HINT)
    said, done = _bytes(root / manifest.FILE), _bytes(root / DONE)
    try:
        content = strict_json.loads(said)
        request = content["request"]
        confirmed = isinstance(request, str) and done == manifest.done(said.decode(), request).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        content, confirmed = None, False
    if not confirmed:
        reason = f"{DONE} does not confirm {manifest.FILE}: one of the two was changed, and nothing else was checked."
        raise _invalid(reason, manifest.FILE)
    try:
        return Listed(root, dict(_files(content)), dict(_tensors(content)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _invalid(f"{manifest.FILE} is not of a form that this version reads ({error}).", manifest.FILE) from error


def check(listed: Listed, threads: int, budget: int, progress: str) -> tuple[list[Diagnostic], int, list[Diagnostic]]:
    """Reads every listed file and every listed tensor.

    Args:
        listed: what the manifest says.
        threads: how many are read at a time.
        budget: bytes of buffers.
        progress: one of `reporting.progress.MODES`.

    Returns:
        What is wrong with files, how many bytes of tensors were read, and what is wrong with tensors.
    """
    total = sum(size for size, _ in listed.files.values())
    tensors = sum(_size(tensor) for tensor in listed.tensors.values())
    with Progress(
        total + tensors, stream=sys.stderr, memory=memory.anonymous_bytes, mode=progress, name="verify"
    ) as shown:
        damaged = check_files(listed, threads, shown.advance)
        read, touched = check_tensors(listed, threads, budget, shown.advance)
    return damaged, read, touched


def check_files(listed: Listed, threads: int, advance: Callable[[int], None]) -> list[Diagnostic]:
    """Every listed file that is gone or changed, and every other one that is there."""

    def checked(item: tuple[str, tuple[int, str]]) -> Diagnostic | None:
        found = _file(listed.root, *item)
        advance(item[1][0])
        return found

    with ThreadPoolExecutor(threads) as pool:
        results = pool.map(checked, listed.files.items())
        found = [diagnostic for diagnostic in results if diagnostic is not None]
    for name in sorted(_present(listed.root) - set(listed.files)):
        found.append(_damaged(f"{name} is not in {manifest.FILE}: it was added later.", name))
    return found


def check_tensors(
    listed: Listed, threads: int, budget: int, advance: Callable[[int], None]
) -> tuple[int, list[Diagnostic]]:
    """Reads every listed tensor, unit by unit.

    Returns:
        How many bytes were read, and every tensor that is not what the manifest lists.
    """
    if not listed.tensors:
        return 0, []
    tensors = open_tensors(listed.root, list(listed.tensors))
    limit = max(1, budget // threads)

    def checked(item: tuple[str, ListedTensor]) -> tuple[int, Diagnostic | None]:
        found = _tensor(tensors, item[0], item[1], limit)
        advance(_size(item[1]))
        return found

    try:
        with ThreadPoolExecutor(threads) as pool:
            results = list(pool.map(checked, listed.tensors.items()))
        return sum(read for read, _ in results), [diagnostic for _, diagnostic in results if diagnostic is not None]
    finally:
        tensors.close()


def _size(tensor: ListedTensor) -> int:
    return math.prod(tensor.shape) * values.itemsize(tensor.dtype)


def _tensor(tensors: StoredTensors, name: str, listed: ListedTensor, limit: int) -> tuple[int, Diagnostic | None]:
    try:
        info = tensors.info(name)
        if (info.dtype, info.shape) != (listed.dtype, listed.shape):
            reason = f"is stored as {info.dtype} {list(info.shape)}, not as {listed.dtype} {list(listed.shape)}"
            return 0, _damaged(f"{name} {reason}.", name)
        read = 0
        wrong = []
        for unit in listed.units:
            digest, size = tensors.digest(name, unit.box, limit)
            read += size
            if digest != unit.blake3:
                wrong.append(unit)
    except RecastError as error:
        return 0, _damaged(f"{name} cannot be read: {'; '.join(d.reason for d in error.diagnostics)}", name)
    if not wrong:
        return read, None
    first = [start for start, _ in wrong[0].box], [stop for _, stop in wrong[0].box]
    where = f"{len(wrong)} of its {len(listed.units)} regions, the first from {first[0]} to {first[1]}"
    return read, _damaged(f"{name} does not hold the values that were written: {where}.", name)


def _file(root: Path, name: str, entry: tuple[int, str]) -> Diagnostic | None:
    path = root / name
    size, digest = entry
    try:
        if path.is_symlink() or not path.is_file():
            return _damaged(f"{name} is gone." if not os.path.lexists(path) else f"{name} is no regular file.", name)
        found = path.stat().st_size
        if found != size:
            return _damaged(f"{name} has {found} bytes, not {size}.", name)
        if manifest.file_digest(path) != digest:
            return _damaged(f"{name} has the right size, but other bytes than were written.", name)
    except OSError as error:
        return _damaged(f"{name} cannot be read: {error.strerror}.", name)
    return None


def _present(root: Path) -> set[str]:
    found: set[str] = set()
    for folder, folders, names in os.walk(root):
        relative = os.path.relpath(folder, root)
        if relative == ".":
            # An unfinished run's folder is no part of the output.
            folders[:] = [name for name in folders if name != STAGING]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found.update(os.path.normpath(os.path.join(relative, name)) for name in [*names, *links])
    return found - set(_UNLISTED)


def _files(content: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, str]]]:
    for name, entry in content["files"].items():
        if os.path.isabs(name) or os.path.normpath(name) != name or name.split("/")[0] == "..":
            raise ValueError(f"{name!r} is no path inside of the output")
        yield name, (_whole(entry["bytes"]), _text(entry["blake3"]))


def _tensors(content: Mapping[str, Any]) -> Iterator[tuple[str, ListedTensor]]:
    for name, entry in content["tensors"].items():
        units = tuple(ListedUnit(_box(unit), _text(unit["blake3"])) for unit in entry["units"])
        tensor = ListedTensor(_text(entry["dtype"]), tuple(_whole(n) for n in entry["shape"]), units)
        if not tensor.dtype.isidentifier() or values.dtype_of(tensor.dtype).hasobject:
            raise ValueError(f"{tensor.dtype!r} is no dtype")
        if not _covered(tensor):
            raise ValueError(f"the regions of {name!r} are not each of its elements once")
        yield name, tensor


def _covered(tensor: ListedTensor) -> bool:
    """Whether the units are the cells of a grid that is just the tensor: nothing is left out, nothing listed twice."""
    boxes = {unit.box for unit in tensor.units}
    if len(boxes) != len(tensor.units) or any(len(box) != len(tensor.shape) for box in boxes):
        return False
    if not all(tensor.shape):
        return all(stop <= size for box in boxes for (_, stop), size in zip(box, tensor.shape, strict=True))
    cells = 1
    for axis, size in enumerate(tensor.shape):
        intervals = sorted({box[axis] for box in boxes})
        ends = [0, *(stop for _, stop in intervals)]
        if [start for start, _ in intervals] != ends[:-1] or ends[-1] != size:
            return False
        cells *= len(intervals)
    return cells == len(boxes)


def _box(unit: Mapping[str, Sequence[int]]) -> tuple[tuple[int, int], ...]:
    pairs = zip(unit["start"], unit["stop"], strict=True)
    return tuple((_whole(start), _whole(stop)) for start, stop in pairs)


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _invalid(f"{path.parent} has no {path.name}.", path.name, _HINT) from None


def _invalid(reason: str, subject: str, suggestion: str = "") -> RecastError:
    return RecastError.of("MANIFEST_INVALID", reason, subject=subject, suggestion=suggestion)


def _damaged(reason: str, subject: str) -> Diagnostic:
    return Diagnostic("CHECKPOINT_DAMAGED", reason, subject=subject)
