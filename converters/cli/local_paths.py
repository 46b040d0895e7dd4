"""Which flags name files and directories: all of them are local."""

from __future__ import annotations

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


def _is_path(name: str) -> bool:
    return name.endswith(_ENDINGS) or name in _NAMES
