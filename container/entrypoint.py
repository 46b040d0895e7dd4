"""One command for all binaries, `recast SUBCOMMAND ...`: the entrypoint of the launcher and of the images."""

from __future__ import annotations

import difflib
import gc
import importlib
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from container import ownership
from reporting import console
from reporting.diagnostics import Diagnostic
from reporting.report import Report

# Module and summary by subcommand; a module is imported only when its subcommand runs.
SUBCOMMANDS: Mapping[str, tuple[str, str]] = {
    "hf-to-maxtext": ("converters.hf_to_maxtext", "Hugging Face safetensors to a MaxText (Orbax) checkpoint"),
    "maxtext-to-hf": ("converters.maxtext_to_hf", "a MaxText (Orbax) checkpoint to Hugging Face safetensors"),
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

# Layouts, moves and plans of a large model are millions of objects that never form a cycle: searches for cycles after
# every 700 new ones, and through the older ones after every 10 searches, would take a third of a plan's time.
_OBJECTS_BETWEEN_SEARCHES, _SEARCHES_BETWEEN_DEEPER_ONES = 20_000, 50
FLAGS_GO_TO = "RECAST_FLAGS_GO_TO"
"""The environment variable by which an image names the subcommand that flags without one are for."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs a subcommand; exits with its code."""
    given = list(sys.argv if argv is None else argv)
    if argv is None:
        given[1:1] = _implied(given[1:])
    if len(given) < 2 or given[1] in ("--help", "-h", "-help", "help"):
        console.show(_usage())
        sys.exit(0)
    if given[1] in ("version", "--version"):
        from converters import about

        console.show(about.text())
        sys.exit(0)
    entry = SUBCOMMANDS.get(given[1])
    if entry is None:
        sys.exit(_unknown(given[1:]))
    if argv is None:
        gc.set_threshold(_OBJECTS_BETWEEN_SEARCHES, _SEARCHES_BETWEEN_DEEPER_ONES)
        ownership.drop(given[1:])
    module = importlib.import_module(entry[0])
    from converters.cli import program

    program.main(module.PROGRAM, given[1:], own_process=argv is None)


def _implied(arguments: Sequence[str]) -> list[str]:
    """The subcommand that goes before the arguments, if they begin with a flag in an image made for flags alone."""
    subcommand = os.environ.get(FLAGS_GO_TO)
    if not subcommand or not arguments or not arguments[0].startswith("-") or arguments[0] in ("--help", "--version"):
        return []
    return [subcommand]


def _unknown(arguments: Sequence[str]) -> int:
    from converters.cli import program

    near = difflib.get_close_matches(arguments[0], list(SUBCOMMANDS), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    report = Report(shlex.join(arguments[:1]))
    report.add_failure(
        "parse_args",
        Diagnostic("UNKNOWN_SUBCOMMAND", f"There is no subcommand {arguments[0]}.{hint}", subject=arguments[0]),
    )
    return program.conclude(report)


def _usage() -> str:
    width = max(len(name) for name in SUBCOMMANDS)
    lines = ["usage: recast SUBCOMMAND [--flag=value | flag=value]...", "", "subcommands:"]
    lines.extend(f"  {name:<{width}}  {summary}" for name, (_, summary) in SUBCOMMANDS.items())
    lines.extend(
        [
            f"  {'version':<{width}}  prints version, revision and a digest of the mappings",
            "",
            "recast SUBCOMMAND --help explains its flags.",
        ]
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
