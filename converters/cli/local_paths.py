"""Which flags name files and directories: all of them are local."""

from __future__ import annotations

import os

from absl import flags

from converters.cli import command_line
from reporting.diagnostics import Diagnostic

_ENDINGS = ("_path", "_directory", "_location", "_file")
_NAMES = frozenset(("config", "directory", "json", "manifest"))


def remote(values: flags.FlagValues) -> list[Diagnostic]:
    """REMOTE_NOT_SUPPORTED for each flag of this kind whose value has a scheme, which no step may take for a folder."""
    from validators import preflight

    named = sorted(name for name in values if _is_path(name) and command_line.own_name(name, values) == name)
    given = [(name, values[name].value) for name in named]
    return [
        found for name, value in given if isinstance(value, str) for found in preflight.remote_path(value, f"--{name}")
    ]


def is_remote(values: flags.FlagValues, name: str) -> bool:
    """Whether one of these flags has a value with a scheme."""
    return any(found.subject == f"--{name}" for found in remote(values))


def expanded(path: str) -> str:
    """A path with the home directory in the place of a leading `~`, which no shell expands after `=`."""
    return os.path.expanduser(path) if path.startswith("~") else path


def expand(given: str, name: str, values: flags.FlagValues) -> str | None:
    """What was given to a flag of the program, `expanded` where it names a file or a directory.

    None where it begins with the home directory of a user who has none.
    """
    named = _is_path(name) or _is_path(command_line.own_name(name, values))
    path = expanded(given) if named and not values[name].boolean else given
    return None if named and without_home(path) else path


def without_home(path: str) -> bool:
    """Whether a path that was `expanded` still begins with a home directory: this user has none."""
    return path == "~" or path.startswith("~/")


def _is_path(name: str) -> bool:
    return name.endswith(_ENDINGS) or name in _NAMES
