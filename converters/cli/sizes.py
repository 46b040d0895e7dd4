"""Sizes as people write them: 5GB, 512MiB, 1.5 GB."""

from __future__ import annotations

import re

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


def parse(text: str, flag: str) -> int:
    """Bytes.

    Raises:
        RecastError: INVALID_FLAG if the text is no size of at least one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match.group(2).upper()) if match else None
    size = int(float(match.group(1)) * unit) if match and unit else 0
    if size < 1:
        raise RecastError.of(
            "INVALID_FLAG", f"--{flag}={text} is not a size such as 5GB or 512MiB.", subject=f"--{flag}"
        )
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
