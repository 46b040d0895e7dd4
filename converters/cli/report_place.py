"""Keeps the report of a run out of the checkpoints that it reads, writes or judges."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from converters.cli import command_line
from reporting.diagnostics import Diagnostic

FLAG = "report_directory"
# Flags and positional arguments that name a checkpoint.
_FLAGS = frozenset(
    (
        "hf_model_path",
        "base_model_path",
        "load_parameters_path",
        "load_full_state_path",
        "base_output_directory",
        "maxtext_model_path",
        "original_checkpoint_path",
        "output_checkpoint_path",
        "target_checkpoint_path",
        "draft_checkpoint_path",
        "manifest",
    )
)
_POSITIONAL = frozenset(("source", "destination", "path", "first", "second"))


def problems(arguments: Sequence[str], values: flags.FlagValues, positional: Sequence[str]) -> list[Diagnostic]:
    """INVALID_FLAG for each checkpoint that the report would be written into.

    There it would be taken for one of the checkpoint's files: it would bar the next run with this destination, and
    change what a manifest lists.

    Args:
        arguments: the command line without the program's name.
        values: the program's flags.
        positional: names of its positional arguments.
    """
    given = list(command_line.read(arguments, values))
    places = [one.value for one in given if one.name == FLAG and one.value]
    if not places:
        return []
    report = Path(os.path.realpath(places[-1]))
    found = []
    for name, path in _checkpoints(given, positional):
        folder = os.path.dirname(path) if os.path.isfile(path) else path
        if report.is_relative_to(os.path.realpath(folder)):
            reason = f"--{FLAG} lies in {name}, and a report is no part of a checkpoint."
            suggestion = (
                "Name a directory beside it. A conversion that succeeds puts its report into its output anyway."
            )
            found.append(Diagnostic("INVALID_FLAG", reason, suggestion=suggestion, subject=f"--{FLAG}"))
    return found


def _checkpoints(given: Sequence[command_line.Given], positional: Sequence[str]) -> Iterator[tuple[str, str]]:
    for one in given:
        if one.name in _FLAGS and one.value:
            yield f"--{one.name}", one.value
    words = [one.value for one in given if not one.name and one.value]
    for name, word in zip(positional, words, strict=False):
        if name.strip("[]") in _POSITIONAL:
            yield name.strip("[]").upper(), word
