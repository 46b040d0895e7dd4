"""Who owns what an image writes: its caller, although a container starts as root unless it is told otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from reporting import console

OUTPUT_FLAGS = (
    "base_output_directory",
    "directory",
    "output_checkpoint_path",
    "output_directory",
    "cache_location",
    "report_directory",
)
"""Flags that name where a subcommand writes, the most telling first."""


def outputs(arguments: Sequence[str]) -> list[str]:
    """The directories that a command line writes to, as far as its words show them.

    Args:
        arguments: the subcommand, then flags in any of the forms `--flag=value`, `--flag value` and `flag=value`, or
            positional ones, of which the last may be a destination.
    """
    found: dict[str, str] = {}
    positional = []
    words = iter(arguments[1:])
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if name in OUTPUT_FLAGS:
            found[name] = value if equals else next(words, "")
        elif not word.startswith("-") and not equals:
            positional.append(word)
    named = [found[name] for name in OUTPUT_FLAGS if found.get(name)]
    return named + (positional[-1:] if arguments[:1] == ["convert"] else [])


def owner(directories: Iterable[str]) -> tuple[int, int] | None:
    """The user and group of the nearest existing parent of the first local directory, or None if there is none."""
    for text in directories:
        if "://" in text:
            continue
        path = Path(os.path.abspath(text))
        while not path.exists() and path != path.parent:
            path = path.parent
        status = path.stat()
        return status.st_uid, status.st_gid
    return None


def drop(arguments: Sequence[str]) -> None:
    """Becomes the owner of the place that a command line writes to, if this is root and the owner is not.

    For images alone: elsewhere root means root. Where the container has no right to change users it stays root, and
    says so.
    """
    if os.geteuid() != 0:
        return
    found = owner(outputs(arguments))
    if found is None or found[0] == 0:
        return
    try:
        os.setgroups([])
        os.setgid(found[1])
        os.setuid(found[0])
    except PermissionError:
        console.tell(
            f"recast: this container may not become user {found[0]}, who owns the output's place; it stays root"
        )
