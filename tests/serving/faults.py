"""A server in front of `serve-catalog` that fails in the ways in which networks and servers do."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Sequence

from waitress import wasyncore

from converters.serving import reference_server
from converters.serving.api_key import ApiKey
from mappings.serving import text
from recast_proto.serving_catalog_pb2 import ServingCatalog

_WAIT = 20.0
_TLS_HELLO = b"\x16"

Behaviour = Callable[["Faulty", socket.socket, bytes], None]
"""What is done with one connection: gets the request that came."""


class Faulty:
    """Listens on this machine; the first connection meets the first behaviour, and so on; the last one stays.

    Attributes:
        requests: what came over each connection.
        url: its base URL.
    """

    def __init__(self, upstream: int, behaviours: Sequence[Behaviour], tls: ssl.SSLContext | None = None):
        self.requests: list[bytes] = []
        self._upstream = upstream
        self._behaviours = list(behaviours)
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_WAIT)

    def relayed(self, request: bytes) -> bytes:
        """What the server behind this one answers."""
        with socket.create_connection(("127.0.0.1", self._upstream), _WAIT) as upstream:
            upstream.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
            pieces = iter(lambda: upstream.recv(65_536), b"")
            return b"".join(pieces)

    def pause(self, seconds: float) -> bool:
        """Waits; False once the server is to end."""
        return not self._stopped.wait(seconds)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(_WAIT)
            with contextlib.suppress(OSError), contextlib.closing(self._wrapped(connection)) as spoken:
                request = b""
                while b"\r\n\r\n" not in request and not request.startswith(_TLS_HELLO):
                    piece = spoken.recv(65_536)
                    if not piece:
                        break
                    request += piece
                self.requests.append(request)
                behaviour = self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]
                behaviour(self, spoken, request)

    def _wrapped(self, connection: socket.socket) -> socket.socket:
        if self._tls is None:
            return connection
        try:
            return self._tls.wrap_socket(connection, server_side=True)
        except OSError:
            connection.close()
            raise


@contextlib.contextmanager
def faulty(
    catalog: ServingCatalog, *behaviours: Behaviour, key: ApiKey | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Faulty]:
    """A faulty server in front of the reference server."""
    with serving(reference_server.application(catalog, key)) as port:
        server = Faulty(port, behaviours or (whole,), tls)
        try:
            yield server
        finally:
            server.close()


@contextlib.contextmanager
def serving(app: reference_server.Application) -> Iterator[int]:
    """The reference server in a thread; its port."""
    server = reference_server.listening(app, "127.0.0.1", 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield int(server.effective_port)
    finally:
        # Its sockets belong to its own thread, which ends once it has none left.
        server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map, ignore_all=True))
        thread.join(_WAIT)
        server.task_dispatcher.shutdown()


def whole(server: Faulty, connection: socket.socket, request: bytes) -> None:
    """Answers as the server behind does."""
    connection.sendall(server.relayed(request))


def dropped(after: int, *, reset: bool = False) -> Behaviour:
    """Ends the connection after some bytes of the answer; in order, or as a crash does."""

    def behave(server: Faulty, connection: socket.socket, request: bytes) -> None:
        connection.sendall(server.relayed(request)[:after] if after else b"")
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return behave


def corrupted(old: bytes, new: bytes) -> Behaviour:
    """Changes bytes of the answer on the way."""

    def behave(server: Faulty, connection: socket.socket, request: bytes) -> None:
        answer = server.relayed(request)
        assert old in answer
        assert len(old) == len(new)
        connection.sendall(answer.replace(old, new))

    return behave


def trickling(seconds: float) -> Behaviour:
    """Sends a byte at a time."""

    def behave(server: Faulty, connection: socket.socket, request: bytes) -> None:
        for byte in server.relayed(request):
            connection.sendall(bytes([byte]))
            if not server.pause(seconds):
                return

    return behave


def silent(server: Faulty, connection: socket.socket, request: bytes) -> None:
    """Says nothing until the server ends."""
    server.pause(_WAIT)


def answering(status: str, *headers: str, body: bytes = b"") -> Behaviour:
    """Gives an answer of its own."""

    def behave(server: Faulty, connection: socket.socket, request: bytes) -> None:
        lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
        connection.sendall("\r\n".join(lines).encode() + body)

    return behave


def saying(raw: bytes) -> Behaviour:
    """Sends bytes as they are."""

    def behave(server: Faulty, connection: socket.socket, request: bytes) -> None:
        connection.sendall(raw)

    return behave


def catalog(version: str = "2026.1", models: Sequence[str] = ("tiny-1b",)) -> ServingCatalog:
    """A small catalogue with its digest."""
    made = ServingCatalog(schema_version=text.SCHEMA_VERSION, version=version)
    for name in models:
        made.model.add(name=name, family="llama")
    return text.sealed(made)
