"""`serve-catalog`: the reference server."""

from __future__ import annotations

import base64
import hashlib
import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from converters.serving import cache, reference_server
from converters.serving.api_key import ApiKey
from converters.serving.servers import CATALOG_PATH
from mappings.serving import text
from reporting.diagnostics import RecastError
from tests.bad_input.running import environment
from tests.serving.faults import catalog, serving

CATALOG = catalog()
KEY = ApiKey("s3cret-key")


@pytest.fixture
def port() -> Iterator[int]:
    with serving(reference_server.application(CATALOG)) as port:
        yield port


@pytest.fixture
def guarded() -> Iterator[int]:
    with serving(reference_server.application(CATALOG, KEY)) as port:
        yield port


def ask(
    port: int, path: str = CATALOG_PATH, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def test_it_serves_the_catalogue_as_text_with_its_digest(port: int) -> None:
    response, content = ask(port)
    assert response.status == 200
    assert text.parse(content.decode()) == CATALOG
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"


def test_head_is_get_without_a_body(port: int) -> None:
    (head, nothing), (get, content) = ask(port, method="HEAD"), ask(port)
    assert nothing == b""
    for name in ("ETag", "Content-Length", "Content-Type"):
        assert head.headers[name] == get.headers[name]
    assert int(get.headers["Content-Length"]) == len(content)


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', "*"])
def test_what_is_current_is_not_sent_again(form: str, port: int) -> None:
    etag = ask(port)[0].headers["ETag"]
    response, content = ask(port, If_None_Match=form.format(etag))
    assert (response.status, content, response.headers["ETag"]) == (304, b"", etag)


def test_what_is_not_current_is_sent(port: int) -> None:
    assert ask(port, If_None_Match='"sha256-0"')[0].status == 200


def test_another_catalogue_has_another_etag(port: int) -> None:
    with serving(reference_server.application(catalog("2"))) as other:
        assert ask(port)[0].headers["ETag"] != ask(other)[0].headers["ETag"]


@pytest.mark.parametrize("path", ["/", "/v1", f"{CATALOG_PATH}/x", "/../../etc/passwd"])
def test_other_paths_are_not_found(path: str, port: int) -> None:
    response, content = ask(port, path)
    assert response.status == 404
    assert CATALOG_PATH.encode() in content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_are_not_allowed(method: str, port: int) -> None:
    response, _ = ask(port, method=method)
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("given", [{}, {"Authorization": "Bearer no"}, {"Authorization": "Basic s3cret-key"}])
def test_without_the_key_there_is_no_catalogue(given: dict[str, str], guarded: int) -> None:
    response, content = ask(guarded, **given)
    assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert b"tiny" not in content


def test_with_the_key_there_is(guarded: int) -> None:
    assert ask(guarded, Authorization="Bearer s3cret-key")[0].status == 200


def test_health_needs_no_key(guarded: int) -> None:
    response, content = ask(guarded, "/healthz")
    assert (response.status, content) == (200, b"ok\n")


def test_readers_that_do_not_read_keep_nobody_waiting() -> None:
    large = catalog(models=[f"tiny-{number}b" for number in range(60_000)])
    with serving(reference_server.application(large)) as port:
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
        for connection in slow:
            connection.sendall(f"GET {CATALOG_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.2)
        start = time.monotonic()
        assert ask(port, "/healthz")[1] == b"ok\n"
        assert len(ask(port)[1]) > 1_000_000
        assert time.monotonic() - start < 5
        for connection in slow:
            connection.close()


def test_a_reader_that_reads_slowly_gets_every_byte() -> None:
    large = catalog(models=[f"tiny-{number}b" for number in range(60_000)])
    app = reference_server.application(large)
    with serving(app) as port, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", port))
        slow.sendall(f"GET {CATALOG_PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        time.sleep(0.5)
        received = b"".join(iter(lambda: slow.recv(65_536), b""))
    assert received.partition(b"\r\n\r\n")[2] == app.content


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(RecastError) as caught:
        reference_server.listening(reference_server.application(CATALOG), "127.0.0.1", taken.getsockname()[1])
    assert caught.value.diagnostics[0].id == "INVALID_FLAG"
    assert "Address already in use" in caught.value.diagnostics[0].reason


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_stopped(stop: signal.Signals, tmp_path: Path) -> None:
    source = tmp_path / "platform.textproto"
    source.write_text(text.dump(CATALOG), "utf-8")
    (tmp_path / "key").write_text("s3cret-key\n")
    arguments = ("serve-catalog", f"--catalog={source}", "--port=0", f"--api_key_file={tmp_path / 'key'}")
    process = subprocess.Popen(
        [sys.executable, "-m", "container.entrypoint", *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
        url = said.removeprefix("Serving at ").partition(". ")[0]
        assert cache.download(url, tmp_path / "cache", KEY).catalog == CATALOG
    finally:
        process.send_signal(stop)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert f"served at {url}" in output
    assert output.endswith("The process is completed without any errors.\n")
    assert errors == ""
    assert "s3cret-key" not in said + output
