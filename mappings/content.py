"""What the mappings are, in one digest: two installations with the same one convert alike."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from mappings.language import loader


@functools.cache
def digest(root: Path | None = None) -> str:
    """A digest of the names and contents of all families, layouts and manifests, as they were at the first call.

    Args:
        root: folder of the mappings; that of this installation if not given.
    """
    root = root or loader.mappings_root()
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.textproto"), key=lambda path: path.relative_to(root).as_posix()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{content}  {path.relative_to(root).as_posix()}\n".encode())
    return f"sha256:{total.hexdigest()}"
