"""One command for all binaries, `recast SUBCOMMAND ...`, of the launcher and of the images."""

from __future__ import annotations

import difflib
import gc
import importlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from reporting import console
from reporting.diagnostics import Diagnostic
from reporting.report import Report

# Module and summary by subcommand; a module is imported only when its subcommand runs.
SUBCOMMANDS: Mapping[str, tuple[str, str]] = {
    "hf-to-maxtext": ("converters.hf_to_maxtext", "a Hugging Face checkpoint to a MaxText (Orbax) one"),
    "maxtext-to-hf": ("converters.maxtext_to_hf", "a MaxText (Orbax) checkpoint to a Hugging Face one (safetensors)"),
    "maxtext-to-maxtext": ("converters.maxtext_to_maxtext", "restacks a MaxText checkpoint, with its training state"),
    "convert": ("converters.convert_checkpoint", "a checkpoint of any format to the format that --to names"),
    "validate-speculative-decoding": (
        "converters.validate_speculative_decoding",
        "whether a draft checkpoint fits its target",
    ),
    "verify": ("converters.verify_checkpoint", "proves a conversion from both sides, or an output from its manifest"),
    "diff": ("converters.diff_checkpoints", "what differs between two checkpoints of one model"),
    "inspect": ("converters.inspect_checkpoint", "what a checkpoint holds, from its headers"),
    "plan": ("converters.plan_conversion", "what a conversion would do, from headers or a published model's name"),
    "explain": ("converters.explain", "where each tensor of a family lies in two formats"),
    "families": ("converters.families", "which conversions of which published models are covered, and their names"),
    "prepare-ckpt": ("converters.prepare_ckpt", "validates a checkpoint for a serving platform and writes its form"),
    "download-serving-cache": ("converters.download_serving_cache", "a serving platform's catalogue into a cache"),
    "serve-catalog": ("converters.serve_catalog", "a small server for a catalogue of one's own"),
    "models": ("converters.models", "the models of a serving platform, and of which it takes checkpoints"),
    "new-family": ("converters.new_family", "writes the files of a model family after the pattern of another one"),
    "check-family": ("converters.check_family", "goes through the checklist of a model family, a line for each step"),
    "quickstart": ("converters.quickstart", "makes a small model, converts it there and back, compares every byte"),
    "benchmark": ("converters.benchmark", "times conversions of a synthetic model beside a copy of its files"),
}

LAUNCHER = Path(__file__).resolve().parents[1] / "recast"
"""What only a checkout has; it knows one subcommand more, `test`."""

# Layouts, moves and plans of a large model are millions of objects that never form a cycle: searches for cycles after
# every 700 new ones, and through the older ones after every 10 searches, would take a third of a plan's time.
_OBJECTS_BETWEEN_SEARCHES, _SEARCHES_BETWEEN_DEEPER_ONES = 20_000, 50


def main(argv: Sequence[str] | None = None, *, own_process: bool | None = None) -> NoReturn:
    """Runs a subcommand; exits with its code.

    Args:
        argv: what was given, the program's name first; by default sys.argv.
        own_process: whether this process is there for this run alone; by default, if `argv` is sys.argv.
    """
    given = list(sys.argv if argv is None else argv)
    alone = argv is None if own_process is None else own_process
    if given[1:2] == ["help"] and len(given) > 2:
        given[1:] = [given[2], "--help"]
    if len(given) < 2 or given[1] in ("--help", "-h", "-help", "help"):
        console.show(_usage())
        sys.exit(0)
    if given[1] in ("version", "--version"):
        from converters import about

        console.show(about.text())
        sys.exit(0)
    entry = SUBCOMMANDS.get(given[1])
    if entry is None:
        near = difflib.get_close_matches(given[1], list(SUBCOMMANDS), n=1)
        sys.exit(unknown(given[1], f" Did you mean {near[0]}?" if near else ""))
    if alone:
        gc.set_threshold(_OBJECTS_BETWEEN_SEARCHES, _SEARCHES_BETWEEN_DEEPER_ONES)
    module = importlib.import_module(entry[0])
    from converters.cli import program

    program.main(module.PROGRAM, given[1:], own_process=alone)


def unknown(subcommand: str, more: str) -> int:
    """Reports that there is no such subcommand.

    Args:
        subcommand: its name.
        more: what else there is to say, after a blank.

    Returns:
        The exit code.
    """
    from absl import flags

    from converters.cli import command_line, program

    (subcommand,) = command_line.masked([subcommand], flags.FlagValues())
    report = Report(shlex.quote(subcommand))
    reason = f"There is no subcommand {subcommand}.{more}"
    report.add_failure("parse_args", Diagnostic("UNKNOWN_SUBCOMMAND", reason, subject=subcommand))
    return program.conclude(report)


def _usage() -> str:
    width = max(len(name) for name in SUBCOMMANDS)
    lines = ["usage: recast SUBCOMMAND [--flag=value | flag=value]...", "", "subcommands:"]
    lines.extend(f"  {name:<{width}}  {summary}" for name, (_, summary) in SUBCOMMANDS.items())
    lines.extend(
        [
            f"  {'version':<{width}}  prints version, revision and a digest of the mappings",
            *([f"  {'test':<{width}}  runs the checks and tests of the checkout"] if LAUNCHER.is_file() else []),
            "",
            "recast SUBCOMMAND --help, or recast help SUBCOMMAND, explains its flags.",
        ]
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
