"""Sizes as people write them: 5GB, 512MiB, 1.5 GB."""

from __future__ import annotations

import re
from fractions import Fraction

from reporting.diagnostics import Diagnostic, RecastError

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}

_SIZE = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)\s*")
_LARGEST = (1 << 63) - 1
_LONGEST_SHOWN = 100


def parse(text: str, flag: str) -> int:
    """Bytes.

    Raises:
        RecastError: INVALID_FLAG if the text is no size from one byte to what a file can have.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match.group(2).upper()) if match else None
    size = int(Fraction(match.group(1)) * unit) if match and unit else 0
    if not 1 <= size <= _LARGEST:
        shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
        reason = f"--{flag}={shown} is not a size such as 5GB or 512MiB."
        raise RecastError.of("INVALID_FLAG", reason, subject=f"--{flag}")
    return size


def problem(text: str, flag: str) -> list[Diagnostic]:
    """What `parse` would raise, as a list."""
    try:
        parse(text, flag)
    except RecastError as error:
        return list(error.diagnostics)
    return []


def show(size: float) -> str:
    """A size in the largest decimal unit that keeps it at least 1."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1000
    return f"{size:.2f} TB"
