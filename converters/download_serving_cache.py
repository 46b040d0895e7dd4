"""download-serving-cache: the catalogue of a serving platform into a cache that later runs read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from converters.cli import error_prefix
from converters.cli.program import Program, main
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report

if TYPE_CHECKING:
    from converters.serving.api_key import ApiKey


@dataclasses.dataclass(frozen=True)
class Request:
    """What to download, and where to keep it."""

    server: str
    cache_location: Path
    key: ApiKey | None


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    from converters.serving import api_key

    flags.DEFINE_string(
        "server",
        "",
        "Where the catalogue comes from: embedded (that of this program), a local path (a catalogue, or a folder that "
        "holds catalog.textproto), or the base URL of a server, such as https://models.example.com.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "cache_location",
        "",
        "Directory that keeps the catalogue, as one text file for each server. It is made if it does not exist.",
        flag_values=values,
    )
    api_key.define(values, "the key that the server asks for")
    error_prefix.define(values)


def prepare(values: flags.FlagValues, _: Sequence[str]) -> Request:
    """Checks the flags."""
    from converters.serving import api_key, servers

    found: list[Diagnostic] = []
    key = None
    if not values.cache_location:
        found.append(Diagnostic("INVALID_FLAG", "--cache_location is missing.", subject="--cache_location"))
    try:
        servers.parse(values.server)
    except RecastError as error:
        found.extend(error.diagnostics)
    try:
        key = api_key.given(values)
    except RecastError as error:
        found.extend(error.diagnostics)
    raise_all(found)
    return Request(values.server, Path(values.cache_location), key)


def execute(request: Request, report: Report) -> str:
    """Downloads; on any failure the cache is as it was."""
    from converters.serving import cache

    report.source, report.destination = request.server, str(request.cache_location)
    with report.step("download") as step:
        loaded = cache.download(request.server, request.cache_location, request.key)
        step.lines.extend(loaded.lines)
    return ""


PROGRAM = Program(
    name="download-serving-cache",
    summary="Brings the catalogue of a serving platform, its models and the rules for their checkpoints, into a cache. "
    "Later runs read it there, without the network. A catalogue that the server still calls current is not sent again, "
    "and whatever goes wrong leaves the one that is kept.",
    define=define,
    prepare=prepare,
    execute=execute,
)

if __name__ == "__main__":
    main(PROGRAM)
