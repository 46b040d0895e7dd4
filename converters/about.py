"""What `recast version` says: of which version and revision this is, and with which mappings it converts."""

from __future__ import annotations

from mappings import content
from reporting import version


def text() -> str:
    """The version, the revision and the digest of the mappings, a line each."""
    return f"recast {version.VERSION}\nrevision {version.revision()}\nmappings {content.digest()}\n"
