"""Flags of the commands that hold two checkpoints against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from converters.cli import run_flags
from reporting.diagnostics import Diagnostic
from validators import preflight

if TYPE_CHECKING:
    from converters.engine.pairing import Question

_LARGEST_AUTO_BUDGET = 1 << 30


def define(values: flags.FlagValues) -> None:
    """Adds the flags."""
    flags.DEFINE_string(
        "model_name",
        "",
        "Published name or layout name, where the files fit several models that store different values.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "hf_config_path",
        None,
        "config.json, or a directory with it. Default: what either side carries, else the published config of "
        "--model_name.",
        flag_values=values,
    )
    run_flags.define_budget(values, _LARGEST_AUTO_BUDGET)
    run_flags.define_progress(values)


def problems(values: flags.FlagValues, paths: Sequence[str]) -> list[Diagnostic]:
    """What is wrong with the flags or with paths given as arguments."""
    found = run_flags.problems(values)
    for path in paths:
        remote = list(preflight.remote_path(path, "PATH"))
        found += remote
        if not remote and not Path(path).exists():
            found.append(Diagnostic("SOURCE_NOT_FOUND", f"{path} does not exist.", subject=path))
    return found


def question(values: flags.FlagValues) -> Question:
    """What the flags say of the model."""
    from converters.engine.pairing import Question

    config = values.hf_config_path
    return Question(values.model_name, Path(config) if config else None)


def budget(values: flags.FlagValues) -> int:
    """Bytes of buffers."""
    return run_flags.budget(values, _LARGEST_AUTO_BUDGET)
