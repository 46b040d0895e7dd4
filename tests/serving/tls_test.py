"""Servers that speak TLS: certificates are verified, and keys go over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.serving import cache, fetching
from converters.serving.api_key import ApiKey
from converters.serving.servers import CATALOG_PATH
from reporting.diagnostics import RecastError
from tests.serving import faults
from tests.serving.certificates import certificate, context
from tests.serving.faults import catalog, faulty

QUICK = fetching.Policy(attempts=2, connect=5.0, silence=5.0, attempt=10.0, pause=0.01)
CATALOG = catalog()
KEY = ApiKey("s3cret-key")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_a_certificate_that_nobody_trusts_is_refused_at_once(tmp_path: Path) -> None:
    with (
        faulty(CATALOG, tls=context(certificate(tmp_path))) as server,
        pytest.raises(RecastError) as caught,
    ):
        cache.download(server.url, tmp_path / "cache", KEY, QUICK)
    assert caught.value.diagnostics[0].id == "SERVER_NOT_TRUSTED"
    assert "self-signed certificate" in caught.value.diagnostics[0].reason
    assert server.requests == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "days", "said"), [("elsewhere.example", 1, "Hostname mismatch"), ("localhost", -1, "expired")]
)
def test_a_trusted_certificate_of_another_name_or_time_is_refused(
    name: str, days: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path, name, days)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    with faulty(CATALOG, tls=context(path)) as server, pytest.raises(RecastError) as caught:
        cache.download(server.url, tmp_path / "cache", None, QUICK)
    assert caught.value.diagnostics[0].id == "SERVER_NOT_TRUSTED"
    assert said in caught.value.diagnostics[0].reason


def test_a_private_authority_is_trusted_where_the_environment_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    with faulty(CATALOG, key=KEY, tls=context(path)) as server:
        assert cache.download(server.url, tmp_path / "cache", KEY, QUICK).catalog == CATALOG
        assert b"Authorization: Bearer s3cret-key\r\n" in server.requests[0]


def test_certificates_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(RecastError) as caught:
        cache.download("https://localhost:1", tmp_path / "cache", None, QUICK)
    assert caught.value.diagnostics[0].id == "SERVER_NOT_TRUSTED"
    assert "REQUESTS_CA_BUNDLE" in caught.value.diagnostics[0].reason


def test_a_proxy_that_fails_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with faulty(CATALOG, faults.answering("407 Proxy Authentication Required")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("http://", "http://me:hidden@"))
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(RecastError) as caught:
            cache.download("https://models.example.com", tmp_path / "cache", KEY, QUICK)
        assert [request.split(b" ")[0] for request in proxy.requests] == [b"CONNECT", b"CONNECT"]
        assert not any(b"s3cret-key" in request for request in proxy.requests)
    (found,) = caught.value.diagnostics
    assert found.id == "SERVER_UNREACHABLE"
    assert "the proxy that the environment names" in found.reason
    assert "hidden" not in found.reason


def test_a_redirect_out_of_tls_is_refused_also_without_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(path))
    with faulty(CATALOG) as plain:
        moved = faults.answering("302 Found", f"Location: {plain.url}{CATALOG_PATH}")
        with faulty(CATALOG, moved, tls=context(path)) as server, pytest.raises(RecastError) as caught:
            cache.download(server.url, tmp_path / "cache", None, QUICK)
        assert plain.requests == []
    assert caught.value.diagnostics[0].id == "SERVER_REDIRECTED"
    assert "which is not encrypted" in caught.value.diagnostics[0].reason


def test_a_server_that_does_not_speak_tls_is_unreachable(tmp_path: Path) -> None:
    with (
        faulty(CATALOG, faults.saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server,
        pytest.raises(RecastError) as caught,
    ):
        cache.download(server.url.replace("http://", "https://"), tmp_path / "cache", None, QUICK)
    assert caught.value.diagnostics[0].id == "SERVER_UNREACHABLE"
