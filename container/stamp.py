"""Fills in what only the moment of a release knows: stamp.py STATUS OUTPUT LINE...

Each line may hold {NAME}; STATUS has lines `STABLE_NAME value`, as Bazel writes them. Without a release STATUS is "-",
and what is not known is "unknown", or of times the beginning of 1970, so that builds of the same files have the same
bytes. The last line has no end: the rules of images take a file with a time as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

UNKNOWN = "unknown"
# What has a form that readers rely on, known or not.
_FIXED = {"created": "1970-01-01T00:00:00Z"}
_PREFIX = "STABLE_"


def values(status: str) -> dict[str, str]:
    """What a status file says, by name in small letters."""
    pairs = [line.partition(" ")[::2] for line in status.splitlines()]
    return {name.removeprefix(_PREFIX).lower(): value for name, value in pairs if name.startswith(_PREFIX) and value}


def filled(line: str, known: Mapping[str, str]) -> str:
    """A line with its names replaced."""
    return re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], _FIXED.get(match[1], UNKNOWN)), line)


def main(arguments: Sequence[str]) -> None:
    """Writes the lines."""
    status, output, *lines = arguments
    known = {} if status == "-" else values(Path(status).read_text("utf-8"))
    Path(output).write_text("\n".join(filled(line, known) for line in lines), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
