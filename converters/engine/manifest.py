"""checkpoint-manifest.json: a digest of every file and tensor of an output, and DONE, which names the manifest's."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FILE = "checkpoint-manifest.json"
_SCHEMA = 1
_PIECE = 8 << 20


def describe(root: Path, tensors: Mapping[str, Mapping[str, Any]], request: str, threads: int) -> str:
    """The manifest of everything below `root`, as JSON text.

    Args:
        root: the staged output.
        tensors: for each array its dtype, shape and the digests of its units.
        request: digest of the request that made it.
        threads: how many files are read at a time.
    """
    paths = sorted(path for path in _files(root))
    with ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(lambda path: file_digest(root / path), paths))
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


def request_of(destination: Path) -> str | None:
    """The digest of the request that a completed output was made for, None if it is not completed."""
    try:
        data = json.loads((destination / "DONE").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    request = data.get("request") if isinstance(data, dict) else None
    return request if isinstance(request, str) else None


def file_digest(path: Path) -> str:
    """BLAKE3 of a file's bytes, as `b3sum` prints it."""
    import blake3

    hasher = blake3.blake3()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            hasher.update(piece)
    return str(hasher.hexdigest())


def _files(root: Path) -> Sequence[str]:
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            relative = os.path.relpath(os.path.join(folder, name), root)
            if relative != "lock":
                found.append(relative)
    return found
