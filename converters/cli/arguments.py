"""The command line: `key=value` as MaxText spells it, all faults at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from absl import flags

from reporting.diagnostics import Diagnostic, raise_all

_KEY_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_HELP = frozenset(("--help", "-help", "-h", "--helpfull", "--helpshort", "-?"))


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether --help is among the arguments (before a lone `--`)."""
    return any(argument in _HELP for argument in _before_separator(arguments))


def parse(values: flags.FlagValues, argv: Sequence[str], positional: Sequence[str] = ()) -> list[str]:
    """Parses `argv` (with the program's name first) into `values`.

    Args:
        values: the program's flags.
        argv: what was given; `key=value` is read as `--key=value`.
        positional: names of the positional arguments, all required.

    Returns:
        The positional arguments.

    Raises:
        RecastError: INVALID_FLAG for every argument that cannot be read.
    """
    left = [argv[0], *_as_flags(argv[1:])]
    found: list[Diagnostic] = []
    rest: list[str] = []
    while True:
        try:
            rest = values(left, known_only=True)[1:]
            break
        except flags.Error as error:
            name = _flag_in(str(error))
            found.append(Diagnostic("INVALID_FLAG", _sentence(str(error)), subject=f"--{name}" if name else ""))
            shorter = [argument for argument in left if not name or not _sets(argument, name)]
            if not name or len(shorter) == len(left):
                break
            left = shorter
    words = [argument for argument in rest if not argument.startswith("-")]
    found.extend(_unknown(argument, values) for argument in rest if argument.startswith("-"))
    found.extend(_miscounted(words, positional))
    raise_all(found)
    return words


def _as_flags(arguments: Sequence[str]) -> list[str]:
    head = _before_separator(arguments)
    rewritten = [f"--{argument}" if _KEY_VALUE.match(argument) else argument for argument in head]
    return rewritten + list(arguments[len(head) :])


def _before_separator(arguments: Sequence[str]) -> list[str]:
    return list(arguments[: list(arguments).index("--")] if "--" in arguments else arguments)


def _unknown(argument: str, values: flags.FlagValues) -> Diagnostic:
    name = argument.lstrip("-").split("=", 1)[0]
    near = difflib.get_close_matches(name, list(values), n=1)
    hint = f" Did you mean --{near[0]}?" if near else ""
    return Diagnostic("INVALID_FLAG", f"There is no flag --{name}.{hint}", subject=f"--{name}")


def _miscounted(words: Sequence[str], positional: Sequence[str]) -> list[Diagnostic]:
    found = [
        Diagnostic("INVALID_FLAG", f"The argument {name} is missing.", subject=name)
        for name in positional[len(words) :]
    ]
    extra = words[len(positional) :]
    found.extend(
        Diagnostic("INVALID_FLAG", f"The argument {word!r} has no meaning here.", subject=word) for word in extra
    )
    return found


def _flag_in(message: str) -> str:
    match = re.search(r"--(?:no)?([A-Za-z_][A-Za-z0-9_]*)", message) or re.search(r"flag (\w+)", message)
    return match.group(1) if match else ""


def _sets(argument: str, name: str) -> bool:
    spelled = argument.lstrip("-").split("=", 1)[0]
    return argument.startswith("-") and spelled in (name, f"no{name}")


def _sentence(message: str) -> str:
    line = " ".join(message.split())
    return line if line.endswith(".") else f"{line}."
