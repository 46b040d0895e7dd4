"""The local cache of the Hugging Face Hub: where it is, and the snapshot of a checkpoint in it.

`models--ORG--NAME/snapshots/REVISION/` holds links into `models--ORG--NAME/blobs/`; `refs/main` names the revision that
was downloaded last.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from reporting.diagnostics import RecastError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[0-9a-f]{7,64}")
_LONGEST_REFERENCE = 256


def is_hub_id(text: str) -> bool:
    """Whether a text has the form ORGANISATION/NAME."""
    return _HUB_ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def root(environ: Mapping[str, str] | None = None) -> Path:
    """Where huggingface_hub keeps what it downloads.

    Args:
        environ: environment variables; those of the process if not given.
    """
    given = os.environ if environ is None else environ
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if given.get(name):
            return Path(given[name]).expanduser()
    if given.get("HF_HOME"):
        return Path(given["HF_HOME"]).expanduser() / "hub"
    caches = given.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def snapshot(hub_id: str, cache: Path) -> Path | None:
    """The directory of a checkpoint in the cache: that of `refs/main`, or the only one.

    Args:
        hub_id: ORGANISATION/NAME.
        cache: the cache's root.

    Returns:
        None if the cache does not hold its config and weights.

    Raises:
        RecastError: SOURCE_NOT_RECOGNIZED if several snapshots are there and none is named, or a link in it leads out
            of what was downloaded for this checkpoint.
    """
    if not is_hub_id(hub_id):
        return None
    home = cache / f"models--{hub_id.replace('/', '--')}"
    try:
        found = _chosen(home, hub_id)
        if found is None or not _is_whole(found):
            return None
        _check_links(found, home)
    except OSError as error:
        reason = f"{home} in the local cache cannot be read: {error.strerror}."
        raise RecastError.of("SOURCE_NOT_READABLE", reason, subject=str(home)) from error
    return found


def _chosen(home: Path, hub_id: str) -> Path | None:
    revisions = home / "snapshots"
    if not revisions.is_dir():
        return None
    there = sorted(entry.name for entry in revisions.iterdir() if entry.is_dir() and _REVISION.fullmatch(entry.name))
    named = _main(home / "refs" / "main")
    if named in there:
        return revisions / named
    if len(there) > 1:
        raise RecastError.of(
            "SOURCE_NOT_RECOGNIZED",
            f"The local cache holds {len(there)} revisions of {hub_id}, and refs/main names none of them.",
            suggestion=f"Pass --hf_model_path with one of the folders in {revisions}.",
            subject=str(revisions),
        )
    return revisions / there[0] if there else None


def _main(reference: Path) -> str:
    if not reference.is_file() or reference.stat().st_size > _LONGEST_REFERENCE:
        return ""
    return reference.read_text(encoding="utf-8", errors="replace").strip()


def _is_whole(folder: Path) -> bool:
    """Whether config and weights are there; single shards that are missing are named when the source is opened."""
    names = {entry.name for entry in folder.iterdir()}
    weights = (".safetensors", ".safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    return "config.json" in names and any(name.endswith(weights) for name in names)


def _check_links(folder: Path, home: Path) -> None:
    own = home.resolve()
    allowed = (own / "snapshots" / folder.name, own / "blobs")
    for entry in sorted(folder.iterdir()):
        target = entry.resolve()
        if not any(target.is_relative_to(place) for place in allowed):
            raise RecastError.of(
                "SOURCE_NOT_RECOGNIZED",
                f"{entry.name} in the local cache is a link that leads out of what was downloaded.",
                suggestion="Remove the snapshot and download it again, or pass --hf_model_path with a directory.",
                subject=str(entry),
            )
