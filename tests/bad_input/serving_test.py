"""Catalogues, caches and servers that are not as they should be, with the text that a user reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from converters.serving import cache, fetching
from mappings.serving import text
from tests.bad_input.judging import Fault, refused, triggers, unchanged
from tests.bad_input.running import Run, process, recast
from tests.serving import faults
from tests.serving.certificates import certificate, context
from tests.serving.faults import catalog, faulty

CATALOG = catalog()
URL = "https://models.example.com"


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(fetching, "POLICY", dataclasses.replace(fetching.POLICY, attempts=2, pause=0.01, connect=2.0))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def download(server: str, kept: Path, *arguments: str) -> Run:
    return recast("download-serving-cache", f"--server={server}", f"--cache_location={kept}", *arguments)


def says(run: Run, id: str, reason: str, suggestion: str) -> None:
    """Checks the whole block of the one error of a run."""
    refused(run, Fault(id))
    block = (
        "> Errors\n"
        f"  Id: RecastErrorId.{id}\n"
        "  Responsible: RecastErrorOwner.USAGE\n"
        f"  Reason: {reason}\n"
        f"  Subject: {run.failures[0].subject}\n"
        f"  Suggestion: {suggestion}\n"
    )
    assert block in run.output


@triggers("SERVER_UNREACHABLE")
def test_a_server_that_is_not_there(kept: Path) -> None:
    with faulty(CATALOG) as server:
        url = server.url
    says(
        download(url, kept),
        "SERVER_UNREACHABLE",
        "The catalogue could not be fetched: Connection refused. Attempts: 2.",
        "Check the server's address and the network, and run again later.",
    )
    assert not kept.exists()


@triggers("SERVER_NOT_TRUSTED")
def test_a_server_with_a_certificate_of_its_own(kept: Path, tmp_path: Path) -> None:
    with faulty(CATALOG, tls=context(certificate(tmp_path))) as server:
        run = download(server.url, kept)
    says(
        run,
        "SERVER_NOT_TRUSTED",
        "The server's certificate is not accepted: self-signed certificate.",
        "Check the address; if the server's certificate is signed by a private authority, name its certificate in the "
        "environment variable REQUESTS_CA_BUNDLE.",
    )


@triggers("SERVER_REFUSED")
def test_a_server_that_has_no_catalogue(kept: Path) -> None:
    with faulty(CATALOG) as server:
        run = download(f"{server.url}/elsewhere", kept)
    says(run, "SERVER_REFUSED", "The server answers 404 Not Found.", "Check the server's base URL.")


@triggers("SERVER_REFUSED")
def test_a_server_that_wants_a_key(kept: Path) -> None:
    with faulty(CATALOG, faults.answering("403 Forbidden")) as server:
        run = download(server.url, kept)
    says(
        run,
        "SERVER_REFUSED",
        "The server answers 403 Forbidden.",
        "Name a key that this server accepts by --api_key_file or --api_key_env.",
    )


@triggers("SERVER_REDIRECTED")
def test_a_server_that_sends_the_key_elsewhere(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_KEY", "s3cret-key")
    with faulty(CATALOG, faults.answering("302 Found", "Location: http://127.0.0.2:81/x")) as server:
        run = download(server.url, kept, "--api_key_env=PLATFORM_KEY")
    says(
        run,
        "SERVER_REDIRECTED",
        "The server redirects to http://127.0.0.2:81, and the key is for 127.0.0.1 alone.",
        "If you trust the place that the server names, give it as --server.",
    )
    assert "s3cret-key" not in run.output + run.errors


@triggers("SERVER_ANSWER_INVALID")
def test_a_server_that_lies(kept: Path) -> None:
    with faulty(CATALOG, faults.whole, faults.answering("200 OK", body=b"<html>Welcome</html>")) as server:
        assert download(server.url, kept).code == 0
        with unchanged(kept):
            run = download(server.url, kept)
        assert cache.load(server.url, kept) == CATALOG
    (path,) = kept.iterdir()
    fetched = path.read_text().partition('fetched: "')[2].partition('"')[0]
    says(
        run,
        "SERVER_ANSWER_INVALID",
        "the text is no catalogue: 1:1 : '<html>Welcome</html>': Expected identifier or number, got <. The cache keeps "
        f"the catalogue of {fetched}, confirmed less than a minute ago.",
        "Check the server's base URL; if it is right, tell the people who run the server.",
    )


@triggers("METADATA_SCHEMA_NEWER")
def test_a_catalogue_of_a_newer_schema(kept: Path) -> None:
    body = b'schema_version: 2\nnews { of: "another kind" }\n'
    with faulty(CATALOG, faults.answering("200 OK", body=body)) as server:
        run = download(server.url, kept)
    says(
        run,
        "METADATA_SCHEMA_NEWER",
        "the catalogue has schema version 2; this version of Recast reads 1.",
        "Use a newer version of Recast.",
    )
    assert not kept.exists()


@triggers("METADATA_INVALID")
def test_a_local_catalogue_that_was_changed(kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "catalog.textproto"
    path.write_text(text.dump(CATALOG).replace("tiny-1b", "tiny-2b"))
    changed = catalog(models=["tiny-2b"])
    says(
        download(str(tmp_path), kept),
        "METADATA_INVALID",
        f"the catalogue states the digest {CATALOG.digest}, and its content has {changed.digest}.",
        "Run download-serving-cache again, or take the catalogue from whoever published it again.",
    )


@triggers("METADATA_INVALID")
def test_a_catalogue_whose_models_cannot_be_used(tmp_path: Path) -> None:
    """Its digest is right, and the fault is not one of this program."""
    made = catalog()
    made.model[0].static_attribute.add(name="rope_theta", value_json="1e999")
    made.model[0].legalising.MergeFromString(b"\x08\x07")
    (tmp_path / "catalog.textproto").write_text(text.dump(made))
    faults = (
        Fault("METADATA_INVALID", "tiny-1b", "value_json of the attribute rope_theta"),
        Fault("METADATA_INVALID", "tiny-1b", "legalising.tied_embeddings is 7"),
    )
    paths = ("--model=tiny-1b", f"--original_checkpoint_path={tmp_path}", "--dry_run")
    refused(recast("models", "--json", f"--server={tmp_path}"), *faults)
    refused(recast("prepare-ckpt", f"--server={tmp_path}", *paths), *faults)


@triggers("METADATA_NOT_FOUND")
def test_a_local_path_without_a_catalogue(kept: Path, tmp_path: Path) -> None:
    says(
        download(str(tmp_path), kept),
        "METADATA_NOT_FOUND",
        f"There is no catalogue at {tmp_path}/catalog.textproto.",
        "Name a file, or a folder that holds catalog.textproto; a server's address begins with https://.",
    )


@triggers("METADATA_SERVER_MISMATCH")
def test_a_cache_file_of_another_server(kept: Path, tmp_path: Path) -> None:
    """A download does not build on it, and replaces nothing that is another server's."""
    (tmp_path / "catalog.textproto").write_text(text.dump(CATALOG))
    assert download(str(tmp_path), kept).code == 0
    (path,) = kept.iterdir()
    path.rename(kept / "embedded.textproto")
    with unchanged(kept):
        run = download("embedded", kept)
    says(
        run,
        "METADATA_SERVER_MISMATCH",
        f"{kept}/embedded.textproto holds the catalogue of {tmp_path}, and not of embedded.",
        "Name the server that the cache was made for, or run download-serving-cache for this one.",
    )


@triggers("API_KEY_INVALID")
def test_a_key_in_place_of_the_name_of_its_variable(kept: Path) -> None:
    run = download(URL, kept, "--api_key_env=sk-live-1234")
    says(
        run,
        "API_KEY_INVALID",
        "--api_key_env leads to no key: it names no environment variable that is set.",
        "Put the key alone into a file or an environment variable, and name that.",
    )
    assert "sk-live-1234" not in run.output + run.errors


@triggers("API_KEY_NOT_SENT")
def test_a_key_over_an_open_connection(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret-key\n")
    run = download("http://models.example.com", kept, f"--api_key_file={tmp_path / 'key'}")
    says(
        run,
        "API_KEY_NOT_SENT",
        "The connection to the server would not be encrypted, and the request carries a key.",
        "Take the https:// address of the server, or leave the key out.",
    )
    assert "s3cret-key" not in run.output + run.errors


@triggers("INVALID_FLAG")
def test_all_faults_of_the_command_line_at_once() -> None:
    run = recast("download-serving-cache", "--server=ftp://models.example.com", "--api_key_env=x", "--api_key_file=y")
    refused(
        run,
        Fault("INVALID_FLAG", "--cache_location is missing."),
        Fault("INVALID_FLAG", "--server has the scheme ftp://"),
        Fault("INVALID_FLAG", "--api_key_file and --api_key_env exclude each other."),
    )


@triggers("INVALID_FLAG")
def test_a_server_does_not_serve_what_another_one_has() -> None:
    refused(recast("serve-catalog", f"--catalog={URL}"), Fault("INVALID_FLAG", "--catalog is a URL"))


@triggers("METADATA_NOT_FOUND")
def test_a_server_without_a_catalogue(tmp_path: Path) -> None:
    refused(recast("serve-catalog", f"--catalog={tmp_path}"), Fault("METADATA_NOT_FOUND", "catalog.textproto"))


@triggers("DESTINATION_NOT_WRITABLE")
def test_a_cache_in_a_file_system_that_takes_no_files() -> None:
    run = download("embedded", Path("/proc/recast/cache"))
    refused(run, Fault("DESTINATION_NOT_WRITABLE", "The cache /proc/recast/cache cannot be made: "))


@triggers("DESTINATION_NOT_WRITABLE")
@pytest.mark.parametrize("below", ["", "a/b"])
def test_a_file_in_place_of_the_cache_is_noticed_before_the_server_is_asked(below: str, kept: Path) -> None:
    kept.write_text("mine")
    with faulty(CATALOG) as server, unchanged(kept.parent):
        run = download(server.url, kept / below)
        assert server.requests == []
    refused(run, Fault("DESTINATION_NOT_WRITABLE", f"{kept} is no directory"))


@triggers("DESTINATION_NOT_WRITABLE")
def test_a_cache_that_this_user_may_not_write_to(kept: Path) -> None:
    kept.mkdir(mode=0o555)
    run = process("download-serving-cache", "--server=embedded", f"--cache_location={kept}", powerless=True)
    refused(run, Fault("DESTINATION_NOT_WRITABLE", f"this user may not write to {kept}"))


@triggers("SOURCE_NOT_READABLE")
def test_a_kept_catalogue_that_this_user_may_not_read(kept: Path) -> None:
    assert download("embedded", kept).code == 0
    (kept / "embedded.textproto").chmod(0)
    run = process("download-serving-cache", "--server=embedded", f"--cache_location={kept}", powerless=True)
    refused(run, Fault("SOURCE_NOT_READABLE", "embedded.textproto"))


def test_the_names_of_the_original_tool_are_given_where_they_are_asked_for(kept: Path, tmp_path: Path) -> None:
    run = download(str(tmp_path), kept, "--error_prefix=Byoc")
    assert "  Id: ByocErrorId.METADATA_NOT_FOUND\n  Responsible: ByocErrorOwner.USAGE\n" in run.output
    assert run.output.endswith("UTC - byoc_lib - ERROR - One or more failures have occurred. Do not deploy\n")
