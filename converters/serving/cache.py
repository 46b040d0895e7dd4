"""Serving catalogues on this machine: a text file for each server, replaced as a whole or not at all."""

from __future__ import annotations

import calendar
import contextlib
import dataclasses
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from google.protobuf import text_format

from converters.formats import durable
from converters.formats.regular_files import open_regular
from converters.formats.storage_errors import reading, write_error, writing
from converters.serving import content as contents
from converters.serving import servers
from converters.serving.api_key import ApiKey
from converters.serving.fetching import LIMIT, Policy, fetch
from converters.serving.servers import Kind, Server
from mappings.serving import text
from recast_proto.serving_catalog_pb2 import KeptCatalog, ServingCatalog
from reporting.diagnostics import Diagnostic, RecastError, raise_all

LINE_LIMIT = 100_000
"""Bytes of a line beyond which a text is refused: the time that a parser takes grows with the square of them."""
CATALOG_FILE = "catalog.textproto"
"""The catalogue of a folder that is named as a server."""

_TIME = "%Y-%m-%dT%H:%M:%SUTC"
_SUFFIX = ".textproto"
_SAID = 300
_FAULTS_TOLD = 20
_PUBLISHED = "Tell the people who publish the catalogue: its digest is right, so this is what they wrote."
_READ_LIMIT = 2 * LIMIT
_REPLACED = ("METADATA_INVALID", "METADATA_SCHEMA_NEWER")
_HEAD = (
    "# The catalogue of a serving platform, kept by `recast download-serving-cache`. Changes are noticed and refused.\n"
)
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A catalogue that is at hand.

    Attributes:
        catalog: itself.
        lines: which it is, for a report: its server, version, digest and, out of a cache, its age.
        place: the file that it was read from; None for the embedded one.
    """

    catalog: ServingCatalog
    lines: tuple[str, ...]
    place: Path | None


def load(server: str, cache_location: Path | None, beside: Sequence[Path] = ()) -> ServingCatalog:
    """The catalogue of a server, as `opened` finds it."""
    return opened(server, cache_location, beside).catalog


def opened(server: str, cache_location: Path | None, beside: Sequence[Path] = ()) -> Loaded:
    """The catalogue of a server, without a word over the network.

    Args:
        server: `embedded`, a local path, or a base URL.
        cache_location: the directory that `download` filled; None to read the embedded catalogue or the local path
            itself. A relative one lies under the working directory, or beside one of the checkpoints.
        beside: paths of checkpoints.

    Raises:
        RecastError: INVALID_FLAG, METADATA_NOT_FOUND, METADATA_SERVER_MISMATCH, METADATA_INVALID or
            METADATA_SCHEMA_NEWER.
    """
    named = servers.parse(server)
    if cache_location is not None:
        path = _found(named, cache_location, beside) / named.file_name
        kept = _kept(path, named)
        return Loaded(kept.catalog, (*_lines(named, kept.catalog), _dated(kept, time.time())), path)
    if named.kind is Kind.REMOTE:
        reason = f"The catalogue of {named.name} is read from a cache, and no cache location was given."
        raise RecastError.of("METADATA_NOT_FOUND", reason, subject="--cache_location")
    catalog, place = _direct(named)
    return Loaded(catalog, _lines(named, catalog), place)


def download(server: str, cache_location: Path, key: ApiKey | None = None, policy: Policy | None = None) -> Loaded:
    """Brings the catalogue of a server into a cache; whatever fails, what the cache held stays.

    Args:
        server: `embedded`, a local path, or a base URL.
        cache_location: directory of the cache; made if it does not exist.
        key: of a remote server.
        policy: how patient to be with it.

    Raises:
        RecastError: as `opened`, as `fetching.fetch`, or for a cache that cannot be written.
    """
    named = servers.parse(server)
    path = cache_location / named.file_name
    try:
        return _downloaded(named, path, key, policy)
    except RecastError as error:
        raise _with_age(error, named, path) from error


def age(kept: KeptCatalog, now: float) -> str:
    """How long ago a server last said that a kept catalogue is current, in words; `now` is seconds since the epoch."""
    try:
        seconds = now - calendar.timegm(time.strptime(kept.confirmed, _TIME))
    except ValueError:
        return "at an unknown time"
    if seconds < 0:
        return "in the future by the clock of this machine"
    for size, unit in _UNITS:
        count = int(seconds // size)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "less than a minute ago"


def _downloaded(named: Server, path: Path, key: ApiKey | None, policy: Policy | None) -> Loaded:
    _check_place(path.parent)
    before = _kept_if_sound(path, named)
    now = time.strftime(_TIME, time.gmtime())
    kept = KeptCatalog(server=named.name, fetched=now, confirmed=now)
    said = "It is new in this cache."
    if named.kind is Kind.REMOTE:
        answer = fetch(named.catalog_url, key, before.etag if before else "", policy)
        kept.etag = answer.etag
        if answer.content is None and before is not None:
            kept.fetched = before.fetched
            kept.catalog.CopyFrom(before.catalog)
        else:
            kept.catalog.CopyFrom(_parsed(answer.content or b"", "SERVER_ANSWER_INVALID", named.catalog_url))
    else:
        kept.catalog.CopyFrom(_direct(named)[0])
    if before is not None:
        same = before.catalog.digest == kept.catalog.digest
        said = "It is unchanged." if same else f"It replaces version {before.catalog.version or 'unknown'}."
    _write(path, kept)
    return Loaded(kept.catalog, (*_lines(named, kept.catalog), f"kept in {path}. {said}"), path)


def _direct(named: Server) -> tuple[ServingCatalog, Path | None]:
    """The catalogue of this program, or that of a local path."""
    if named.kind is Kind.EMBEDDED:
        from mappings.serving import catalog as catalogs

        return catalogs.embedded(), None
    path = Path(named.name)
    if path.is_dir():
        path = path / CATALOG_FILE
    return _parsed(_read(path), "METADATA_INVALID", str(path)), path


def _found(named: Server, location: Path, beside: Sequence[Path]) -> Path:
    """The directory of the cache.

    Raises:
        RecastError: METADATA_NOT_FOUND if none of the places holds it, or it holds nothing; METADATA_SERVER_MISMATCH if
            it holds the catalogues of other servers alone.
    """
    places = [location] if location.is_absolute() else [Path.cwd() / location]
    if not location.is_absolute():
        places += [path.absolute().parent / location for path in beside]
    places = list(dict.fromkeys(places))
    directories = [place for place in places if place.is_dir()]
    for directory in directories:
        if (directory / named.file_name).exists():
            return directory
    for directory in directories:
        others = sorted(set(_servers_in(directory)) - {named.name})
        if others:
            reason = f"The cache in {directory} holds the catalogue of {', '.join(others)}, and not of {named.name}."
            raise RecastError.of("METADATA_SERVER_MISMATCH", reason, subject=str(directory))
    looked = ", ".join(map(str, places))
    reason = f"There is no catalogue of {named.name} in the cache {location}. Looked for at: {looked}."
    raise RecastError.of("METADATA_NOT_FOUND", reason, subject=str(location))


def _servers_in(directory: Path) -> Iterator[str]:
    """The servers whose catalogues a directory holds; what is no kept catalogue is passed over."""
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with contextlib.suppress(RecastError):
            server = _message(path).server
            if server:
                yield server


def _kept(path: Path, named: Server) -> KeptCatalog:
    """A kept catalogue, held against its digest and its server."""
    kept = _message(path)
    if not kept.server:
        raise RecastError.of("METADATA_INVALID", f"{path} does not say whose catalogue it holds.", subject=str(path))
    if kept.server != named.name:
        reason = f"{path} holds the catalogue of {kept.server}, and not of {named.name}."
        raise RecastError.of("METADATA_SERVER_MISMATCH", reason, subject=str(path))
    with _judged("METADATA_INVALID", str(path)):
        text.check(kept.catalog)
    _check_content(kept.catalog, "METADATA_INVALID", str(path))
    return kept


def _kept_if_sound(path: Path, named: Server) -> KeptCatalog | None:
    """What a download may build on, None where there is nothing or something damaged, which it replaces.

    Raises:
        RecastError: METADATA_SERVER_MISMATCH if another server's catalogue lies there; or if it cannot be read.
    """
    if not path.exists():
        return None
    try:
        return _kept(path, named)
    except RecastError as error:
        if all(d.id in _REPLACED for d in error.diagnostics):
            return None
        raise


def _message(path: Path) -> KeptCatalog:
    """The message in a file of a cache. Unknown fields are left to the look at the catalogue's version and digest."""
    kept = KeptCatalog()
    try:
        text_format.Parse(_decoded(_read(path), "METADATA_INVALID", str(path)), kept, allow_unknown_field=True)
    except (text_format.ParseError, RecursionError) as error:
        reason = f"{path} is no kept catalogue: {_short(error)}"
        raise RecastError.of("METADATA_INVALID", reason, subject=str(path)) from None
    return kept


def _parsed(content: bytes, id: str, subject: str) -> ServingCatalog:
    """A catalogue from bytes; `id` is what a fault in them is."""
    with _judged(id, subject):
        catalog = text.parse(_decoded(content, id, subject))
    _check_content(catalog, id, subject)
    return catalog


def _check_content(catalog: ServingCatalog, id: str, subject: str) -> None:
    """Refuses a catalogue that is what was published, but says what nothing can be done with."""
    found = contents.faults(catalog)
    told = found[:_FAULTS_TOLD]
    if len(found) > _FAULTS_TOLD:
        told.append(f"There are {len(found) - _FAULTS_TOLD} more such faults.")
    raise_all([Diagnostic(id, fault, suggestion=_PUBLISHED, subject=subject) for fault in told])


@contextlib.contextmanager
def _judged(id: str, subject: str) -> Iterator[None]:
    """Says what is wrong with a catalogue as an error with `id`."""
    try:
        yield
    except RecursionError:
        raise RecastError.of(id, "What is there is no catalogue: it is nested too deeply.", subject=subject) from None
    except text.CatalogError as error:
        newer = error.fault is text.Fault.NEWER_SCHEMA
        raise RecastError.of("METADATA_SCHEMA_NEWER" if newer else id, _short(error), subject=subject) from None


def _decoded(content: bytes, id: str, subject: str) -> str:
    why = ""
    if len(content) > _READ_LIMIT:
        why = "it is too long"
    elif max(map(len, content.split(b"\n"))) > LINE_LIMIT:
        why = f"a line is longer than {LINE_LIMIT} bytes"
    try:
        decoded = content.decode()
    except UnicodeDecodeError as error:
        why = f"no UTF-8 at byte {error.start}"
    if why:
        raise RecastError.of(id, f"What is there is no catalogue: {why}.", subject=subject)
    return decoded


def _read(path: Path) -> bytes:
    try:
        with reading(path):
            file = open_regular(path)
            if file is None:
                raise RecastError.of("METADATA_INVALID", f"{path} is no regular file.", subject=str(path))
            with file:
                content = file.read(_READ_LIMIT + 1)
    except RecastError as error:
        if any(d.id == "SOURCE_NOT_FOUND" for d in error.diagnostics):
            suggestion = f"Name a file, or a folder that holds {CATALOG_FILE}; a server's address begins with https://."
            raise RecastError.of(
                "METADATA_NOT_FOUND", f"There is no catalogue at {path}.", subject=str(path), suggestion=suggestion
            ) from None
        raise
    return content


def _write(path: Path, kept: KeptCatalog) -> None:
    """Replaces a file of a cache; two downloads into one cache take turns."""
    content = (_HEAD + text_format.MessageToString(kept, as_utf8=True)).encode()
    # What was served in fewer bytes than these must be readable later on.
    _decoded(content, "SERVER_ANSWER_INVALID", kept.server)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise _no_place(path.parent, error.strerror) from None
    except OSError as error:
        raise write_error(error, path.parent) from error
    with writing(path.parent):
        descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with writing(path.parent):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        draft = path.with_name(f"{path.name}.part")
        try:
            durable.write_file(path, content)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        durable.sync_directory(path.parent)
    finally:
        os.close(descriptor)


def _check_place(directory: Path) -> None:
    """Refuses a cache that could not be written, before a server is asked.

    Raises:
        RecastError: DESTINATION_NOT_WRITABLE.
    """
    there = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    if not there.is_dir():
        raise _no_place(directory, f"{there} is no directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _no_place(directory, f"this user may not write to {there}")


def _no_place(directory: Path, why: str | None) -> RecastError:
    reason = f"The cache {directory} cannot be made: {why}."
    return RecastError.of("DESTINATION_NOT_WRITABLE", reason, subject=str(directory))


def _with_age(error: RecastError, named: Server, path: Path) -> RecastError:
    """The error of a download that says what the cache still holds."""
    try:
        kept = _kept_if_sound(path, named)
    except RecastError:
        kept = None
    if kept is None:
        return error
    first, *rest = error.diagnostics
    still = f"The cache keeps the catalogue of {kept.fetched}, confirmed {age(kept, time.time())}."
    return RecastError([dataclasses.replace(first, reason=f"{first.reason} {still}"), *rest])


def _lines(named: Server, catalog: ServingCatalog) -> tuple[str, ...]:
    counted = f"{len(catalog.model)} models, {len(catalog.rule)} rules"
    return (f"{named.name}: version {catalog.version or 'unknown'}, {counted}, {catalog.digest}",)


def _dated(kept: KeptCatalog, now: float) -> str:
    return f"from the cache: fetched {kept.fetched}, confirmed {age(kept, now)}"


def _short(error: Exception) -> str:
    """What an error says, on one line of bounded length with a full stop."""
    line = " ".join(str(error).split())
    line = f"{line[:_SAID]}..." if len(line) > _SAID else line
    return line if line.endswith(".") else f"{line}."
