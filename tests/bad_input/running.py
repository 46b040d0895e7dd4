"""Runs a subcommand as a user does, in this process or in another one, and reads its FINAL REPORT."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from container import entrypoint

_STEP = re.compile(r"\[(\d+)\] STEP: (\S+) - (Succeeded|Failed)")
_PROGRESS = re.compile(
    r"[a-z]+: [\d.]+ of [\d.]+ [kMGT]B \(\d+ %\), [\d.]+ [kMGT]B/s, "
    r"(?:[\d hmins]+|unknown time) left, [\d.]+ [kMGT]B held"
)
_STATUS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dUTC - recast_lib - (INFO|ERROR) - (.+)")
_FIELDS = {
    "Id: RecastErrorId.": "id",
    "Responsible: RecastErrorOwner.": "owner",
    "Reason: ": "reason",
    "Subject: ": "subject",
    "Suggestion: ": "suggestion",
}
_LIBC = ctypes.CDLL(None)
_PR_CAPBSET_DROP = 24
_CAPABILITIES = 64
_OUTCOMES = {
    "INFO": "The process is completed without any errors.",
    "ERROR": "One or more failures have occurred. Do not deploy",
}


@dataclasses.dataclass
class Entry:
    """One diagnostic of a FINAL REPORT, as it is printed."""

    step: str
    warning: bool
    id: str = ""
    owner: str = ""
    reason: str = ""
    subject: str = ""
    suggestion: str = ""
    stack: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Run:
    """How a run ended.

    Attributes:
        arguments: the subcommand and what was given to it.
        code: its exit code.
        output: its standard output, `errors` its standard error.
    """

    arguments: tuple[str, ...]
    code: int
    output: str
    errors: str

    @property
    def entries(self) -> list[Entry]:
        """All diagnostics of the report, in the order printed."""
        return list(_entries(self.output))

    @property
    def failures(self) -> list[Entry]:
        return [entry for entry in self.entries if not entry.warning]

    @property
    def warnings(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.warning]

    @property
    def ids(self) -> list[str]:
        """Ids of the failures, sorted."""
        return sorted(entry.id for entry in self.failures)

    @property
    def steps(self) -> dict[str, str]:
        """How each step ended."""
        return {match[2]: match[3] for line in self.output.split("\n") if (match := _STEP.fullmatch(line))}

    @property
    def summary(self) -> str:
        """What a failed assertion shows of the run."""
        listed = (f"{entry.id}: {entry.reason} [{entry.subject}] {entry.suggestion}" for entry in self.entries)
        return "\n".join([f"exit code {self.code}, {self.steps}", *listed, self.errors])

    def check_form(self) -> None:
        """The report is there once, its status line is last, and no stack trace stands outside of its block."""
        lines = self.output.rstrip("\n").split("\n")
        assert sum(line.startswith("FINAL REPORT FOR: `") for line in lines) == 1, self.output
        status = _STATUS.fullmatch(lines[-1])
        assert status, self.summary
        assert status[1] == ("INFO" if self.code == 0 else "ERROR"), self.output
        assert status[2] == _OUTCOMES[status[1]], self.output
        failed = [name for name, outcome in self.steps.items() if outcome == "Failed"]
        if self.arguments[:1] == ("prepare-ckpt",):
            # All of its validation steps run, whichever of them fails.
            assert bool(failed) == (self.code != 0), self.output
        else:
            assert failed == ([] if self.code == 0 else [list(self.steps)[-1]]), self.output
        numbers = [int(match[1]) for line in lines if (match := _STEP.fullmatch(line))]
        assert numbers == list(range(1, len(numbers) + 1)), self.output
        outside = [line for line in lines if not line.startswith("    ")]
        traced = ("Traceback (most recent call last)", 'File "')
        assert not any(line.lstrip().startswith(traced) for line in outside), self.output
        # A run of more than five seconds, as any may be on a busy machine, also shows how far it is.
        assert [line for line in self.errors.splitlines() if not _PROGRESS.fullmatch(line)] == [], self.errors


def recast(*arguments: object) -> Run:
    """Runs a subcommand in this process, through the entrypoint."""
    words = tuple(str(argument) for argument in arguments)
    output, errors = io.StringIO(), io.StringIO()
    code: object = None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            entrypoint.main(["recast", *words])
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Run(words, code, output.getvalue(), errors.getvalue())


Convert = Callable[..., Run]
"""A conversion from a source that is given already: takes the destination and flags."""


def hf_to_maxtext(source: Path, destination: Path, *arguments: str) -> Run:
    return recast("hf-to-maxtext", f"--hf_model_path={source}", f"--base_output_directory={destination}", *arguments)


def maxtext_to_hf(source: Path, destination: Path, *arguments: str) -> Run:
    return recast(
        "maxtext-to-hf", f"--load_parameters_path={source}", f"--base_output_directory={destination}", *arguments
    )


def process(
    *arguments: object, powerless: bool = False, script: str = "", before: Sequence[str] = (), limit: int = 60
) -> Run:
    """Runs a subcommand in a process of its own.

    Args:
        arguments: the subcommand and what is given to it.
        powerless: whether file modes bind the process even if root runs the tests.
        script: Python code to run in place of the entrypoint, with the arguments in `before` in front of the others.
        before: see script.
        limit: seconds after which it hangs.
    """
    words = tuple(str(argument) for argument in arguments)
    program = ["-c", script] if script else ["-m", "container.entrypoint"]
    ended = subprocess.run(
        [sys.executable, *program, *before, *words],
        cwd=_root(),
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=limit,
        preexec_fn=_drop_capabilities if powerless and os.geteuid() == 0 else None,
    )
    return Run(words, ended.returncode, ended.stdout, ended.stderr)


def _drop_capabilities() -> None:
    """What the next program that this process executes cannot get back, though root owns it."""
    for capability in range(_CAPABILITIES):
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


def environment() -> Mapping[str, str]:
    """What a Python process needs to import the checkout and the generated protos."""
    import recast_proto

    generated = [str(Path(place).parent) for place in recast_proto.__path__]
    path = [str(_root()), *generated, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}


def _root() -> Path:
    return Path(entrypoint.__file__).resolve().parent.parent


def _entries(output: str) -> Iterator[Entry]:
    step, warning, entry = "", False, None
    for line in output.split("\n"):
        match = _STEP.fullmatch(line)
        if match:
            step, warning = match[2], False
        elif line in ("> Errors", "> Errors (None)", "> Warnings", "> Details"):
            warning = line == "> Warnings"
            if entry is not None:
                yield entry
            entry = None
        elif line.startswith("  Id: RecastErrorId."):
            if entry is not None:
                yield entry
            entry = Entry(step, warning)
        if entry is None:
            continue
        if line.startswith("    "):
            entry.stack.append(line.strip())
        for label, field in _FIELDS.items():
            if line.startswith(f"  {label}"):
                setattr(entry, field, line.removeprefix(f"  {label}"))
    if entry is not None:
        yield entry
