"""The version of everything in this repository, and the revision of its files."""

from __future__ import annotations

from pathlib import Path

VERSION = "0.1.0"

REVISION_FILE = Path(__file__).with_name("revision.txt")
"""The file in which an image keeps the revision that it was made from; a checkout has none."""


def revision() -> str:
    """The revision, or "unknown" outside of an image."""
    try:
        return REVISION_FILE.read_text("utf-8").strip() or "unknown"
    except OSError:
        return "unknown"
