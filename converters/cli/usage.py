"""The text of --help, and the flags that every binary has."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from absl import flags

_WIDTH = 110
_EXIT_CODES = (
    "exit codes: 0 done, 1 differing (diff), 2 usage, 3 library, 4 out of memory, 5 input/output (retry), 143 stopped"
)


def define_common(values: flags.FlagValues) -> None:
    """Adds the flags that every binary has."""
    flags.DEFINE_string(
        "report_directory",
        None,
        "Directory that gets report.txt and report.json of this run, whether it succeeds or fails.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "termination_message_path",
        None,
        "File that gets the final status and the error ids, which Kubernetes shows of a container that has ended; "
        "empty for none. Default: /dev/termination-log where that file is there.",
        flag_values=values,
    )


COMMON = ("report_directory", "termination_message_path")
"""The names of the flags that every binary has."""


def render(name: str, summary: str, positional: Sequence[str], values: flags.FlagValues) -> str:
    """What --help prints."""
    words = " ".join([*(word.upper() for word in positional), "[--flag=value | flag=value]..."])
    lines = [f"usage: recast {name} {words}", "", *textwrap.wrap(summary, _WIDTH), "", "flags:"]
    for flag in sorted({flag.name for flag in values._flags().values()}):
        lines.extend(_entry(values[flag]))
    lines.extend(["", _EXIT_CODES])
    return "\n".join(lines) + "\n"


def _entry(flag: flags.Flag) -> Iterator[str]:
    choices = getattr(flag.parser, "enum_values", None)
    kind = "|".join(choices) if choices else flag.flag_type()
    default = "" if flag.default is None or flag.default == "" else f", default {flag.default_as_str}"
    yield f"  --{flag.name} ({kind}{default})"
    yield from textwrap.wrap(flag.help or "", _WIDTH, initial_indent="      ", subsequent_indent="      ")
