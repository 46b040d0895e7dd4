"""Runs binaries in this process as a user would: flags in, report and exit code out."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from container.entrypoint import SUBCOMMANDS
from converters.cli import program

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: its exit code.
        text: its standard output.
    """

    code: int
    text: str


def recast(subcommand: str, *arguments: str, **flags: object) -> Outcome:
    """Runs a subcommand; keyword arguments become `--name=value`."""
    module = importlib.import_module(SUBCOMMANDS[subcommand][0])
    argv = [subcommand, *arguments, *(f"--{name}={value}" for name, value in flags.items())]
    output = io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(output):
        try:
            program.main(module.PROGRAM, argv)
        except SystemExit as ended:
            code = ended.code
    return Outcome(int(str(code or 0)), output.getvalue())


def converted(subcommand: str, *arguments: str, **flags: object) -> Outcome:
    """Runs a subcommand that must succeed."""
    outcome = recast(subcommand, *arguments, **flags)
    assert outcome.code == 0, outcome.text
    return outcome


def restored(directory: Path) -> Arrays:
    """The leaves under `params` that Orbax's PyTreeCheckpointer restores without arguments, by dotted path."""
    import orbax.checkpoint as ocp

    return flat(ocp.PyTreeCheckpointer().restore(directory / "0" / "items"))


def flat(tree: Mapping[str, Any], prefix: str = "") -> Arrays:
    """Nested dictionaries as one, keys joined by dots; only what lies under `params`."""
    out: Arrays = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out.update(flat(value, f"{name}."))
        elif name.startswith("params."):
            out[name] = np.asarray(value)
    return out
