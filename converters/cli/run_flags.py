"""Flags of every command that moves or compares values: how much memory it may hold, and how it shows its progress."""

from __future__ import annotations

from absl import flags

from converters.cli import sizes
from reporting import progress
from reporting.diagnostics import Diagnostic
from validators import memory

_AUTO = "auto"


def define_budget(values: flags.FlagValues, largest: int, more: str = "") -> None:
    """Adds --memory_budget.

    Args:
        values: get the flag.
        largest: what `auto` is at most, in bytes.
        more: what the help says after that.
    """
    flags.DEFINE_string(
        "memory_budget",
        _AUTO,
        f"Buffers held at a time; auto is {largest >> 30} GiB, or a quarter of the memory that may be had if that is "
        f"less.{more}",
        flag_values=values,
    )


def define_progress(values: flags.FlagValues) -> None:
    """Adds --progress."""
    flags.DEFINE_enum(
        "progress",
        "auto",
        progress.MODES,
        "How the run shows on standard error how far it is: a bar, plain lines every few seconds, or none; auto is a "
        "bar on a terminal and plain lines elsewhere.",
        flag_values=values,
    )


def problems(values: flags.FlagValues) -> list[Diagnostic]:
    """What is wrong with --memory_budget."""
    return [] if values.memory_budget == _AUTO else sizes.problem(values.memory_budget, "memory_budget")


def budget(values: flags.FlagValues, largest: int) -> int:
    """Bytes of buffers; `auto` depends on the memory that may be had now, and is at most `largest`."""
    if values.memory_budget != _AUTO:
        return sizes.parse(values.memory_budget, "memory_budget")
    bound = memory.available()
    return min(largest, bound.bytes // 4) if bound else largest
