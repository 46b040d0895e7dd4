"""A checkpoint to prepare for a serving platform, and the command line that does."""

from __future__ import annotations

from pathlib import Path

from tests import serving_checkpoints
from tests.serving_checkpoints import TIED, TIED_CONFIG


def write(root: Path) -> Path:
    """Writes a catalogue and a checkpoint whose output head is to be written out; gives the folder of both."""
    serving_checkpoints.catalogue(root / "catalog.textproto")
    serving_checkpoints.write(root / "in", TIED_CONFIG)
    return root


def words(given: Path, out: Path, *arguments: str) -> list[str]:
    """The command line; arguments may name another catalogue."""
    paths = ["--original_checkpoint_path", str(given / "in"), "--output_checkpoint_path", str(out)]
    server = (
        () if any(word.startswith("--server") for word in arguments) else ("--server", f"{given}/catalog.textproto")
    )
    return ["prepare-ckpt", "--model", TIED, *paths, *server, *arguments]
