"""The command line: `key=value` as MaxText spells it, all faults at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from absl import flags

from reporting.diagnostics import Diagnostic, raise_all

_KEY_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_ALIAS = re.compile(r"Alias for (?:--)?(\w+)\.?")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://).+")
_MASK = "***"
# Flags whose names have a word that secrets have, and whose values are none.
_NO_SECRETS = frozenset(("num_speculative_tokens",))
_HELP = frozenset(("--help", "-help", "-h", "--helpfull", "--helpshort", "-?"))


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether --help is among the arguments (before a lone `--`)."""
    return any(argument in _HELP for argument in _before_separator(arguments))


def parse(values: flags.FlagValues, argv: Sequence[str], positional: Sequence[str] = ()) -> list[str]:
    """Parses `argv` (with the program's name first) into `values`.

    Args:
        values: the program's flags.
        argv: what was given; `key=value` is read as `--key=value`.
        positional: names of the positional arguments; those in brackets may be left out.

    Returns:
        The positional arguments.

    Raises:
        RecastError: INVALID_FLAG for every argument that cannot be read.
    """
    left = [argv[0], *_as_flags(argv[1:])]
    found = _given_twice(left, values)
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


def masked(arguments: Sequence[str], values: flags.FlagValues) -> list[str]:
    """The arguments as a report may show them: without what could be a secret.

    Hidden are values of flags that the program does not have or whose names speak of secrets, and what follows a
    URL's scheme.
    """
    shown: list[str] = []
    hide_next = False
    for argument in arguments:
        name, separator, _ = argument.lstrip("-").partition("=")
        spelled = argument.startswith("-") or bool(_KEY_VALUE.match(argument))
        hidden = spelled and _is_secret(name, values)
        if hide_next and not spelled:
            shown.append(_MASK)
        elif separator and hidden:
            shown.append(f"{argument.split('=', 1)[0]}={_MASK}")
        else:
            shown.append(_URL.sub(rf"\1{_MASK}", argument))
        hide_next = hidden and not separator
    return shown


def _is_secret(name: str, values: flags.FlagValues) -> bool:
    if name in _NO_SECRETS and name in values:
        return False
    known = name in values or name.removeprefix("no") in values
    return not known or any(word in name.lower() for word in ("token", "secret", "password", "credential", "api_key"))


def _given_twice(arguments: Sequence[str], values: flags.FlagValues) -> list[Diagnostic]:
    """Flags that were given different values under two of their names."""
    given: dict[str, dict[str, str]] = {}
    for argument in _before_separator(arguments[1:]):
        name, separator, value = argument.lstrip("-").partition("=")
        if not separator or name not in values:
            continue
        alias = _ALIAS.fullmatch(values[name].help or "")
        given.setdefault(alias.group(1) if alias else name, {})[name] = value
    return [
        Diagnostic("INVALID_FLAG", f"--{' and --'.join(sorted(named))} are one flag, but differ.", subject=f"--{flag}")
        for flag, named in given.items()
        if len(set(named.values())) > 1
    ]


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
        if not name.startswith("[")
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
