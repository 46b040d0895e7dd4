"""What is checked before a long run: the places, the disk and the memory."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from reporting.diagnostics import Diagnostic
from validators import memory

# Interpreter, libraries, headers and one parsed tokenizer: 130 MB were measured with that of Llama 3.
START_UP_BYTES = 256 << 20
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def remote_path(path: str, flag: str) -> list[Diagnostic]:
    """REMOTE_NOT_SUPPORTED if a path has a scheme. Only the scheme is shown: the rest may hold a secret.

    Args:
        path: as the user gave it.
        flag: the flag or argument that it was given for.
    """
    match = _SCHEME.match(path)
    if match is None:
        return []
    reason = f"{flag} begins with {match.group(0)}; only local paths are read and written."
    return [Diagnostic("REMOTE_NOT_SUPPORTED", reason, subject=flag)]


def check_destination(destination: Path, source: Path) -> list[Diagnostic]:
    """Whether a directory can be written to at all, and neither holds the source nor lies in it.

    The source is also what its links lead to: replacing the directory would remove that as well. Whether it is free to
    be used, or to be replaced, is for whoever writes it to say.

    Returns:
        DESTINATION_EXISTS for a file in its place, DESTINATION_INSIDE_SOURCE, DESTINATION_NOT_WRITABLE.
    """
    where = str(destination)
    if os.path.lexists(destination) and not os.path.isdir(destination):
        reason = "There is something at the destination that is no directory."
        return [Diagnostic("DESTINATION_EXISTS", reason, suggestion="Choose another directory.", subject=where)]
    return _check_apart(destination, source) + _check_writable(destination)


def check_disk(destination: Path, needed: int) -> list[Diagnostic]:
    """DISK_SPACE if the file system of a destination, which need not exist yet, has fewer bytes free than needed."""
    place = _existing(destination)
    usage = shutil.disk_usage(place)
    # Some network file systems do not know their size.
    if usage.total == 0 or usage.free >= needed:
        return []
    reason = f"The output needs {needed} bytes; the file system of {place} has {usage.free} free."
    return [Diagnostic("DISK_SPACE", reason, subject=str(destination))]


def check_memory(needed: int, root: Path = Path("/")) -> list[Diagnostic]:
    """MEMORY_PLAN if the process may not have as many bytes as needed.

    Args:
        needed: bytes of the whole process, mapped files not counted.
        root: where /proc and /sys are.
    """
    bound = memory.available(root)
    if bound is None or bound.bytes >= needed:
        return []
    reason = f"The plan needs {needed} bytes of memory; {bound.bytes} can be had, by {bound.limited_by}."
    return [Diagnostic("MEMORY_PLAN", reason, subject="memory")]


def _check_apart(destination: Path, source: Path) -> list[Diagnostic]:
    linked = next((link for link in _links(source) if _holds(destination, link) or _holds(link, destination)), None)
    if _holds(source, destination):
        reason = f"The output directory lies in the input directory {source}."
    elif _holds(destination, source):
        reason = f"The output directory holds the input directory {source}, which replacing it would remove."
    elif linked is not None:
        reason = f"{linked} is a link to the output directory, or to something in it, which replacing it would remove."
    else:
        return []
    suggestion = "Choose an output directory that neither lies in the input directory nor holds it."
    return [Diagnostic("DESTINATION_INSIDE_SOURCE", reason, suggestion=suggestion, subject=str(destination))]


def _links(source: Path) -> Iterator[Path]:
    """The links below a directory."""
    for folder, folders, names in os.walk(source):
        for name in (*folders, *names):
            path = Path(folder, name)
            if path.is_symlink():
                yield path


def _holds(folder: Path, inner: Path) -> bool:
    """Whether a folder is another one or lies above it, whatever names and links lead there."""
    if not os.path.exists(folder):
        return False
    return any(os.path.exists(place) and os.path.samefile(place, folder) for place in _upwards(inner))


def _check_writable(destination: Path) -> list[Diagnostic]:
    place = _existing(destination)
    if not os.path.isdir(place):
        reason = f"{place} is no directory."
    elif not os.access(place, os.W_OK | os.X_OK):
        reason = f"This user may not write to {place}."
    else:
        return []
    return [Diagnostic("DESTINATION_NOT_WRITABLE", reason, subject=str(destination))]


def _existing(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    return next(place for place in _upwards(path) if os.path.lexists(place))


def _upwards(path: Path) -> tuple[Path, ...]:
    """A path without links, as far as they lead anywhere, and all folders above it."""
    resolved = Path(os.path.realpath(path))
    return (resolved, *resolved.parents)
