"""One catalogue from a server: within a time, a size and a number of attempts, and never with a key in the open."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import http.client
import queue
import random
import re
import ssl
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from converters.serving import servers
from converters.serving.api_key import ApiKey
from reporting import version
from reporting.diagnostics import Diagnostic, RecastError

if TYPE_CHECKING:
    import requests

LIMIT = 4_000_000
"""Bytes beyond which an answer is refused: ten times those of the embedded catalogue."""

_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_FOLLOWED = 5
_PIECE = 65_536
# Python refuses to read a number of thousands of digits.
_MOST_DIGITS = 18
_ETAG = re.compile(r'(?:W/)?"[!#-~]{0,200}"')


@dataclasses.dataclass(frozen=True)
class Policy:
    """How patient a download is.

    Attributes:
        attempts: how often a request is made before a server counts as unreachable.
        connect: seconds until a connection stands.
        silence: seconds in which at least one byte has to come.
        attempt: seconds that one attempt may last, whatever comes.
        pause: seconds before the second attempt; twice as many before each later one, and up to half as many more.
        longest_pause: seconds that a server may ask for with Retry-After.
    """

    attempts: int = 5
    connect: float = 10.0
    silence: float = 30.0
    attempt: float = 180.0
    pause: float = 0.5
    longest_pause: float = 30.0


POLICY = Policy()


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a server gave.

    Attributes:
        content: the catalogue's bytes; None if the server says that those of the ETag are current.
        etag: the server's name for them, "" if it gave none.
    """

    content: bytes | None
    etag: str


class _Passing(Exception):
    """A fault that another attempt may not meet.

    Attributes:
        id: of the error, should no attempt succeed.
        wait: seconds that the server asks for.
    """

    def __init__(self, why: str, *, id: str = "SERVER_UNREACHABLE", wait: float = 0.0):
        super().__init__(why)
        self.id = id
        self.wait = wait


def fetch(url: str, key: ApiKey | None = None, etag: str = "", policy: Policy | None = None) -> Answer:
    """Gets what a URL holds.

    Args:
        url: of the catalogue.
        key: goes to this URL's origin only, and over TLS or within this machine only.
        etag: of what is kept already; "", or what is none, to get the content in any case.
        policy: how patient to be; POLICY if None.

    Raises:
        RecastError: API_KEY_NOT_SENT, SERVER_UNREACHABLE, SERVER_NOT_TRUSTED, SERVER_REFUSED, SERVER_REDIRECTED or
            SERVER_ANSWER_INVALID.
    """
    patience = policy or POLICY
    if key is not None and not url.startswith("https://") and not servers.is_loopback(url):
        reason = "The connection to the server would not be encrypted, and the request carries a key."
        raise RecastError.of("API_KEY_NOT_SENT", reason, subject=url)
    # What a file of a cache says goes into a header.
    named = etag if _ETAG.fullmatch(etag) else ""
    pause = patience.pause
    for attempt in range(1, patience.attempts + 1):
        try:
            return _within(patience, url, key, named)
        except _Passing as fault:
            if attempt == patience.attempts:
                reason = f"{fault} Attempts: {attempt}."
                raise RecastError([Diagnostic(fault.id, reason, subject=url)]) from None
            time.sleep(max(min(fault.wait, patience.longest_pause), pause * random.uniform(1, 1.5)))
            pause *= 2
    raise AssertionError("a policy has at least one attempt")


def _within(patience: Policy, url: str, key: ApiKey | None, etag: str) -> Answer:
    """One attempt.

    It runs in a thread of its own, since no timeout of a socket ends one whose bytes come one by one, nor the search
    for a name. A thread that is given up ends with the process, or by the timeouts of its socket.
    """
    ended: queue.Queue[Answer | Exception] = queue.Queue(1)

    def run() -> None:
        try:
            ended.put(_attempt(patience, url, key, etag))
        except Exception as error:
            ended.put(error)

    threading.Thread(target=run, daemon=True, name="catalogue").start()
    try:
        result = ended.get(timeout=patience.attempt)
    except queue.Empty:
        raise _Passing(f"The answer was not there after {patience.attempt:g} seconds.") from None
    if isinstance(result, Answer):
        return result
    raise result


def _attempt(patience: Policy, url: str, key: ApiKey | None, etag: str) -> Answer:
    import requests
    import urllib3

    try:
        with requests.Session() as session:
            response = _asked(session, patience, url, key, etag)
            with response:
                return _answer(response, url, etag)
    except (
        requests.RequestException,
        urllib3.exceptions.HTTPError,
        http.client.HTTPException,
        OSError,
        # Of a size that is negative, or an address that is no text: the libraries do not name these faults.
        ValueError,
    ) as error:
        chain = _chain(error)
        if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
            raise _untrusted(chain, url) from None
        if type(error) is OSError and error.errno is None:
            # Of requests, before anything was sent: REQUESTS_CA_BUNDLE names nothing.
            reason = (
                "The certificates that the environment names in REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE are not there."
            )
            raise RecastError.of("SERVER_NOT_TRUSTED", reason, subject=url) from None
        raise _Passing(f"The catalogue could not be fetched: {_why(chain)}.") from None


def _asked(session: requests.Session, patience: Policy, url: str, key: ApiKey | None, etag: str) -> requests.Response:
    """The response to a request, with redirects followed as far as they may be; its body is not read yet."""
    headers = {
        "Accept": "text/plain",
        "Accept-Encoding": "identity",
        "User-Agent": f"recast/{version.VERSION}",
        **({"If-None-Match": etag} if etag else {}),
    }

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        # Also without a key: otherwise passwords of ~/.netrc would be sent.
        if key is not None:
            request.headers["Authorization"] = key.header
        return request

    here = url
    for _ in range(_REDIRECTS_FOLLOWED + 1):
        # What goes to this machine in the open must not take the way over a proxy.
        session.trust_env = here.startswith("https://") or not servers.is_loopback(here)
        response = session.get(
            here,
            headers=headers,
            auth=authorize,
            stream=True,
            allow_redirects=False,
            timeout=(patience.connect, patience.silence),
        )
        if response.status_code not in _REDIRECTS:
            return response
        response.close()
        here = _redirected(here, response.headers.get("Location", ""), key)
    raise _redirection(url, f"The server redirects more than {_REDIRECTS_FOLLOWED} times.")


def _redirected(here: str, location: str, key: ApiKey | None) -> str:
    """Where a redirect leads, if the request may go there."""
    try:
        there = urljoin(here, location).partition("#")[0]
        old, new = servers.origin_of(here), servers.origin_of(there)
    except ValueError:
        raise _redirection(here, "The server redirects to something that is no http(s) URL.") from None
    shown = f"{new[0]}://{new[1]}:{new[2]}"
    if old[0] == "https" and new[0] != "https":
        raise _redirection(here, f"The server redirects to {shown}, which is not encrypted.")
    if key is not None and new != old:
        raise _redirection(here, f"The server redirects to {shown}, and the key is for {old[1]} alone.")
    if not location:
        raise _redirection(here, "The server redirects without saying where.")
    return there


def _answer(response: requests.Response, url: str, etag: str) -> Answer:
    status = response.status_code
    if status == 304 and etag:
        return Answer(None, etag)
    if status in _AGAIN:
        raise _Passing(f"The server answers {_status(response)}.", wait=_seconds(response.headers.get("Retry-After")))
    if status in (401, 403):
        suggestion = "Name a key that this server accepts by --api_key_file or --api_key_env."
        raise RecastError.of(
            "SERVER_REFUSED", f"The server answers {_status(response)}.", subject=url, suggestion=suggestion
        )
    if status >= 400:
        raise RecastError.of("SERVER_REFUSED", f"The server answers {_status(response)}.", subject=url)
    if status != 200:
        raise _invalid(url, f"The server answers {_status(response)}, which fits no such request.")
    named = response.headers.get("ETag", "")
    content = _body(response, url)
    _check_digest(content, response.headers.get("Repr-Digest", ""))
    return Answer(content, named if _ETAG.fullmatch(named) else "")


def _body(response: requests.Response, url: str) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise _invalid(url, "The server sends its answer encoded, which was not asked for.")
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and (len(announced) > _MOST_DIGITS or int(announced) > LIMIT):
        raise _invalid(url, f"The answer is {announced[:_MOST_DIGITS]} bytes long; a catalogue has at most {LIMIT}.")
    if not announced.isdecimal() and "chunked" not in response.headers.get("Transfer-Encoding", "").lower():
        # A header that broke off looks like a whole one whose body ends with the connection.
        raise _Passing("The answer does not say how long it is, or broke off in its header.")
    content = bytearray()
    for piece in response.iter_content(_PIECE):
        content += piece
        if len(content) > LIMIT:
            raise _invalid(url, f"The answer is longer than {LIMIT} bytes, which a catalogue has at most.")
    if announced.isdecimal() and len(content) != int(announced):
        raise _Passing(f"The answer broke off after {len(content)} of {announced} bytes.")
    return bytes(content)


def _check_digest(content: bytes, stated: str) -> None:
    """Holds an answer against its Repr-Digest (RFC 9530), if that has a digest of the kind that is known."""
    match = re.search(r"(?:^|[,\s])sha-256=:([A-Za-z0-9+/=]+):", stated)
    if match is None:
        return
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    if match[1] != digest:
        why = f"What arrived is not what the server's digest says: sha-256 {digest} instead of {match[1][:44]}."
        raise _Passing(why, id="SERVER_ANSWER_INVALID")


def _chain(error: BaseException) -> list[BaseException]:
    """An error and all that it hides, outermost first."""
    chain: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        link = todo.pop(0)
        if isinstance(link, BaseException) and not any(link is known for known in chain):
            chain.append(link)
            todo += [*link.args, getattr(link, "reason", None), link.__cause__, link.__context__]
    return chain


def _why(chain: list[BaseException]) -> str:
    """The reason of a failed attempt, without URLs, which may be those of a proxy with a password."""
    import requests

    if any(isinstance(link, requests.exceptions.ProxyError) for link in chain):
        return "the proxy that the environment names refuses, or cannot be reached"
    if any(isinstance(link, requests.exceptions.ConnectTimeout) for link in chain):
        return "no connection in time"
    if any(isinstance(link, (requests.exceptions.Timeout, TimeoutError)) for link in chain):
        return "no answer in time"
    said = [link.strerror for link in chain if isinstance(link, OSError) and isinstance(link.strerror, str)]
    if said:
        return said[-1].splitlines()[0]
    if any(isinstance(link, (http.client.IncompleteRead, requests.exceptions.ChunkedEncodingError)) for link in chain):
        return "it broke off in the middle of its answer"
    if any(isinstance(link, http.client.RemoteDisconnected) for link in chain):
        return "it closed the connection without an answer"
    return f"its answer is no HTTP ({type(chain[-1]).__name__})"


def _untrusted(chain: list[BaseException], url: str) -> RecastError:
    said = next(link.verify_message for link in chain if isinstance(link, ssl.SSLCertVerificationError))
    return RecastError.of("SERVER_NOT_TRUSTED", f"The server's certificate is not accepted: {said}.", subject=url)


def _redirection(url: str, reason: str) -> RecastError:
    return RecastError.of("SERVER_REDIRECTED", reason, subject=url)


def _invalid(url: str, reason: str) -> RecastError:
    return RecastError.of("SERVER_ANSWER_INVALID", reason, subject=url)


def _status(response: requests.Response) -> str:
    phrase = http.client.responses.get(response.status_code, "")
    return f"{response.status_code} {phrase}".strip()


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdecimal() and len(text) < 6 else 0.0
