"""What `recast version` says: of which version and revision this is, and with which mappings it converts."""

from __future__ import annotations

import os

from mappings import content
from reporting import version

REVISION = "RECAST_REVISION"
"""The environment variable in which an image keeps the revision that it was made from."""


def text() -> str:
    """The version, the revision and the digest of the mappings, a line each."""
    revision = os.environ.get(REVISION) or "unknown"
    return f"recast {version.VERSION}\nrevision {revision}\nmappings {content.digest()}\n"
