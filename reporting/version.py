"""The version of everything in this repository, and the revision of its files."""

from __future__ import annotations

import os

VERSION = "0.1.0"

REVISION = "RECAST_REVISION"
"""The environment variable in which an image keeps the revision that it was made from."""


def revision() -> str:
    """The revision, or "unknown" outside of an image."""
    return os.environ.get(REVISION) or "unknown"
