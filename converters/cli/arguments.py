"""The command line: `key=value` as MaxText spells it, all faults at once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence

from absl import flags

from converters.cli import command_line, local_paths
from converters.cli.command_line import Given
from reporting.diagnostics import Diagnostic, raise_all

_HELP = frozenset(("--help", "-help", "-h", "--helpfull", "--helpshort", "-?"))
_LONGEST_SHOWN = 100
_TRUTHS = frozenset(("true", "false"))
_SHORT_TRUTHS = frozenset(("t", "f", "1", "0"))


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether --help is among the arguments (before a lone `--`)."""
    head = arguments[: list(arguments).index("--")] if "--" in arguments else arguments
    return any(argument in _HELP for argument in head)


def parse(
    values: flags.FlagValues,
    argv: Sequence[str],
    positional: Sequence[str] = (),
    *,
    instead: str = "",
    passed_over: Callable[[str], str] = lambda _: "",
) -> list[str]:
    """Parses `argv` (with the program's name first) into `values`.

    Args:
        values: the program's flags.
        argv: what was given; `key=value` is read as `--key=value`.
        positional: names of the positional arguments; those in brackets may be left out.
        instead: what takes positional arguments where this program takes none.
        passed_over: says of words that are no positional arguments, but do no harm either, why.

    Returns:
        The positional arguments, with the home directory in the place of a leading `~`.

    Raises:
        RecastError: INVALID_FLAG for every argument that cannot be read.
    """
    values(list(argv[:1]))
    given = [one for one in command_line.read(argv[1:], values) if one.name or not passed_over(one.value or "")]
    found = _given_twice(given, values)
    found.extend(fault for one in given if one.name for fault in _taken(one, values))
    apart, words = _words(given, values, flags_only=not positional)
    found.extend(apart)
    if not words[len(positional) :] and any(not one.known and one.alone for one in given):
        # What seems to be missing may have been taken for the value of a flag that there is not.
        raise_all(found)
    found.extend(_miscounted(words, positional, instead))
    paths = [local_paths.expanded(word) for word in words]
    reason = "begins with ~, and this user has no home directory."
    found += [
        Diagnostic("INVALID_FLAG", f"{path!r} {reason}", subject=path)
        for path in paths
        if local_paths.without_home(path)
    ]
    raise_all(found)
    return paths


def _taken(given: Given, values: flags.FlagValues) -> list[Diagnostic]:
    """Gives a flag its value; returns what is wrong with it."""
    if not given.known:
        return [_unknown(given.name, values)]
    flag = values[given.name]
    if given.value is None:
        return [_fault(given.name, f"--{given.name} needs a value.")]
    value = local_paths.expand(given.value, given.name, values)
    if value is None:
        return [_fault(given.name, f"--{given.name} begins with ~, and this user has no home directory.")]
    try:
        values(["", f"--{given.name}={value}"])
    except flags.Error:
        return [_fault(given.name, _refused(given, flag))]
    if isinstance(flag.value, float) and not math.isfinite(flag.value):
        return [_fault(given.name, _refused(given, flag))]
    return []


def _refused(given: Given, flag: flags.Flag) -> str:
    """Why a flag does not take its value."""
    value = given.value or ""
    shown = "***" if command_line.is_secret(given.name) else value
    shown = f"--{given.name}={shown if len(shown) <= _LONGEST_SHOWN else f'{shown[:_LONGEST_SHOWN]}...'}"
    parser = flag.parser
    choices = getattr(parser, "enum_values", None)
    if choices:
        return f"{shown} is none of {', '.join(choices)}."
    if flag.boolean:
        return f"{shown} is neither true nor false."
    if isinstance(parser, flags.IntegerParser) and not _is_whole(value, parser):
        return f"{shown} is no whole number."
    return f"{shown} is not {parser.syntactic_help or 'what the flag takes'}."


def _is_whole(value: str, parser: flags.IntegerParser) -> bool:
    try:
        parser.convert(value)
    except ValueError:
        return False
    return True


def _given_twice(given: Sequence[Given], values: flags.FlagValues) -> list[Diagnostic]:
    """Flags that were given different values under two of their names."""
    found: dict[str, dict[str, str]] = {}
    for one in given:
        if one.name not in values or one.value is None:
            continue
        found.setdefault(command_line.own_name(one.name, values), {})[one.name] = one.value
    return [
        _fault(flag, f"--{' and --'.join(sorted(named))} are one flag, but differ.")
        for flag, named in found.items()
        if len(set(named.values())) > 1
    ]


def _unknown(name: str, values: flags.FlagValues) -> Diagnostic:
    near = difflib.get_close_matches(name, list(values), n=1)
    hint = f" Did you mean --{near[0]}?" if near else ""
    return _fault(name, f"There is no flag --{name}.{hint}")


def _words(given: Sequence[Given], values: flags.FlagValues, *, flags_only: bool) -> tuple[list[Diagnostic], list[str]]:
    """What is said of words that were meant as the value of a true/false flag, and all other words."""
    found, words = [], []
    before: Given | None = None
    for one in given:
        word = one.value or ""
        switch = before is not None and before.known and before.alone and command_line.is_boolean(before.name, values)
        if before is not None and switch and not one.name and _is_value(word, flags_only):
            reason = f"The argument {word!r} has no meaning here. Did you mean --{before.name}={word}?"
            found.append(Diagnostic("INVALID_FLAG", reason, subject=word))
        elif not one.name:
            words.append(word)
        before = one
    return found, words


def _is_value(word: str, flags_only: bool) -> bool:
    """Whether a word is no path, but true or false. A step of a checkpoint may be a directory of the name 0."""
    return word.lower() in (_TRUTHS | _SHORT_TRUTHS if flags_only else _TRUTHS)


def _miscounted(words: Sequence[str], positional: Sequence[str], instead: str) -> list[Diagnostic]:
    found = [
        Diagnostic("INVALID_FLAG", f"The argument {name} is missing.", subject=name)
        for name in positional[len(words) :]
        if not name.startswith("[")
    ]
    why = "" if positional else ": this command takes flags only"
    more = f"; {instead}" if why and instead else ""
    found.extend(
        Diagnostic("INVALID_FLAG", f"The argument {word!r} has no meaning here{why}{more}.", subject=word)
        for word in words[len(positional) :]
    )
    return found


def _fault(name: str, reason: str) -> Diagnostic:
    return Diagnostic("INVALID_FLAG", reason, subject=f"--{name}")
