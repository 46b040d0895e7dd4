"""The one place that writes to standard output and standard error."""

from __future__ import annotations

import sys


def show(text: str) -> None:
    """Writes a result to standard output, with one newline at its end."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """Writes a remark about the run to standard error."""
    sys.stderr.write(text if text.endswith("\n") else text + "\n")
    sys.stderr.flush()
