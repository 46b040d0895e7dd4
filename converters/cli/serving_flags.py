"""The flags of all commands that read the catalogue of a serving platform."""

from __future__ import annotations

from pathlib import Path

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Adds the flags that say whose catalogue is read, and where it is kept."""
    flags.DEFINE_string(
        "server",
        "embedded",
        "Whose models and rules are taken: embedded (those of this program), a local path, or the base URL of a "
        "platform whose catalogue `recast download-serving-cache` has kept.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "cache_location",
        None,
        "Directory that download-serving-cache filled; a relative one is looked for under the working directory, then "
        "beside the checkpoints that are named. Without it the embedded catalogue or the local path is read itself.",
        flag_values=values,
    )


def cache_location(values: flags.FlagValues) -> Path | None:
    """The directory of the cache; None where none was given."""
    return Path(values.cache_location) if values.cache_location else None
