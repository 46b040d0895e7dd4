"""What lies at a destination: nothing, an interrupted run, a checkpoint that may be replaced, or something else."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
from pathlib import Path

from validators import carried_files

STAGING = ".recast-staging"
DONE = "DONE"
OUTPUT = "output"
REPLACED = "replaced"
PUBLISHING = "publishing"
# What marks a directory as a checkpoint of ours, of Hugging Face or of MaxText.
_MARKS = ("checkpoint-manifest.json", "config.json")
_STEP_MARKS = ("_CHECKPOINT_METADATA", "items/_METADATA")
# What such a directory may hold at its top, beside what a manifest of ours lists.
_OURS = (DONE, "checkpoint-manifest.json", "report.txt", "report.json", "recast", STAGING)
_PATTERNS = ("*.safetensors", "*.safetensors.index.json", *carried_files.PATTERNS)
_LARGEST_LIST = 1 << 20


def is_vacant(destination: Path) -> bool:
    """Whether nothing is there, or nothing but what an interrupted run left in its staging folder."""
    if not destination.exists():
        return True
    if not destination.is_dir() or (destination / DONE).exists():
        return False
    staging = destination / STAGING
    if _was_replacing(staging):
        return False
    left = {name for name in being_published(staging) if not os.path.lexists(staging / OUTPUT / name)}
    return all(entry.name in left or (entry.name == STAGING and is_folder(entry)) for entry in destination.iterdir())


def is_replaceable(destination: Path) -> bool:
    """Whether a directory is a checkpoint and holds nothing else, so that `--overwrite` may replace it."""
    if not destination.is_dir():
        return False
    entries = list(destination.iterdir())
    steps = [entry for entry in entries if _is_step(entry)]
    if not all(entry in steps or _is_ours(entry.name) for entry in entries):
        return False
    marked = any((destination / mark).exists() for mark in _MARKS) or any(destination.glob("*.safetensors"))
    return marked or bool(steps) or _was_replacing(destination / STAGING)


def staged_bytes(destination: Path) -> int:
    """Bytes on the disk that an interrupted run's output already takes."""
    total = 0
    for folder, _, names in os.walk(destination / STAGING):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def being_published(staging: Path) -> list[str]:
    """Top names that a run was moving into place when it was killed; none where the list cannot be trusted."""
    try:
        with open(os.open(staging / PUBLISHING, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            names = json.loads(file.read(_LARGEST_LIST))
    except (OSError, ValueError, RecursionError):
        return []
    usable = isinstance(names, list) and all(isinstance(name, str) and "/" not in name for name in names)
    return [name for name in names if name not in ("", ".", "..", STAGING)] if usable else []


def is_folder(path: Path) -> bool:
    """Whether a path is a directory itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def _was_replacing(staging: Path) -> bool:
    """Whether a run was killed while a checkpoint that it replaced lay in its staging folder.

    Without the list of what was being published, such a folder is litter of a publication that was complete.
    """
    replaced = staging / REPLACED
    return (staging / PUBLISHING).is_file() and is_folder(staging) and is_folder(replaced) and any(replaced.iterdir())


def _is_ours(name: str) -> bool:
    patterns = (pattern.split("/")[0] for pattern in _PATTERNS)
    return name in _OURS or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_step(path: Path) -> bool:
    return path.name.isdigit() and any((path / mark).exists() for mark in _STEP_MARKS)
