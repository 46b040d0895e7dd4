"""What all binaries share: flags, `key=value`, --help, the FINAL REPORT and the exit code."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from absl import app, flags

from converters.cli import arguments, command_line, error_prefix, local_paths, output_places, usage
from reporting import console, json_report, termination, text
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report, StepFailed


@dataclasses.dataclass(frozen=True)
class Program:
    """One binary.

    Attributes:
        name: its subcommand.
        summary: what it does, in a sentence or two.
        define: adds its flags to a FlagValues.
        prepare: makes of flags and positional arguments what `execute` takes; raises RecastError for faults in them.
        execute: does the work; adds steps to the report; returns text to print before the report, or "".
        positional: names of its positional arguments.
        reports: whether a run that succeeds ends with a FINAL REPORT, or what says so of what `prepare` made; a failing
            one always does.
        supervised: whether `execute` runs in a child process, so that a kill is reported; for what takes long.
        instead: what takes paths as arguments, where this takes flags only.
        passed_over: says why an argument that is no flag is accepted without use; "" where it is not.
        remarks: says which flags were accepted without use, and why.
    """

    name: str
    summary: str
    define: Callable[[flags.FlagValues], None]
    prepare: Callable[[flags.FlagValues, Sequence[str]], Any]
    execute: Callable[[Any, Report], str]
    positional: tuple[str, ...] = ()
    reports: bool | Callable[[Any], bool] = True
    supervised: bool = False
    instead: str = ""
    passed_over: Callable[[str], str] = lambda _: ""
    remarks: Callable[[flags.FlagValues], list[str]] = lambda _: []


class Terminated(KeyboardInterrupt):
    """SIGTERM: raised in the main thread, which stops its workers and reports."""


def main(program: Program, argv: Sequence[str] | None = None, *, own_process: bool | None = None) -> NoReturn:
    """Runs a binary: parses, reports, exits.

    Args:
        program: the binary.
        argv: what was given; by default sys.argv.
        own_process: whether this process is there for this run alone and has one thread, so that it may be supervised;
            by default, if `argv` is sys.argv.
    """
    values = flags.FlagValues()
    program.define(values)
    usage.define_common(values)
    given = list(sys.argv if argv is None else argv)
    report = Report(shlex.join([program.name, *command_line.masked(given[1:], values)]))
    report.conceal = command_line.conceal(given[1:], values, parsed=False)
    prepared: list[Any] = []

    def parse(arguments_given: Sequence[str]) -> list[str]:
        flags.FLAGS(list(arguments_given[:1]))
        if arguments.asks_for_help(arguments_given[1:]):
            console.show(usage.render(program.name, program.summary, program.positional, values))
            sys.exit(0)
        misplaced = output_places.problems(given[1:], values, program.positional)
        try:
            with report.step("parse_args") as step:
                positional = _positional(program, values, arguments_given, misplaced)
                step.lines.extend(_without_use(program, values, given[1:]))
                prepared.append(_prepared(program, values, positional, misplaced))
        except StepFailed:
            _name(report, values)
            _leave_alone(misplaced, values)
            sys.exit(conclude(report, values))
        _name(report, values)
        report.conceal = command_line.conceal(given[1:], values, parsed=True)
        return list(arguments_given[:1])

    def run(_: Sequence[str]) -> NoReturn:
        _note_mappings(report)
        alone = argv is None if own_process is None else own_process
        sys.exit((_supervised if program.supervised and alone else execute)(program, values, prepared[0], report))

    app.run(run, argv=given, flags_parser=parse)


def execute(program: Program, values: flags.FlagValues, prepared: Any, report: Report) -> int:
    """Does a program's work after its flags were read; prints; returns the exit code."""
    previous = signal.signal(signal.SIGTERM, _terminate)
    before = signal.signal(signal.SIGINT, _terminate)
    output = ""
    try:
        try:
            output = program.execute(prepared, report)
        finally:
            signal.signal(signal.SIGTERM, previous)
            signal.signal(signal.SIGINT, before)
    except StepFailed:
        output = ""
    except (Exception, KeyboardInterrupt) as error:
        _record(report, program.name, error)
    if output:
        console.show(output)
    reports = program.reports(prepared) if callable(program.reports) else program.reports
    return conclude(report, values, quiet=not reports)


def _supervised(program: Program, values: flags.FlagValues, prepared: Any, report: Report) -> int:
    """Does what `execute` does, in a child process."""
    from converters.cli import supervise

    def work(ready: Callable[[], None]) -> int:
        def begin(given: Any, filled: Report) -> str:
            ready()
            return program.execute(given, filled)

        return execute(dataclasses.replace(program, execute=begin), values, prepared, report)

    return supervise.run(work, report, program.name, lambda: conclude(report, values))


def conclude(report: Report, values: flags.FlagValues | None = None, *, quiet: bool = False) -> int:
    """Prints the FINAL REPORT, keeps it where asked, returns the exit code."""
    if not report.finished:
        report.finish()
    if report.failed or not quiet:
        console.show(text.render(report))
    termination.leave(report, _given(values, "termination_message_path"))
    directory = _given(values, "report_directory")
    if directory:
        _note_mappings(report)
        _keep(report, Path(directory))
    return report.exit_code


def write_reports(report: Report, directory: Path) -> tuple[Path, ...]:
    """Writes report.txt and report.json into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    pairs = ((directory / "report.txt", text.render(report)), (directory / "report.json", json_report.render(report)))
    for path, content in pairs:
        path.write_text(content, "utf-8")
    return tuple(path for path, _ in pairs)


def _positional(
    program: Program, values: flags.FlagValues, given: Sequence[str], misplaced: Sequence[Diagnostic]
) -> list[str]:
    """Reads the command line; raises RecastError for what is wrong with it, and then for places not to write to."""
    try:
        return arguments.parse(
            values, given, program.positional, instead=program.instead, passed_over=program.passed_over
        )
    except RecastError as error:
        raise RecastError([*misplaced, *error.diagnostics]) from error


def _prepared(
    program: Program, values: flags.FlagValues, positional: Sequence[str], misplaced: Sequence[Diagnostic]
) -> Any:
    """What `execute` takes; raises RecastError for what the program finds wrong, and for paths that cannot be used."""
    remote = local_paths.remote(values)
    known = {found.subject for found in misplaced}
    try:
        prepared = program.prepare(values, positional)
    except RecastError as error:
        own = [found for found in error.diagnostics if found.subject not in known]
        raise RecastError([*misplaced, *own, *remote]) from error
    raise_all([*misplaced, *remote])
    return prepared


def _without_use(program: Program, values: flags.FlagValues, given: Sequence[str]) -> Iterator[str]:
    """What was accepted and changes nothing, a line each."""
    for one in command_line.read(given, values):
        why = "" if one.name else program.passed_over(one.value or "")
        if why:
            yield why
    yield from program.remarks(values)


def _leave_alone(misplaced: Sequence[Diagnostic], values: flags.FlagValues) -> None:
    """Forgets the places to which even the report of what is wrong with the flags must not be written."""
    wrong = {found.subject for found in misplaced}
    for name in (output_places.REPORT, output_places.MESSAGE):
        if f"--{name}" in wrong or local_paths.is_remote(values, name):
            values[name].unparse()


def _name(report: Report, values: flags.FlagValues) -> None:
    """Gives the report the prefix of names that the flags ask for."""
    if error_prefix.FLAG in values:
        report.prefix = str(values[error_prefix.FLAG].value)


def _given(values: flags.FlagValues | None, name: str) -> str | None:
    """The value of a flag that every binary has, where the command line could be read as far as that."""
    return values[name].value if values is not None and name in values else None


def _note_mappings(report: Report) -> None:
    from mappings import content

    report.mappings = report.mappings or content.digest()


def _keep(report: Report, directory: Path) -> None:
    try:
        write_reports(report, directory)
    except OSError as error:
        console.tell(f"The report could not be written to {directory}: {error.strerror}.")


def _record(report: Report, name: str, error: BaseException) -> None:
    try:
        with report.step(name):
            raise error
    except StepFailed:
        return


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Terminated("SIGTERM")
