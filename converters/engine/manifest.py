"""checkpoint-manifest.json: a digest of every file and tensor of an output, and DONE, which names the manifest's."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mappings import strict_json
from reporting.diagnostics import Diagnostic, raise_all

FILE = "checkpoint-manifest.json"
_SCHEMA = 1


def describe(
    root: Path,
    tensors: Mapping[str, Mapping[str, Any]],
    request: str,
    threads: int,
    check: Callable[[], None] = lambda: None,
) -> str:
    """The manifest of everything below `root`, as JSON text.

    Args:
        root: the staged output.
        tensors: for each array its dtype, shape and the digests of its units.
        request: digest of the request that made it.
        threads: how many files are read at a time.
        check: called before each file; raises if the run must stop.
    """
    paths = sorted(path for path in _files(root))

    def digest(path: str) -> str:
        check()
        return file_digest(root / path)

    with ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(digest, paths))
    files = {
        path: {"bytes": (root / path).stat().st_size, "blake3": digest}
        for path, digest in zip(paths, digests, strict=True)
    }
    return (
        json.dumps({"schema": _SCHEMA, "request": request, "files": files, "tensors": dict(tensors)}, indent=1) + "\n"
    )


def done(manifest: str, request: str) -> str:
    """The text of DONE."""
    digest = hashlib.sha256(manifest.encode()).hexdigest()
    return json.dumps({"request": request, "manifest_sha256": digest}) + "\n"


def is_complete(destination: Path, request: str) -> bool:
    """Whether a directory holds the whole output of a request: DONE, its manifest, and every file in its size."""
    if _object(destination / "DONE").get("request") != request:
        return False
    files = _confirmed(destination)
    return files is not None and all(_has_size(destination / name, entry) for name, entry in files.items())


def doubt(root: Path, folder: str, arrays: Collection[str]) -> str:
    """Why it is not certain that the files of an Orbax item are those that were written, in words; empty if it is.

    Files at its top and those of the arrays are held against their digests, all others against their sizes: with OCDBT
    the former name the files of data, whose names are random, so that other data has other names.

    Args:
        root: with the manifest.
        folder: of the item, relative to it.
        arrays: names of those that matter, whose files are folders of these names where there is no OCDBT.
    """
    files = _confirmed(root)
    if files is None:
        return f"no {FILE} that DONE confirms lies beside it"
    there = {f"{folder}/{name}" for name in _files(root / folder)}
    listed = {name for name in files if name.startswith(f"{folder}/")}
    for name in sorted(there ^ listed):
        return f"{name} is " + (f"not among the files that {FILE} lists" if name in there else "gone")
    for name in sorted(listed):
        first, *deeper = name.removeprefix(f"{folder}/").split("/")
        certain = not deeper or first in arrays
        if not _has_size(root / name, files[name]) or (
            certain and file_digest(root / name) != files[name].get("blake3")
        ):
            return f"{name} is not the file that {FILE} lists"
    return ""


def _confirmed(root: Path) -> Mapping[str, Any] | None:
    """The files that a manifest lists, None unless DONE confirms it."""
    try:
        content = (root / FILE).read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != _object(root / "DONE").get("manifest_sha256"):
        return None
    files = _object(root / FILE).get("files")
    return files if isinstance(files, dict) else None


def check_listed(root: Path, folder: str, *, digests: bool = True) -> None:
    """Holds the files of a folder against the manifest beside it, if there is one.

    Args:
        root: with the manifest.
        folder: relative to it; what lies in folders below is not looked at.
        digests: whether bytes are compared, or sizes alone.

    Raises:
        RecastError: RESIDUE_INVALID for each file that is gone or not the one listed.
    """
    files = _object(root / FILE).get("files")
    listed = files if isinstance(files, dict) else {}
    found = []
    for name, entry in listed.items():
        path = root / name
        if Path(name).parent != Path(folder) or not isinstance(entry, dict):
            continue
        same = path.is_file() and not path.is_symlink() and _has_size(path, entry)
        if not same or (digests and file_digest(path) != entry.get("blake3")):
            reason = f"{name} is not the file that {FILE} lists."
            found.append(Diagnostic("RESIDUE_INVALID", reason, subject=name))
    raise_all(found)


def _has_size(path: Path, entry: Any) -> bool:
    try:
        return isinstance(entry, dict) and path.stat().st_size == entry.get("bytes")
    except OSError:
        return False


def _object(path: Path) -> dict[str, Any]:
    try:
        data = strict_json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def file_digest(path: Path) -> str:
    """BLAKE3 of a file's bytes, as `b3sum` prints it."""
    import blake3

    # Mapped, not read: the pages are hashed where they are.
    return str(blake3.blake3().update_mmap(path).hexdigest())


def _files(root: Path) -> Sequence[str]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            relative = os.path.relpath(os.path.join(folder, name), root)
            if relative != "lock":
                found.append(relative)
    return found
