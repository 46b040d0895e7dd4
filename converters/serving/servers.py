"""What `--server` may name: the catalogue of this program, a local path, or the base URL of a server."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import ipaddress
import os
import re
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from reporting.diagnostics import RecastError

EMBEDDED = "embedded"
CATALOG_PATH = "/v1/serving-catalog.textproto"
"""Where a server has its catalogue, below its base URL."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*")
_PORTS = {"http": 80, "https": 443}
_NAME_LENGTH = 80


class Kind(enum.Enum):
    """Where a catalogue comes from."""

    EMBEDDED = "embedded"
    LOCAL = "local"
    REMOTE = "remote"


@dataclasses.dataclass(frozen=True)
class Server:
    """One server by the name that stands for it in caches.

    Attributes:
        kind: of its name.
        name: `embedded`, an absolute path, or a URL with its host in lower case and no final slash.
    """

    kind: Kind
    name: str

    @property
    def catalog_url(self) -> str:
        """Where a remote server has its catalogue."""
        return f"{self.name}{CATALOG_PATH}"

    @property
    def file_name(self) -> str:
        """The file of a cache that holds this server's catalogue: what people recognise, and a digest of the rest."""
        if self.kind is Kind.EMBEDDED:
            return f"{EMBEDDED}.textproto"
        known = self.name.partition("://")[2] or Path(self.name).name
        words = re.sub(r"[^A-Za-z0-9.-]+", "_", known)[:_NAME_LENGTH].strip("._") or "server"
        return f"{words}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}.textproto"


def parse(given: str) -> Server:
    """The server that a flag names.

    Raises:
        RecastError: INVALID_FLAG if it is empty, no text, or a URL that is no base URL.
    """
    if not given:
        raise _invalid(f"--server is empty; it is {EMBEDDED}, a local path, or the base URL of a server.")
    if not _is_text(given):
        raise _invalid("--server is no UTF-8, and a cache could not name it.")
    if given == EMBEDDED:
        return Server(Kind.EMBEDDED, EMBEDDED)
    if not _SCHEME.match(given):
        # Path.resolve would end at links in a circle, which are told where the file is read.
        return Server(Kind.LOCAL, os.path.realpath(given))
    return Server(Kind.REMOTE, _base_url(given))


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL; raises ValueError where it has none that the web knows."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError("no http(s) URL")
    return parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme]


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine by its name or number alone."""
    host = origin_of(url)[1]
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_text(given: str) -> bool:
    """Whether Python read an argument as it stands: bytes that are no UTF-8 become surrogates."""
    try:
        given.encode()
    except UnicodeEncodeError:
        return False
    return True


def _base_url(given: str) -> str:
    # The reasons do not quote the URL: it may hold a password.
    try:
        parts = urlsplit(given)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except ValueError:
        raise _invalid("--server is no URL that can be read.") from None
    if parts.scheme not in _PORTS:
        raise _invalid(f"--server has the scheme {parts.scheme}://; a server is reached by https:// or http://.")
    faults = [name for name, given in _unwanted(parts) if given]
    if faults:
        raise _invalid(f"--server is a base URL, which has no {' and no '.join(faults)}.")
    shown = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/")
    if not _HOST.fullmatch(shown) or not _PATH.fullmatch(path):
        raise _invalid("--server is no URL that can be read.")
    explicit = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{shown}{explicit}{path}"


def _unwanted(parts: SplitResult) -> tuple[tuple[str, bool], ...]:
    return (
        ("user name or password", "@" in parts.netloc),
        ("query", bool(parts.query)),
        ("fragment", bool(parts.fragment)),
    )


def _invalid(reason: str) -> RecastError:
    suggestion = f"Give {EMBEDDED}, a local path, or a base URL such as https://models.example.com."
    return RecastError.of("INVALID_FLAG", reason, subject="--server", suggestion=suggestion)
