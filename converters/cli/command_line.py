"""What a command line is made of, flags with their values and words, and what of it a report must not show."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

from absl import flags

_MASK = "***"
_ALIAS = re.compile(r"Alias for (?:--)?(\w+)\.?")
# What follows it is words, whatever it looks like.
_SEPARATOR = "--"
_KEY_VALUE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(.+)", re.DOTALL)
_URL_IN_TEXT = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?=\S*\w)\S+")
_SECRET_WORDS = ("token", "secret", "password", "credential", "api_key")
# Flags whose names have a word that secrets have, and whose values are none.
_NO_SECRETS = frozenset(("num_speculative_tokens",))
# Flags that take a URL: who reads them sees to it that nothing secret in it is told.
_URL_FLAGS = frozenset(("server", "destination_uri"))


@dataclasses.dataclass(frozen=True)
class Given:
    """One flag with its value, or one word.

    Attributes:
        shown: the arguments that it is made of, as a report may show them.
        name: of the flag; "" for a word.
        value: of a flag that the program has, None where it is missing; or the word. Of other flags nobody may see it.
        known: whether it is a word or a flag that the program has.
        alone: whether it is a flag without `=`.
    """

    shown: tuple[str, ...]
    name: str
    value: str | None
    known: bool = True
    alone: bool = False


def read(arguments: Sequence[str], values: flags.FlagValues) -> Iterator[Given]:
    """The flags and words of a command line, in their order.

    What follows a flag that the program does not have may be a secret, whatever it looks like: it is taken for the
    flag's value, unless it is a flag that the program has.
    """
    left = list(arguments)
    lead: tuple[str, ...] = ()
    only_words = False
    while left:
        argument = left.pop(0)
        if argument == _SEPARATOR and not only_words:
            only_words, lead = True, (_SEPARATOR,)
            continue
        spelled = "" if only_words else _name(argument)
        name, implied = _flag(spelled, argument, values)
        if not spelled:
            yield Given((*lead, _without_url(argument)), "", argument)
            lead = ()
        elif name not in values:
            shown, only_words = _unknown(argument, left, values)
            yield Given(shown, name, None, known=False, alone="=" not in argument)
        elif "=" in argument:
            value = argument.split("=", 1)[1]
            yield Given((f"{argument.split('=', 1)[0]}={_hidden(name, value)}",), name, value)
        elif implied:
            yield Given((argument,), name, implied, alone=True)
        elif left:
            value = left.pop(0)
            yield Given((argument, _hidden(name, value)), name, value, alone=True)
        else:
            yield Given((argument,), name, None, alone=True)


def masked(arguments: Sequence[str], values: flags.FlagValues) -> list[str]:
    """The arguments as a report may show them: without what could be a secret.

    Hidden are values of flags that the program does not have or whose names speak of secrets, and what follows a
    URL's scheme.
    """
    return [shown for given in read(arguments, values) for shown in given.shown]


def conceal(arguments: Sequence[str], values: flags.FlagValues, *, parsed: bool) -> Callable[[str], str]:
    """What takes out of the text of an error what `masked` hides of the arguments.

    Args:
        arguments: the command line without the program's name.
        values: the program's flags.
        parsed: whether flags that take a URL have been read by who knows which part of it may be told.
    """
    hidden: list[tuple[re.Pattern[str], str]] = []
    for given in read(arguments, values):
        value = given.value or ""
        url = _URL.fullmatch(value)
        if given.name and value and is_secret(given.name):
            hidden += [(re.compile(rf"(?<!\w){re.escape(form)}(?!\w)"), _MASK) for form in _forms(value)]
        elif url and not (parsed and given.name in _URL_FLAGS):
            # A path has lost one of the slashes.
            hidden += [(re.compile(rf":(//?){re.escape(form)}"), rf":\1{_MASK}") for form in _forms(url[2])]

    def without(text: str) -> str:
        for pattern, mask in hidden:
            text = pattern.sub(mask, text)
        return text if parsed else _URL_IN_TEXT.sub(rf"\1{_MASK}", text)

    return without


def is_secret(name: str) -> bool:
    """Whether the name of a flag speaks of secrets."""
    return name not in _NO_SECRETS and any(word in name.lower() for word in _SECRET_WORDS)


def is_boolean(name: str, values: flags.FlagValues) -> bool:
    """Whether a flag of the program is true or false, and needs no value."""
    return name in values and bool(values[name].boolean)


def own_name(name: str, values: flags.FlagValues) -> str:
    """The name of the flag that a flag of the program is an alias for; else its own."""
    alias = _ALIAS.fullmatch(values[name].help or "")
    return alias[1] if alias else name


def _name(argument: str) -> str:
    """The name of a flag as it was spelled, "" for a word."""
    if argument.startswith("-"):
        return argument.removeprefix("-").removeprefix("-").split("=", 1)[0]
    return argument.split("=", 1)[0] if _KEY_VALUE.match(argument) else ""


def _flag(spelled: str, argument: str, values: flags.FlagValues) -> tuple[str, str]:
    """The flag that is meant, and the value that it has by its mere presence; "" where it has none."""
    if spelled in values:
        return spelled, "true" if is_boolean(spelled, values) else ""
    positive = spelled.removeprefix("no")
    if positive != spelled and positive in values and is_boolean(positive, values) and "=" not in argument:
        return positive, "false"
    return spelled, ""


def _unknown(argument: str, left: list[str], values: flags.FlagValues) -> tuple[tuple[str, ...], bool]:
    """Takes the value of a flag that the program does not have out of `left`.

    Returns:
        What may be shown, and whether only words come after it.
    """
    if "=" in argument:
        return (f"{argument.split('=', 1)[0]}={_MASK}",), False
    argument = _without_url(argument)
    if left[:1] == [_SEPARATOR]:
        del left[:2]
        return (argument, _SEPARATOR, _MASK), True
    if left and _flag(_name(left[0]), left[0], values)[0] not in values:
        del left[:1]
        return (argument, _MASK), False
    return (argument,), False


def _hidden(name: str, value: str) -> str:
    return _MASK if is_secret(name) else _without_url(value)


def _without_url(argument: str) -> str:
    return _URL.sub(rf"\1{_MASK}", argument)


def _forms(value: str) -> tuple[str, ...]:
    """A value as it is, and as it stands in a quotation."""
    return tuple(dict.fromkeys((value, repr(value)[1:-1])))
