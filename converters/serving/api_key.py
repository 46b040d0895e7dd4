"""The key of a server: read from a file or the environment, and shown to nobody but the server."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from absl import flags

from converters.formats.regular_files import open_regular
from reporting.diagnostics import Diagnostic, RecastError

_KEY = re.compile(r"[!-~]+")
_LIMIT = 8192
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class ApiKey:
    """A key, which neither repr() nor a stack trace shows."""

    value: str = dataclasses.field(repr=False)

    @property
    def header(self) -> str:
        """The value of the Authorization header of a request that carries it."""
        return f"Bearer {self.value}"


def define(values: flags.FlagValues, purpose: str) -> None:
    """Adds the two flags that say where a key is; neither takes the key itself."""
    flags.DEFINE_string("api_key_file", "", f"File that holds {purpose}, and nothing else.", flag_values=values)
    flags.DEFINE_string(
        "api_key_env", "", f"Name of the environment variable that holds {purpose}.", flag_values=values
    )


def given(values: flags.FlagValues) -> ApiKey | None:
    """The key that the flags lead to, None where they name none.

    Raises:
        RecastError: INVALID_FLAG if both flags are given; API_KEY_INVALID if a place holds no key. No reason quotes
            what was given: someone may have given the key itself.
    """
    if values.api_key_file and values.api_key_env:
        reason = "--api_key_file and --api_key_env exclude each other."
        raise RecastError([Diagnostic("INVALID_FLAG", reason, subject="--api_key_file")])
    if values.api_key_file:
        return _checked(_read(Path(values.api_key_file)), "--api_key_file")
    if values.api_key_env:
        return _checked(_variable(values.api_key_env), "--api_key_env")
    return None


def _read(path: Path) -> str:
    try:
        file = open_regular(path)
        if file is None:
            raise _invalid("--api_key_file", "it names no regular file")
        with file:
            return file.read(_LIMIT + 1).decode("ascii", "replace")
    except OSError as error:
        raise _invalid("--api_key_file", f"the file cannot be read: {error.strerror}") from None


def _variable(name: str) -> str:
    value = os.environ.get(name) if _VARIABLE.fullmatch(name) else None
    if value is None:
        raise _invalid("--api_key_env", "it names no environment variable that is set")
    return value


def _checked(text: str, flag: str) -> ApiKey:
    value = text.strip(" \t\r\n")
    if not value:
        raise _invalid(flag, "what it names is empty")
    if len(text) > _LIMIT or not _KEY.fullmatch(value):
        raise _invalid(flag, "what it names is no key, which is one word of printable ASCII characters")
    return ApiKey(value)


def _invalid(flag: str, why: str) -> RecastError:
    return RecastError.of("API_KEY_INVALID", f"{flag} leads to no key: {why}.", subject=flag)
