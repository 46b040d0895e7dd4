"""Runs every check of the repository, the linters first and pytest last: ./recast test [--all] [PYTEST ARGUMENT...].

    --all    also run the tests marked `campaign`, which take long

Each check prints one line, after its output if it fails. All of them run, so that all failures are seen.
"""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# The launcher makes no layers for these, so that no check could run.
_HELP = frozenset(("--help", "-help", "-h", "--helpfull", "--helpshort", "-?"))
CLOSING_LINE = re.compile(r"^(=+ )?(\d+ \w+|no tests ran).* in [0-9.]+s\b")


@dataclasses.dataclass(frozen=True)
class Check:
    """One program to run.

    Attributes:
        name: how it is called in the summary.
        arguments: of the Python interpreter.
        cwd: where it runs.
    """

    name: str
    arguments: tuple[str, ...]
    cwd: Path


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a check printed and how it ended."""

    check: Check
    code: int
    output: str
    seconds: float


def checks(root: Path, cwd: Path, arguments: Sequence[str]) -> tuple[Check, ...]:
    """All checks.

    Args:
        root: the checkout.
        cwd: where the user is; files among the arguments are relative to it.
        arguments: what follows `test` on the command line.
    """
    pytest = ["-m", "pytest", "--quiet", "--numprocesses=2"]
    pytest += [f"--config-file={root / 'pyproject.toml'}", f"--rootdir={root}"]
    pytest += [f"--transformers4={root / '.recast' / 'transformers4'}"]
    if "--all" in arguments:
        pytest += ["-m", ""]
    pytest += [argument for argument in arguments if argument != "--all"]
    names_files = any((cwd / argument.partition("::")[0]).exists() for argument in arguments)
    return (
        Check("ruff check", ("-m", "ruff", "check", "--quiet", "--output-format=concise"), root),
        Check("ruff format", ("-m", "ruff", "format", "--check", "--output-format=concise"), root),
        Check("mypy", ("-m", "mypy", "--no-error-summary"), root),
        # Without files pytest takes its testpaths, but only in its root.
        Check("pytest", tuple(pytest), cwd if names_files else root),
    )


def run(check: Check) -> Outcome:
    """Runs a check and captures what it prints."""
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, *check.arguments],
        cwd=check.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return Outcome(check, result.returncode, result.stdout, time.monotonic() - start)


def summary(outcome: Outcome) -> str:
    """What to print about a check: its output if it failed, then one line, and pytest's closing line."""
    lines = []
    if outcome.code != 0:
        lines.append(outcome.output.rstrip())
    state = "ok" if outcome.code == 0 else f"FAILED, exit code {outcome.code}"
    lines.append(f"{outcome.check.name}: {state} ({outcome.seconds:.1f} s)")
    if outcome.check.name == "pytest":
        closing = [line for line in outcome.output.splitlines() if CLOSING_LINE.match(line)]
        lines += closing[-1:]
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Runs all checks.

    Returns:
        0 if all passed or --help was given, else 1.
    """
    if _HELP & set(arguments):
        print(__doc__)
        return 0
    root = Path(__file__).resolve().parent.parent
    failed = False
    for check in checks(root, Path.cwd(), arguments):
        outcome = run(check)
        failed |= outcome.code != 0
        print(summary(outcome), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
