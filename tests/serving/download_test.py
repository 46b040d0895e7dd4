"""`download-serving-cache` against `serve-catalog`: over a good network, and over bad ones."""

from __future__ import annotations

import dataclasses
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import text_format

from converters.serving import cache, fetching, reference_server, servers
from converters.serving.api_key import ApiKey
from mappings.serving import text
from recast_proto.serving_catalog_pb2 import KeptCatalog, ServingCatalog
from reporting.diagnostics import Diagnostic, RecastError
from tests.serving import faults
from tests.serving.faults import catalog, faulty

QUICK = fetching.Policy(attempts=3, connect=2.0, silence=2.0, attempt=4.0, pause=0.01, longest_pause=0.05)
ONCE = dataclasses.replace(QUICK, attempts=1)
KEY = ApiKey("s3cret-key")
CATALOG = catalog()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def failing(url: str, kept: Path, key: ApiKey | None = None, policy: fetching.Policy = QUICK) -> Diagnostic:
    """The one error of a download that must fail."""
    with pytest.raises(RecastError) as caught:
        cache.download(url, kept, key, policy)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def message(path: Path) -> KeptCatalog:
    return text_format.Parse(path.read_text("utf-8"), KeptCatalog())


def test_a_download_keeps_what_the_server_serves(kept: Path) -> None:
    with faulty(CATALOG) as server:
        loaded = cache.download(server.url, kept, None, QUICK)
    assert loaded.catalog == CATALOG
    assert cache.load(server.url, kept) == CATALOG


def test_the_kept_file_is_text_that_names_its_server_and_its_time(kept: Path) -> None:
    with faulty(CATALOG) as server:
        cache.download(server.url, kept, None, QUICK)
    (path,) = kept.iterdir()
    read = path.read_text("utf-8")
    assert f'server: "{server.url}"' in read
    assert 'name: "tiny-1b"' in read
    assert re.search(r'fetched: "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dUTC"', read)


def test_a_second_download_asks_whether_the_first_is_current_and_gets_no_bytes(kept: Path) -> None:
    with faulty(CATALOG) as server:
        cache.download(server.url, kept, None, QUICK)
        (path,) = kept.iterdir()
        old = message(path)
        old.fetched = old.confirmed = "2026-01-01T00:00:00UTC"
        path.write_text(text_format.MessageToString(old), "utf-8")
        cache.download(server.url, kept, None, QUICK)
        assert server.requests[1].count(f"If-None-Match: {old.etag}".encode()) == 1
        assert server.relayed(server.requests[1]).startswith(b"HTTP/1.1 304 ")
    new = message(path)
    assert new.fetched == old.fetched
    assert new.confirmed > old.confirmed
    assert new.catalog == CATALOG


@pytest.mark.parametrize("etag", ['"\u2603"', '"a\nX-Key: b"', "bare", "*"])
def test_a_kept_name_that_no_server_gave_is_not_asked_about(etag: str, kept: Path) -> None:
    with faulty(CATALOG) as server:
        cache.download(server.url, kept, None, QUICK)
        (path,) = kept.iterdir()
        old = message(path)
        old.etag = etag
        path.write_text(text_format.MessageToString(old, as_utf8=True), "utf-8")
        assert cache.download(server.url, kept, None, QUICK).catalog == CATALOG
        assert b"If-None-Match" not in server.requests[1]


def test_a_new_catalogue_replaces_the_old_one(kept: Path) -> None:
    changed = catalog("2026.2", ["tiny-1b", "tiny-2b"])
    with faulty(CATALOG) as server, faults.serving(reference_server.application(changed)) as port:
        cache.download(server.url, kept, None, QUICK)
        server._upstream = port
        loaded = cache.download(server.url, kept, None, QUICK)
    assert cache.load(server.url, kept) == changed
    assert "It replaces version 2026.1." in loaded.lines[-1]


def test_a_damaged_kept_file_is_not_asked_about_and_is_replaced(kept: Path) -> None:
    with faulty(CATALOG) as server:
        cache.download(server.url, kept, None, QUICK)
        (path,) = kept.iterdir()
        path.write_text(path.read_text().replace("tiny-1b", "tiny-9b"))
        cache.download(server.url, kept, None, QUICK)
        assert b"If-None-Match" not in server.requests[1]
    assert cache.load(server.url, kept) == CATALOG


def test_servers_are_kept_beside_each_other(kept: Path) -> None:
    other = catalog("7", ["other-1b"])
    with faulty(CATALOG) as first, faulty(other) as second:
        cache.download(first.url, kept, None, QUICK)
        cache.download(second.url, kept, None, QUICK)
        cache.download("embedded", kept)
    assert cache.load(first.url, kept) == CATALOG
    assert cache.load(second.url, kept) == other
    assert len(list(kept.iterdir())) == 3


@pytest.mark.parametrize(
    "behaviour",
    [
        faults.dropped(0),
        faults.dropped(40),
        faults.dropped(400),
        faults.dropped(0, reset=True),
        faults.answering("500 Internal Server Error"),
        faults.answering("503 Service Unavailable", "Retry-After: 99999"),
        faults.answering("429 Too Many Requests", "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"),
        faults.corrupted(b"tiny-1b", b"tiny-1c"),
    ],
    ids=["no answer", "half a header", "half a body", "reset", "500", "503", "429", "corrupted"],
)
def test_a_fault_that_passes_is_met_by_another_attempt(behaviour: faults.Behaviour, kept: Path) -> None:
    with faulty(CATALOG, behaviour, behaviour, faults.whole) as server:
        assert cache.download(server.url, kept, None, QUICK).catalog == CATALOG
        assert len(server.requests) == 3


def test_the_pauses_between_attempts_grow_and_a_server_may_ask_for_longer_ones(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", paused.append)
    policy = dataclasses.replace(QUICK, attempts=4, pause=0.5, longest_pause=30.0)
    with faulty(
        CATALOG, faults.answering("502 Bad Gateway"), faults.answering("503 Busy", "Retry-After: 7"), faults.dropped(0)
    ) as server:
        failing(server.url, kept, None, policy)
    assert len(paused) == 3
    assert 0.5 <= paused[0] <= 0.75
    assert paused[1] == 7
    assert 2.0 <= paused[2] <= 3.0


def with_version(deployment: str) -> ServingCatalog:
    """A catalogue whose model runs with a version of transformers."""
    made = catalog()
    made.model[0].transformers.deployment = deployment
    return made


LASTING = {
    "no answer": (faults.dropped(0), "SERVER_UNREACHABLE", "it closed the connection without an answer. Attempts: 3."),
    "half a body": (faults.dropped(-9), "SERVER_UNREACHABLE", "it broke off in the middle of its answer. Attempts: 3."),
    "reset": (faults.dropped(0, reset=True), "SERVER_UNREACHABLE", "Connection reset by peer. Attempts: 3."),
    "no HTTP": (faults.saying(b"SSH-2.0-OpenSSH_9.9\r\n"), "SERVER_UNREACHABLE", "its answer is no HTTP"),
    "half a header": (faults.dropped(40), "SERVER_UNREACHABLE", "broke off in its header. Attempts: 3."),
    "half a piece": (
        faults.saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsch"),
        "SERVER_UNREACHABLE",
        "it broke off in the middle of its answer. Attempts: 3.",
    ),
    "500": (faults.answering("500 Oh No"), "SERVER_UNREACHABLE", "answers 500 Internal Server Error. Attempts: 3."),
    "corrupted": (faults.corrupted(b"tiny-1b", b"tiny-1c"), "SERVER_ANSWER_INVALID", "is not what the server's digest"),
    "404": (faults.answering("404 Not Found"), "SERVER_REFUSED", "The server answers 404 Not Found."),
    "401": (faults.answering("401 Unauthorized"), "SERVER_REFUSED", "The server answers 401 Unauthorized."),
    "204": (faults.answering("204 No Content"), "SERVER_ANSWER_INVALID", "answers 204 No Content, which fits no such"),
    "304 to no question": (faults.answering("304 Not Modified"), "SERVER_ANSWER_INVALID", "answers 304 Not Modified"),
    "a login page": (faults.answering("200 OK", body=b"<html>hello"), "SERVER_ANSWER_INVALID", "is no catalogue: 1:1"),
    "no text": (faults.answering("200 OK", body=b"\xff"), "SERVER_ANSWER_INVALID", "no UTF-8 at byte 0."),
    "nothing": (faults.answering("200 OK"), "SERVER_ANSWER_INVALID", "states no schema_version"),
    "one long line": (
        faults.answering("200 OK", body=b"x: 1 " * 100_000),
        "SERVER_ANSWER_INVALID",
        "a line is longer than 100000 bytes",
    ),
    "encoded": (
        faults.answering("200 OK", "Content-Encoding: gzip", body=b"x"),
        "SERVER_ANSWER_INVALID",
        "sends its answer encoded",
    ),
    "a digest that lies": (
        faults.answering("200 OK", body=text.dump(CATALOG).replace("tiny-1b", "tiny-1c").encode()),
        "SERVER_ANSWER_INVALID",
        f"the catalogue states the digest {CATALOG.digest}, and its content has sha256:",
    ),
    "models without end": (
        faults.answering("200 OK", body=b"schema_version: 1\n" + b"model{}\n" * 1001),
        "SERVER_ANSWER_INVALID",
        "the catalogue has 1001 models; it may have 1000.",
    ),
    "a model that cannot be used": (
        faults.answering("200 OK", body=text.dump(with_version("newest")).encode()),
        "SERVER_ANSWER_INVALID",
        "transformers.deployment is 'newest', which is no version by PEP 440.",
    ),
    "a newer schema": (
        faults.answering("200 OK", body=b'schema_version: 99 what_is_new: "?"'),
        "METADATA_SCHEMA_NEWER",
        "the catalogue has schema version 99; this version of Recast reads",
    ),
    "announced too long": (
        faults.saying(b"HTTP/1.1 200 OK\r\nContent-Length: 4000001\r\n\r\n"),
        "SERVER_ANSWER_INVALID",
        "The answer is 4000001 bytes long; a catalogue has at most 4000000.",
    ),
    "announced in thousands of digits": (
        faults.saying(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n"),
        "SERVER_ANSWER_INVALID",
        "a catalogue has at most 4000000.",
    ),
    "a length below zero": (
        faults.saying(b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"),
        "SERVER_UNREACHABLE",
        "The answer does not say how long it is, or broke off in its header. Attempts: 3.",
    ),
    "a size below zero": (
        faults.saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n"),
        "SERVER_UNREACHABLE",
        "Attempts: 3.",
    ),
    "a redirect to no text": (
        faults.saying(b"HTTP/1.1 302 Found\r\nLocation: http://h\x80\xff/\r\nContent-Length: 0\r\n\r\n"),
        "SERVER_UNREACHABLE",
        "its answer is no HTTP (UnicodeDecodeError). Attempts: 3.",
    ),
    "a redirect to nowhere": (faults.answering("302 Found"), "SERVER_REDIRECTED", "without saying where"),
    "a redirect to a file": (
        faults.answering("302 Found", "Location: file:///etc/passwd"),
        "SERVER_REDIRECTED",
        "no http(s) URL",
    ),
    "redirects in a circle": (
        faults.answering("302 Found", f"Location: {servers.CATALOG_PATH}"),
        "SERVER_REDIRECTED",
        "redirects more than 5 times",
    ),
}


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_that_stays_is_one_clear_error_and_the_kept_catalogue_is_as_it_was(name: str, kept: Path) -> None:
    behaviour, id, said = LASTING[name]
    with faulty(CATALOG, faults.whole, behaviour) as server:
        cache.download(server.url, kept, None, QUICK)
        _without_etag(next(kept.iterdir()))
        before = {path: path.read_bytes() for path in kept.iterdir()}
        found = failing(server.url, kept)
    assert found.id == id
    assert said in found.reason
    assert {path: path.read_bytes() for path in kept.iterdir()} == before
    assert "The cache keeps the catalogue of 20" in found.reason
    assert cache.load(server.url, kept) == CATALOG


def test_a_catalogue_that_could_not_be_read_again_is_not_kept(kept: Path) -> None:
    quotes = '"' * 60_000
    served = text.sealed(ServingCatalog(schema_version=1, version=quotes))
    body = f"schema_version: 1 digest: '{served.digest}'\nversion: '{quotes}'\n".encode()
    with faulty(CATALOG, faults.answering("200 OK", body=body)) as server:
        assert failing(server.url, kept).id == "SERVER_ANSWER_INVALID"
    assert not kept.exists()


def test_a_failed_first_download_leaves_no_cache(kept: Path) -> None:
    with faulty(CATALOG, faults.answering("404 Not Found")) as server:
        assert failing(server.url, kept).reason == "The server answers 404 Not Found."
    assert not kept.exists()


def test_a_server_that_is_not_there_is_unreachable(kept: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = failing(f"http://127.0.0.1:{port}", kept)
    assert found.id == "SERVER_UNREACHABLE"
    assert "Connection refused. Attempts: 3." in found.reason


def test_a_name_that_does_not_exist_is_unreachable(kept: Path) -> None:
    found = failing("https://nobody.invalid", kept, None, ONCE)
    assert found.id == "SERVER_UNREACHABLE"
    assert "Attempts: 1." in found.reason


def test_a_server_that_says_nothing_is_given_up(kept: Path) -> None:
    with faulty(CATALOG, faults.silent) as server:
        found = failing(server.url, kept, None, dataclasses.replace(ONCE, silence=0.2))
    assert found.id == "SERVER_UNREACHABLE"
    assert "no answer in time" in found.reason


def test_a_server_whose_bytes_come_one_by_one_is_given_up_after_the_time_of_an_attempt(kept: Path) -> None:
    start = time.monotonic()
    with faulty(CATALOG, faults.trickling(0.05)) as server:
        found = failing(server.url, kept, None, dataclasses.replace(ONCE, attempt=0.5))
        assert time.monotonic() - start < 3
    assert found.id == "SERVER_UNREACHABLE"
    assert "The answer was not there after 0.5 seconds." in found.reason


def test_an_answer_without_end_is_cut_off_at_the_limit(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    def endless(server: faults.Faulty, connection: socket.socket, request: bytes) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"2328\r\n" + b"# no end\n" * 1000 + b"\r\n")
            sent += 9000

    monkeypatch.setattr(fetching, "LIMIT", 100_000)
    with faulty(CATALOG, endless) as server:
        found = failing(server.url, kept)
        assert len(server.requests) == 1
    assert found.id == "SERVER_ANSWER_INVALID"
    assert "longer than 100000 bytes" in found.reason
    assert sent < 50_000_000


def test_a_redirect_within_the_server_is_followed_with_the_key(kept: Path) -> None:
    moved = faults.answering("308 Permanent Redirect", f"Location: {servers.CATALOG_PATH}#part")
    with faulty(CATALOG, moved, faults.whole, key=KEY) as server:
        cache.download(f"{server.url}/old", kept, KEY, QUICK)
        assert [b"Authorization: Bearer s3cret-key" in request for request in server.requests] == [True, True]


def test_a_redirect_to_elsewhere_is_followed_without_a_key(kept: Path) -> None:
    with faulty(CATALOG) as other:
        moved = faults.answering("302 Found", f"Location: {other.url}{servers.CATALOG_PATH}")
        with faulty(catalog("0"), moved) as server:
            assert cache.download(server.url, kept, None, QUICK).catalog == CATALOG
    assert cache.load(server.url, kept) == CATALOG


def test_a_redirect_to_elsewhere_is_refused_with_a_key_and_nobody_is_asked(kept: Path) -> None:
    with faulty(CATALOG) as other:
        moved = faults.answering("302 Found", f"Location: {other.url}{servers.CATALOG_PATH}")
        with faulty(CATALOG, moved) as server:
            found = failing(server.url, kept, KEY)
        assert other.requests == []
    assert found.id == "SERVER_REDIRECTED"
    assert found.reason == f"The server redirects to {other.url}, and the key is for 127.0.0.1 alone."


def test_passwords_of_netrc_are_not_sent(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine localhost login me password hidden\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with faulty(CATALOG) as server:
        cache.download(server.url.replace("127.0.0.1", "localhost"), kept, None, QUICK)
        assert b"Authorization" not in server.requests[0]


def test_a_key_for_this_machine_does_not_pass_through_a_proxy(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(CATALOG) as proxy, faulty(CATALOG, key=KEY) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        cache.download(server.url, kept, KEY, QUICK)
        assert proxy.requests == []


@pytest.mark.parametrize("url", ["http://localhost.example.com", "http://10.0.0.1", "http://127.0.0.1.example.com"])
def test_a_key_is_not_sent_in_the_open(url: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _unexpected)
    found = failing(url, kept, KEY)
    assert found.id == "API_KEY_NOT_SENT"


def test_a_server_with_a_key_refuses_another_key_and_none(kept: Path) -> None:
    with faulty(CATALOG, key=KEY) as server:
        for key in (None, ApiKey("other"), ApiKey("s3cret-ke")):
            assert failing(server.url, kept, key).id == "SERVER_REFUSED"
        assert cache.download(server.url, kept, KEY, QUICK).catalog == CATALOG


def test_two_downloads_at_once_leave_one_sound_catalogue(kept: Path) -> None:
    with faulty(CATALOG) as server:
        threads = [
            threading.Thread(target=cache.download, args=(server.url, kept, None, QUICK), daemon=True) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert cache.load(server.url, kept) == CATALOG
    assert len(list(kept.iterdir())) == 1


def test_a_write_that_fails_leaves_the_old_catalogue(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(CATALOG) as server:
        cache.download(server.url, kept, None, QUICK)
        before = {path: path.read_bytes() for path in kept.iterdir()}
        monkeypatch.setattr(cache.durable.os, "replace", _full)
        found = failing(server.url, kept)
    assert found.id == "DISK_FULL"
    assert {path: path.read_bytes() for path in kept.iterdir()} == before


def _without_etag(path: Path) -> None:
    kept = message(path)
    kept.etag = ""
    path.write_text(text_format.MessageToString(kept), "utf-8")


def _unexpected(*_: object) -> Iterator[None]:
    raise AssertionError("the network was used")


def _full(*_: object) -> None:
    import errno

    raise OSError(errno.ENOSPC, "No space left on device")


def test_the_embedded_catalogue_goes_through_a_cache_unchanged(kept: Path) -> None:
    from mappings.serving import catalog as catalogs

    cache.download("embedded", kept)
    held: ServingCatalog = cache.load("embedded", kept)
    assert held == catalogs.embedded()
