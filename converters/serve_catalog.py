"""serve-catalog: a small server for a catalogue of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from converters.cli.program import Program, main
from reporting import console
from reporting.diagnostics import Diagnostic, RecastError, raise_all
from reporting.report import Report

if TYPE_CHECKING:
    from converters.serving.api_key import ApiKey

_PORT = 8080


@dataclasses.dataclass(frozen=True)
class Request:
    """What to serve, and where."""

    catalog: str
    host: str
    port: int
    key: ApiKey | None


def define(values: flags.FlagValues) -> None:
    """Adds the binary's flags."""
    from converters.serving import api_key

    flags.DEFINE_string(
        "catalog",
        "embedded",
        "What to serve: embedded (the catalogue of this program), or a local path (a catalogue, or a folder that holds "
        "catalog.textproto).",
        flag_values=values,
    )
    flags.DEFINE_string(
        "host", "127.0.0.1", "Address to listen to; 0.0.0.0 for all of this machine.", flag_values=values
    )
    flags.DEFINE_integer(
        "port", _PORT, "Port to listen to; 0 for any free one.", lower_bound=0, upper_bound=65535, flag_values=values
    )
    api_key.define(values, "the key that clients have to send")


def prepare(values: flags.FlagValues, _: Sequence[str]) -> Request:
    """Checks the flags."""
    from converters.serving import api_key, servers

    found: list[Diagnostic] = []
    key = None
    try:
        if servers.parse(values.catalog).kind is servers.Kind.REMOTE:
            reason = "--catalog is a URL; a catalogue is served from this machine."
            found.append(Diagnostic("INVALID_FLAG", reason, subject="--catalog"))
    except RecastError:
        reason = "--catalog is neither embedded nor a local path."
        found.append(Diagnostic("INVALID_FLAG", reason, subject="--catalog"))
    try:
        key = api_key.given(values)
    except RecastError as error:
        found.extend(error.diagnostics)
    raise_all(found)
    return Request(values.catalog, values.host, values.port, key)


def execute(request: Request, report: Report) -> str:
    """Serves until SIGTERM or Ctrl-C, which end it in order."""
    from converters.serving import cache, reference_server

    report.source = request.catalog
    with report.step("load_catalog") as step:
        loaded = cache.opened(request.catalog, None)
        step.lines.extend(loaded.lines)
    with report.step("serve") as step:
        server = reference_server.listening(
            reference_server.application(loaded.catalog, request.key), request.host, request.port
        )
        served = ", ".join(reference_server.addresses(server))
        step.lines.append(f"served at {served}")
        console.tell(f"Serving at {served}. Stop with Ctrl-C.")
        server.run()
    return ""


PROGRAM = Program(
    name="serve-catalog",
    summary="Serves a catalogue over HTTP for download-serving-cache, with an ETag and a digest, until it is stopped. "
    "It speaks no TLS: put a proxy that does in front of it where a key is used beyond this machine.",
    define=define,
    prepare=prepare,
    execute=execute,
)

if __name__ == "__main__":
    main(PROGRAM)
