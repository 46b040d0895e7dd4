"""A server for one catalogue: a small WSGI application, run by waitress."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from converters.serving.api_key import ApiKey
from converters.serving.servers import CATALOG_PATH
from mappings.serving import text
from recast_proto.serving_catalog_pb2 import ServingCatalog
from reporting.diagnostics import RecastError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

HEALTH_PATH = "/healthz"
_TEXT = "text/plain; charset=utf-8"
_THREADS = 4
_CONNECTIONS = 200
_REQUEST_HEADER_BYTES = 32_768
_REQUEST_BODY_BYTES = 1_024
_IDLE_SECONDS = 60


@dataclasses.dataclass(frozen=True)
class Application:
    """Answers requests for a catalogue.

    Attributes:
        content: the catalogue as text.
        key: what a request must carry; None if everybody may read.
    """

    content: bytes
    key: ApiKey | None

    @property
    def etag(self) -> str:
        """The name of the content: its digest."""
        return f'"sha256-{hashlib.sha256(self.content).hexdigest()}"'

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request, as WSGI says it."""
        status, headers, body = self._answer(environ)
        fixed = [("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff")]
        if status != "304 Not Modified":
            fixed.append(("Content-Length", str(len(body))))
        start_response(status, [*headers, *fixed])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
        plain = [("Content-Type", _TEXT)]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", [*plain, ("Allow", "GET, HEAD")], b"GET and HEAD only\n"
        if environ["PATH_INFO"] == HEALTH_PATH:
            return "200 OK", plain, b"ok\n"
        if not self._admitted(environ.get("HTTP_AUTHORIZATION", "")):
            return "401 Unauthorized", [*plain, ("WWW-Authenticate", "Bearer")], b"a key is needed\n"
        if environ["PATH_INFO"] != CATALOG_PATH:
            return "404 Not Found", plain, f"the catalogue is at {CATALOG_PATH}\n".encode()
        if self._is_current(environ.get("HTTP_IF_NONE_MATCH", "")):
            return "304 Not Modified", [("ETag", self.etag)], b""
        digest = base64.b64encode(hashlib.sha256(self.content).digest()).decode()
        return "200 OK", [*plain, ("ETag", self.etag), ("Repr-Digest", f"sha-256=:{digest}:")], self.content

    def _admitted(self, authorization: str) -> bool:
        if self.key is None:
            return True
        return hmac.compare_digest(authorization.encode("latin-1"), self.key.header.encode())

    def _is_current(self, given: str) -> bool:
        names = {name.strip().removeprefix("W/") for name in given.split(",")}
        return bool(names & {self.etag, "*"})


def application(catalog: ServingCatalog, key: ApiKey | None = None) -> Application:
    """The application that serves a catalogue."""
    return Application(text.dump(catalog).encode(), key)


def listening(app: Application, host: str, port: int) -> Any:
    """A server that has its port, and serves once its `run` is called; `close` ends it.

    Args:
        app: what it serves.
        host: name or number of the interface; each of a name's addresses is served.
        port: 0 for any that is free.

    Raises:
        RecastError: INVALID_FLAG if it cannot have this port.
    """
    from waitress.server import create_server

    try:
        return create_server(
            app,
            host=host,
            port=port,
            threads=_THREADS,
            connection_limit=_CONNECTIONS,
            channel_timeout=_IDLE_SECONDS,
            max_request_header_size=_REQUEST_HEADER_BYTES,
            max_request_body_size=_REQUEST_BODY_BYTES,
            ident=None,
        )
    except OSError as error:
        reason = f"{host} port {port} cannot be listened to: {error.strerror}."
    except ValueError:
        reason = f"{host} port {port} is no address of this machine."
    raise RecastError.of("INVALID_FLAG", reason, subject="--port", suggestion="Choose another --host or --port.")


def addresses(server: Any) -> tuple[str, ...]:
    """The base URLs of a server that listens."""
    pairs = getattr(server, "effective_listen", None) or [server.socket.getsockname()[:2]]
    return tuple(f"http://{f'[{host}]' if ':' in host else host}:{port}" for host, port in pairs)
