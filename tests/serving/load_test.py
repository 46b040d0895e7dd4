"""Reading catalogues that are on this machine."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

from converters.serving import cache, servers
from mappings.serving import text
from recast_proto.serving_catalog_pb2 import KeptCatalog
from reporting.diagnostics import Diagnostic, RecastError
from tests.serving.faults import catalog

CATALOG = catalog()
HOUR, DAY = 3600, 86400


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A catalogue in a file."""
    path = tmp_path / "platform.textproto"
    path.write_text(text.dump(CATALOG), "utf-8")
    return path


def refused(server: str, location: Path | None, *beside: Path) -> Diagnostic:
    with pytest.raises(RecastError) as caught:
        cache.load(server, location, beside)
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


def test_a_file_is_a_server(published: Path) -> None:
    assert cache.load(str(published), None) == CATALOG


def test_a_folder_with_a_catalogue_is_a_server(published: Path, tmp_path: Path) -> None:
    published.rename(tmp_path / "catalog.textproto")
    assert cache.load(str(tmp_path), None) == CATALOG


def test_a_relative_path_names_the_same_server_from_everywhere(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.download(str(published), tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    assert cache.load("platform.textproto", Path("cache")) == CATALOG
    assert cache.load("./x/../platform.textproto", Path("cache")) == CATALOG


def test_what_is_read_in_place_says_which_it_is(published: Path) -> None:
    assert cache.opened(str(published), None).lines == (
        f"{published}: version 2026.1, 1 models, 0 rules, {CATALOG.digest}",
    )


def test_what_is_read_from_a_cache_says_its_age(published: Path, tmp_path: Path) -> None:
    cache.download(str(published), tmp_path / "cache")
    loaded = cache.opened(str(published), tmp_path / "cache")
    assert loaded.lines[-1].startswith("from the cache: fetched 20")
    assert loaded.lines[-1].endswith("UTC, confirmed less than a minute ago")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "less than a minute ago"),
        (60, "1 minute ago"),
        (HOUR - 1, "59 minutes ago"),
        (HOUR, "1 hour ago"),
        (2 * DAY - 1, "1 day ago"),
        (400 * DAY, "400 days ago"),
        (-1, "in the future by the clock of this machine"),
    ],
)
def test_ages_are_shown_in_words(seconds: int, shown: str) -> None:
    now = 1_800_000_000
    confirmed = time.strftime("%Y-%m-%dT%H:%M:%SUTC", time.gmtime(now))
    assert cache.age(KeptCatalog(confirmed=confirmed), now + seconds) == shown


def test_a_time_that_is_none_is_no_age() -> None:
    assert cache.age(KeptCatalog(confirmed="yesterday"), 0) == "at an unknown time"


def test_a_relative_cache_is_looked_for_under_the_working_directory_first(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, data = tmp_path / "work", tmp_path / "data"
    for folder, version in ((work, "near"), (data, "far")):
        folder.mkdir()
        published.write_text(text.dump(catalog(version)), "utf-8")
        cache.download(str(published), folder / "cache")
    monkeypatch.chdir(work)
    assert cache.load(str(published), Path("cache"), [data / "ckpt"]).version == "near"


def test_a_relative_cache_is_then_looked_for_beside_each_checkpoint(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    cache.download(str(published), tmp_path / "data" / "meta" / "cache")
    monkeypatch.chdir(work)
    beside = [tmp_path / "in" / "ckpt", tmp_path / "data" / "out"]
    assert cache.load(str(published), Path("meta/cache"), beside) == CATALOG


def test_the_right_server_in_a_later_place_is_preferred_to_another_in_an_earlier_one(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.download("embedded", tmp_path / "work" / "cache")
    cache.download(str(published), tmp_path / "data" / "cache")
    monkeypatch.chdir(tmp_path / "work")
    assert cache.load(str(published), Path("cache"), [tmp_path / "data" / "ckpt"]) == CATALOG


def test_a_cache_that_is_nowhere_lists_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = refused("https://models.example.com", Path("meta/cache"), tmp_path / "a" / "ckpt", tmp_path / "b" / "out")
    assert found.id == "METADATA_NOT_FOUND"
    places = ", ".join(str(tmp_path / folder / "meta" / "cache") for folder in (".", "a", "b"))
    assert found.reason == (
        f"There is no catalogue of https://models.example.com in the cache meta/cache. Looked for at: {places}."
    )


def test_an_absolute_cache_is_looked_for_in_one_place(tmp_path: Path) -> None:
    found = refused("embedded", tmp_path / "cache", tmp_path / "a" / "ckpt")
    assert found.id == "METADATA_NOT_FOUND"
    assert found.reason.endswith(f"Looked for at: {tmp_path}/cache.")


def test_a_url_without_a_cache_is_not_asked() -> None:
    found = refused("https://models.example.com", None)
    assert found.id == "METADATA_NOT_FOUND"
    assert found.subject == "--cache_location"


def test_the_cache_of_another_server_is_refused(published: Path, tmp_path: Path) -> None:
    cache.download(str(published), tmp_path / "cache")
    found = refused("https://models.example.com", tmp_path / "cache")
    assert found.id == "METADATA_SERVER_MISMATCH"
    assert found.reason == (
        f"The cache in {tmp_path}/cache holds the catalogue of {published}, and not of https://models.example.com."
    )


def test_the_file_of_another_server_under_the_right_name_is_refused(published: Path, tmp_path: Path) -> None:
    cache.download(str(published), tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.rename(path.with_name("embedded.textproto"))
    found = refused("embedded", tmp_path / "cache")
    assert found.id == "METADATA_SERVER_MISMATCH"
    assert f"holds the catalogue of {published}, and not of embedded." in found.reason


@pytest.mark.parametrize(
    ("old", "new", "id", "said"),
    [
        ('"tiny-1b"', '"tiny-2b"', "METADATA_INVALID", "its content has sha256:"),
        ('"tiny-1b"', '"tiny-1b', "METADATA_INVALID", "is no kept catalogue: "),
        ("schema_version: 1", "schema_version: 2", "METADATA_SCHEMA_NEWER", "has schema version 2"),
        ("schema_version: 1", "schema_version: 2 news: 3", "METADATA_SCHEMA_NEWER", "has schema version 2"),
        ("server: ", "# server: ", "METADATA_INVALID", "does not say whose catalogue"),
    ],
)
def test_a_changed_cache_is_refused(old: str, new: str, id: str, said: str, published: Path, tmp_path: Path) -> None:
    cache.download(str(published), tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_text("utf-8")
    assert content.count(old) == 1
    path.write_text(content.replace(old, new), "utf-8")
    found = refused(str(published), tmp_path / "cache")
    assert (found.id, said in found.reason) == (id, True), found


def test_a_path_that_holds_no_catalogue_is_named(tmp_path: Path) -> None:
    assert refused(str(tmp_path / "none"), None).id == "METADATA_NOT_FOUND"
    found = refused(str(tmp_path), None)
    assert found.id == "METADATA_NOT_FOUND"
    assert found.reason == f"There is no catalogue at {tmp_path}/catalog.textproto."


def test_a_server_without_a_scheme_is_told_how_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = refused("models.example.com", None)
    assert (found.id, found.subject) == ("METADATA_NOT_FOUND", f"{tmp_path}/models.example.com")
    assert "a server's address begins with https://" in found.suggestion


def test_links_in_a_circle_lead_to_no_catalogue(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    found = refused(str(tmp_path / "a"), None)
    assert (found.id, found.subject) == ("METADATA_NOT_FOUND", str(tmp_path / "a"))


def test_a_pipe_in_place_of_a_catalogue_does_not_make_the_reader_wait(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "catalog.textproto")
    assert refused(str(tmp_path), None).id == "METADATA_INVALID"


def test_a_catalogue_with_unknown_fields_is_refused(published: Path) -> None:
    published.write_text(published.read_text("utf-8") + "\nunheard_of: 1\n", "utf-8")
    assert refused(str(published), None).id == "METADATA_INVALID"


def test_all_that_nothing_can_be_done_with_is_told_at_once(published: Path) -> None:
    faulty = catalog(models=["tiny-1b", "tiny-2b"])
    first, second = faulty.model
    first.transformers.deployment, first.transformers.supported = "not a version", ">=x"
    first.static_attribute.add(name="head_dim", value_json="1e999")
    second.legalising.MergeFromString(b"\x08\x07")
    second.deployment.add(sequence_length=0)
    published.write_text(text.dump(faulty), "utf-8")
    with pytest.raises(RecastError) as caught:
        cache.load(str(published), None)
    assert {(d.id, d.subject) for d in caught.value.diagnostics} == {("METADATA_INVALID", str(published))}
    assert all("Tell the people who publish the catalogue" in d.suggestion for d in caught.value.diagnostics)
    assert [d.reason for d in caught.value.diagnostics] == [
        "The model tiny-1b of the catalogue cannot be used: transformers.deployment is 'not a version', which is no "
        "version by PEP 440.",
        "The model tiny-1b of the catalogue cannot be used: transformers.supported is '>=x', which is no specifier by "
        "PEP 440.",
        "The model tiny-1b of the catalogue cannot be used: value_json of the attribute head_dim is no JSON (the "
        "number 1e999 is too large).",
        "The model tiny-2b of the catalogue cannot be used: legalising.tied_embeddings is 7, which this version does "
        "not know.",
        "The model tiny-2b of the catalogue cannot be used: a deployment has the length 0 and the batch sizes (none).",
    ]


def test_of_many_faults_the_first_are_told_and_the_rest_is_counted(published: Path) -> None:
    faulty = catalog(models=[f"tiny-{size}b" for size in range(30)])
    for model in faulty.model:
        model.static_attribute.add(name="a")
    published.write_text(text.dump(faulty), "utf-8")
    with pytest.raises(RecastError) as caught:
        cache.load(str(published), None)
    assert len(caught.value.diagnostics) == 21
    assert caught.value.diagnostics[-1].reason == "There are 10 more such faults."


def test_a_kept_catalogue_of_an_older_version_is_looked_at_too(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = catalog()
    faulty.model[0].static_attribute.add(name="a", value_json="{")
    published.write_text(text.dump(faulty), "utf-8")
    with monkeypatch.context() as older:
        older.setattr(cache, "_check_content", lambda *_: None)
        cache.download(str(published), tmp_path / "cache")
    found = refused(str(published), tmp_path / "cache")
    assert found.id == "METADATA_INVALID"
    assert "value_json of the attribute a is no JSON" in found.reason


def test_a_catalogue_is_parsed_once(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.download(str(published), tmp_path / "cache")
    parsed: list[str] = []
    parse = text_format.Parse

    def counted(content: str, *given: Any, **named: Any) -> Any:
        parsed.append(content)
        return parse(content, *given, **named)

    monkeypatch.setattr(text_format, "Parse", counted)
    assert cache.load(str(published), None) == cache.load(str(published), tmp_path / "cache")
    assert len(parsed) == 2


def test_a_catalogue_without_an_end_to_its_nesting_is_refused(published: Path) -> None:
    published.write_text("x{" * 100_000)
    assert refused(str(published), None).id == "METADATA_INVALID"


def test_a_cache_without_an_end_to_its_nesting_is_refused(published: Path, tmp_path: Path) -> None:
    cache.download(str(published), tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_text("x{" * 100_000)
    assert refused(str(published), tmp_path / "cache").id == "METADATA_INVALID"


def test_a_file_that_is_too_long_is_refused_unread(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_READ_LIMIT", 50)
    found = refused(str(published), None)
    assert (found.id, found.reason) == ("METADATA_INVALID", "What is there is no catalogue: it is too long.")


def test_damage_anywhere_in_a_cache_is_refused_or_changes_nothing(published: Path, tmp_path: Path) -> None:
    cache.download(str(published), tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    content = path.read_bytes()
    random.seed(7)
    refusals: list[RecastError] = []
    for _ in range(400):
        damaged = bytearray(content)
        place = random.randrange(len(damaged))
        damaged[place : place + random.choice((0, 1, 9))] = random.randbytes(random.choice((0, 1, 5)))
        path.write_bytes(damaged)
        try:
            assert cache.load(str(published), tmp_path / "cache") == CATALOG
        except RecastError as error:
            refusals.append(error)
    assert len(refusals) > 100
    ids = {d.id for error in refusals for d in error.diagnostics}
    assert ids <= {"METADATA_INVALID", "METADATA_SERVER_MISMATCH"}


def test_what_else_lies_in_a_cache_is_no_server(published: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "notes.textproto").write_text("no protocol buffer {{{")
    (folder / "own.textproto").write_text(text_format.MessageToString(KeptCatalog()))
    assert refused("embedded", folder).id == "METADATA_NOT_FOUND"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("https://Models.Example.COM/", "https://models.example.com"),
        ("HTTPS://models.example.com:443", "https://models.example.com"),
        ("http://models.example.com:80/a/b//", "http://models.example.com/a/b"),
        ("http://models.example.com:8080/A", "http://models.example.com:8080/A"),
        ("http://[::1]:81", "http://[::1]:81"),
        ("https://modèles.example.com", "https://xn--modles-5ua.example.com"),
    ],
)
def test_spellings_of_one_url_are_one_server(given: str, name: str) -> None:
    assert servers.parse(given).name == name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "is empty"),
        ("catalogue-\udcff", "is no UTF-8"),
        ("ftp://models.example.com", "scheme ftp://"),
        ("gs://bucket/x", "scheme gs://"),
        ("https://", "can be read"),
        ("https://a b", "can be read"),
        ("https://models.example.com:99999", "can be read"),
        ("https://[::1", "can be read"),
        ("https://a..b", "can be read"),
        ("https://models.example.com/\x00", "can be read"),
        ("https://models.example.com/?x=1#y", "has no query and no fragment"),
        ("https://me:hidden@models.example.com", "has no user name or password"),
    ],
)
def test_what_is_no_base_url_is_refused_without_being_quoted(given: str, said: str) -> None:
    with pytest.raises(RecastError) as caught:
        servers.parse(given)
    (found,) = caught.value.diagnostics
    assert found.id == "INVALID_FLAG"
    assert said in found.reason
    assert "hidden" not in found.reason + found.subject + found.suggestion


def test_servers_that_look_alike_have_files_of_their_own() -> None:
    given = ("https://a.example/x", "http://a.example/x", "https://a.example_x", "https://a.example/X", "/a.example/x")
    names = [servers.parse(server).file_name for server in given]
    assert len({name.lower() for name in names}) == len(given)
    assert all(name.isascii() and "/" not in name and not name.startswith(".") for name in names)
    assert names[0].startswith("a.example_x-")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:1", True),
        ("http://127.8.0.1", True),
        ("http://[::1]:1", True),
        ("http://localhost.example.com", False),
        ("http://0.0.0.0", False),
        ("http://example.com/localhost", False),
    ],
)
def test_this_machine_is_known_by_its_name_or_number(url: str, expected: bool) -> None:
    assert servers.is_loopback(url) is expected
