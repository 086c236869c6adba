"""A booru's server over HTTP: polite, patient with what passes, and quick to stop at what does not.

What a site calls its paths and fields, and what its refusals mean, is said by the module of that site.

    python simple_dan_crawl.py --target-count 1
"""

import email.utils
import json
import re
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tagger.cli import VERSION
from tagger.files import UserError
from tagger.proxies import make_client, proxies_set

# A name of our own: boorus refuse those of HTTP libraries and of browsers.
USER_AGENT = f"eva02-tagger-toolkit/{VERSION}"
BURST = 10  # requests that may go out at once after a pause

TRIES = 4  # of an API request; 1 + 2 + 4 seconds of patience
FILE_TRIES = 3  # of a file
THROTTLE_TRIES = 8  # answers of 429 in a row
BACKOFF = 1.0  # seconds, doubled at each try
LONGEST_PAUSE = 600.0  # seconds; a server that asks for a longer one ends the run
TRANSIENT = frozenset({500, 502, 503, 504, 520, 521, 522, 523, 524})  # 52x are Cloudflare's

API_SECONDS = 120.0  # the longest that one answer of the API may take
API_LIMIT = 64 << 20  # bytes of one answer
FILE_LIMIT = 256 << 20  # bytes of one file; Danbooru itself takes uploads up to 100 MB


@dataclass(frozen=True)
class SettingNames:
    """What the settings of a connection are called where a person sets them (flags, say), for errors to name them."""

    base_url: str = "the address"
    rate: str = "the rate"
    login: str = "the login"
    api_key: str = "the API key"
    query: str = "the search"


@dataclass(frozen=True)
class Connection:
    """Which server to talk to, and how.

    Attributes:
        base_url: the site, without a path.
        rate: requests a second over API and files together.
        login, api_key: of an account; sent to the API alone, by Basic auth, never in a URL.
        file_seconds: how long one try at a file may take.
        threads: how many of them will use it at once.
        names: what errors call these settings.
    """

    base_url: str
    rate: float = 1.0
    login: str | None = None
    api_key: str | None = None
    file_seconds: float = 120.0
    threads: int = 8
    names: SettingNames = SettingNames()


def site_address(text: str) -> str:
    """An argparse type: the address of a site, such as https://danbooru.donmai.us."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ArgumentTypeError(f"{text} is no address such as https://danbooru.donmai.us")
    return text.rstrip("/")


def is_within(url: str, domain: str) -> bool:
    """Whether a URL's host is this domain or one below it."""
    host = urlsplit(url).hostname or ""
    return host == domain or host.endswith(f".{domain}")


class Refused(UserError):
    """The server says no, and would say it again: 401, 403, 404, 410, 422. The message has its words and a hint."""

    def __init__(self, url: str, status: int, words: str, hint: str) -> None:
        super().__init__(f"{url}: {words}; {hint}")
        self.status = status


class Unreachable(UserError):
    """The server, or the way to it, did not recover in time."""


class FileFailed(Exception):
    """One file could not be had; the message is the reason."""


class FileGone(FileFailed):
    """The CDN answers 404: the post may have got another file."""


class Stopped(Exception):
    """`Client.stop` was called."""


class _Transient(Exception):
    """This request failed, another may not."""


class Throttle:
    """A token bucket for all threads together: `burst` requests at once, then `rate` a second."""

    def __init__(self, rate: float, burst: int = BURST) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.filled = float(burst), time.monotonic()
        self.requests = 0  # that were let through
        self.paused_until = 0.0
        self.lock = threading.Lock()
        self.stopped = threading.Event()

    def wait(self) -> None:
        """Return when this thread may send one request.

        Raises:
            Stopped: the crawl ends.
        """
        while delay := self._take():
            if self.stopped.wait(delay):
                raise Stopped
        if self.stopped.is_set():
            raise Stopped

    def _take(self) -> float:
        """Take a token and return 0, or return the seconds after which it is worth asking again."""
        with self.lock:
            now = time.monotonic()
            self.tokens = min(self.burst, self.tokens + max(0.0, now - self.filled) * self.rate)
            self.filled = max(self.filled, now)
            delay = max(self.paused_until - now, (1 - self.tokens) / self.rate)
            if delay > 0:
                return delay
            self.tokens -= 1
            self.requests += 1
            return 0.0

    @property
    def floor(self) -> float:
        """Seconds that the requests so far had to take at this rate, however fast the server is."""
        return max(0, self.requests - self.burst) / self.rate

    def pause(self, seconds: float) -> None:
        """Let no thread send anything for so long, also those that wait already, and then begin without a burst."""
        with self.lock:
            self.paused_until = max(self.paused_until, time.monotonic() + seconds)
            self.tokens, self.filled = 1.0, self.paused_until  # tokens gather from the end of the pause


class Client:
    """One server's API, and the files it links to.

    Args:
        hint: what a refused user can do, by the status of the answer; ends the error.
    """

    def __init__(self, connection: Connection, hint: Callable[[int], str]) -> None:
        login, api_key = connection.login, connection.api_key
        self.base_url = connection.base_url.rstrip("/")
        self.names = connection.names
        self.file_seconds = connection.file_seconds
        self._hint = hint
        self.throttle = Throttle(connection.rate)
        headers = {"User-Agent": f"{USER_AGENT} (user {login})" if login else USER_AGENT}
        auth = (login, api_key) if login and api_key else None
        most = connection.threads + 1  # one for the thread that reads the listing
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        self._api = make_client(
            lambda: httpx.Client(headers=headers, auth=auth, follow_redirects=True, timeout=30, limits=limits)
        )
        # Files have a client of their own, so that credentials cannot reach the CDN. They are not compressed on their
        # way, so that the number of bytes that arrived is where a Range request goes on.
        headers["Accept-Encoding"] = "identity"
        self._cdn = make_client(lambda: httpx.Client(headers=headers, follow_redirects=True, timeout=30, limits=limits))

    def stop(self) -> None:
        """End what other threads wait for or download; they raise Stopped."""
        self.throttle.stopped.set()

    # -- API ---------------------------------------------------------------------------------------------------------

    def json(self, path: str, check: Callable[[Any], None], **params: str | int) -> Any:
        """One answer of the API, parsed. Throttling, server errors and broken answers are tried again.

        Args:
            check: raises ValueError, with the reason, for an answer that is not what was asked for.

        Raises:
            Refused: 401, 403, 404, 410, 422 or another no.
            Unreachable: the server did not recover.
        """
        url = self.base_url + path
        for attempt in range(TRIES):
            body = bytearray()
            try:
                response, refusal = self._request(self._api, url, body, API_LIMIT, API_SECONDS, params)
                if not response.is_success:
                    raise self._refused(url, response, refusal)
                answer = _parse(bytes(body))
                check(answer)
                return answer
            except (ValueError, _Transient) as error:
                problem = str(error)
            self._back_off(attempt, TRIES)
        names = " or ".join([self.names.base_url, *proxies_set()])
        raise Unreachable(f"{url}: {problem}, {TRIES} times; run the same command again later, or check {names}")

    # -- files -------------------------------------------------------------------------------------------------------

    def file(self, url: str, check: Callable[[bytes], None]) -> bytes:
        """The bytes of a file, resumed by Range where the connection was cut.

        Args:
            check: raises ValueError, with the reason, for bytes that are not the file; then it starts from nothing.

        Raises:
            FileGone: 404.
            FileFailed: after three tries.
            Refused: 401, or a challenge of Cloudflare's.
            Unreachable: the server throttles without end.
        """
        body = bytearray()
        problem = ""
        for attempt in range(FILE_TRIES):
            try:
                response, refusal = self._request(self._cdn, url, body, FILE_LIMIT, self.file_seconds)
                if response.status_code == 404:
                    raise FileGone("HTTP 404")
                if response.is_success:
                    check(bytes(body))
                    return bytes(body)
                problem = _status_words(response, refusal)
            except ValueError as error:
                problem = str(error)
                body.clear()  # going on from wrong bytes would give wrong bytes again
            except _Transient as error:
                problem = str(error)
            self._back_off(attempt, FILE_TRIES, everyone=False)
        raise FileFailed(problem)

    # -- requests ----------------------------------------------------------------------------------------------------

    def _request(
        self,
        client: httpx.Client,
        url: str,
        body: bytearray,
        limit: int,
        seconds: float,
        params: dict[str, str | int] | None = None,
    ) -> tuple[httpx.Response, bytes]:
        """One request, repeated only while the server answers 429.

        Args:
            body: gets the content of a success; bytes that it holds already are asked for no more (Range).
            limit: the most bytes to take.
            seconds: the longest time to take.

        Returns:
            the response, and the content of one that is no success.

        Raises:
            _Transient: a server error, a broken connection, a timeout; `body` keeps what arrived.
            Refused: 401, or 403 from Cloudflare.
            Unreachable: 429 without end, or with a wait beyond LONGEST_PAUSE.
        """
        for attempt in range(THROTTLE_TRIES):
            self.throttle.wait()
            deadline = time.monotonic() + seconds
            headers = {"Range": f"bytes={len(body)}-"} if body else {}
            refusal = bytearray()
            try:
                with client.stream("GET", url, params=params, headers=headers) as response:
                    status = response.status_code
                    if status in (200, 416) or (status == 206 and not _continues(response, len(body))):
                        body.clear()  # what comes now is the whole file, or nothing that can be joined to the rest
                    if status == 416 or (status == 206 and headers and not body):
                        raise _Transient(f"HTTP {status}: no rest of the file")
                    self._read(response, body if response.is_success else refusal, limit, deadline)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise _Transient(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__) from None
            if status != 429:
                break
            pause = _retry_after(response)
            pause = BACKOFF * 2**attempt if pause is None else pause
            if pause > LONGEST_PAUSE:
                raise Unreachable(f"{url}: the server asks to wait {pause:.0f} s; run the same command again then")
            self.throttle.pause(pause)
        else:
            raise Unreachable(
                f"{url}: HTTP 429, {THROTTLE_TRIES} times; run the same command later, with a lower {self.names.rate}"
            )
        if status in TRANSIENT:
            raise _Transient(_status_words(response, refusal))
        if status == 401 or (status == 403 and "cf-mitigated" in response.headers):
            raise self._refused(url, response, refusal)
        return response, bytes(refusal)

    def _refused(self, url: str, response: httpx.Response, refusal: bytes | bytearray) -> Refused:
        return Refused(url, response.status_code, _status_words(response, refusal), self._hint(response.status_code))

    def _read(self, response: httpx.Response, body: bytearray, limit: int, deadline: float) -> None:
        """Add a response's content to `body`, chunk by chunk: where it breaks off, what arrived is kept."""
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > limit:
                body.clear()
                raise _Transient(f"more than {limit >> 20} MiB")
            if time.monotonic() > deadline:
                raise _Transient("too slow")
            if self.throttle.stopped.is_set():
                raise Stopped

    def _back_off(self, attempt: int, tries: int, everyone: bool = True) -> None:
        """Wait before another try: all threads for an ailing API, this one alone for a file."""
        if attempt == tries - 1:
            return
        seconds = BACKOFF * 2**attempt
        if everyone:
            self.throttle.pause(seconds)
        elif self.throttle.stopped.wait(seconds):
            raise Stopped


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError(f"the answer is no JSON but {body[:40]!r}") from None


def _continues(response: httpx.Response, start: int) -> bool:
    """Whether a partial answer begins at this byte, and not at one that the server chose."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return match is not None and int(match[1]) == start


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds from a Retry-After header: a number, a date, or None where it is absent or neither."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def _status_words(response: httpx.Response, refusal: bytes | bytearray) -> str:
    """The status and what the server says of it: {"error": CLASS, "message": TEXT}, as Danbooru does, or HTML."""
    try:
        answer = json.loads(refusal)
        words = f" {answer['error']}: {answer['message']}"
    except (ValueError, TypeError, KeyError, RecursionError):
        words = (
            " (Cloudflare asks for a browser)" if "cf-mitigated" in response.headers else f" {response.reason_phrase}"
        )
    return f"HTTP {response.status_code}{words}".rstrip()
