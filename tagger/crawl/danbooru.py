"""Danbooru's API and CDN over HTTP: polite, patient with what passes, and quick to stop at what does not.

simple_dan_crawl.py and generate_selected_tags.py share it. Facts about the server are from Danbooru's source.

    python -c "import danbooru as d; print(d.Client('https://danbooru.donmai.us').json('/tags.json', limit=1))"
"""

import email.utils
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx

from tagger.cli import ArgumentParser, ArgumentTypeError, positive_float
from tagger.files import UserError

VERSION = "0.1"
# Danbooru asks for a name of one's own, and refuses those of HTTP libraries and of browsers.
USER_AGENT = f"eva02-tagger-toolkit/{VERSION}"
DANBOORU = "https://danbooru.donmai.us"
DANBOORU_RATE = 10.0  # requests a second at the most, says its help page; about 1 for long runs
BURST = 10  # requests that may go out at once after a pause

TRIES = 4  # of an API request; 1 + 2 + 4 seconds of patience
FILE_TRIES = 3  # of a file
THROTTLE_TRIES = 8  # answers of 429 in a row
BACKOFF = 1.0  # seconds, doubled at each try
LONGEST_PAUSE = 600.0  # seconds; a server that asks for more is told of, not waited for
TRANSIENT = frozenset({500, 502, 503, 504, 520, 521, 522, 523, 524})  # 52x are Cloudflare's

API_LIMIT = 64 << 20  # bytes of one answer
FILE_LIMIT = 256 << 20  # bytes of one file; Danbooru itself takes uploads up to 100 MB


class Refused(UserError):
    """The server says no, and would say it again: 401, 403, 404, 410, 422. The message has its words and a hint."""

    def __init__(self, url: str, response: httpx.Response, said: bytes | bytearray) -> None:
        super().__init__(f"{url}: {_words(response, said)}; {_hint(response.status_code)}")
        self.status = response.status_code


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
            return 0.0

    def pause(self, seconds: float) -> None:
        """Let no thread send anything for so long, also those that wait already, and then begin without a burst."""
        with self.lock:
            self.paused_until = max(self.paused_until, time.monotonic() + seconds)
            self.tokens, self.filled = 1.0, self.paused_until  # tokens gather from the end of the pause


class Client:
    """One server's API, and the files it links to.

    Args:
        base_url: the site, without a path.
        rate: requests a second over API and files together.
        login, api_key: of an account; sent to the API alone, by Basic auth, never in a URL.
        file_seconds: how long one try at a file may take.
    """

    def __init__(
        self,
        base_url: str = DANBOORU,
        *,
        rate: float = 1.0,
        login: str | None = None,
        api_key: str | None = None,
        file_seconds: float = 120.0,
        connections: int = 10,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.file_seconds = file_seconds
        self.throttle = Throttle(rate)
        headers = {"User-Agent": f"{USER_AGENT} (user {login})" if login else USER_AGENT}
        auth = (login, api_key) if login and api_key else None
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._api = httpx.Client(headers=headers, auth=auth, follow_redirects=True, timeout=30, limits=limits)
        # A client of its own, so that credentials cannot reach the CDN; bytes as they lie there, so that Range fits.
        headers["Accept-Encoding"] = "identity"
        self._cdn = httpx.Client(headers=headers, follow_redirects=True, timeout=30, limits=limits)

    def stop(self) -> None:
        """End what other threads wait for or download; they raise Stopped."""
        self.throttle.stopped.set()

    # -- API ---------------------------------------------------------------------------------------------------------

    def json(self, path: str, **params: str | int) -> Any:
        """One answer of the API, parsed. Throttling, server errors and broken answers are tried again.

        Raises:
            Refused: 401, 403, 404, 410, 422 or another no.
            Unreachable: the server did not recover.
        """
        url = self.base_url + path
        for attempt in range(TRIES):
            body = bytearray()
            try:
                response, said = self._request(self._api, url, body, API_LIMIT, 120.0, params)
                if not response.is_success:
                    raise Refused(url, response, said)
                return json.loads(bytes(body))
            except (ValueError, RecursionError):
                problem = f"the answer is no JSON but {bytes(body[:40])!r}"
            except _Transient as error:
                problem = str(error)
            self._back_off(attempt, TRIES)
        raise Unreachable(f"{url}: {problem}, {TRIES} times; run the same command again later, or check --base-url")

    def pages(self, path: str, position: str = "", **params: str | int) -> Iterator[list[dict[str, Any]]]:
        """The pages of a listing, from `position` on: "" or "b<id>" newest first, "a<id>" towards the newest.

        Numbered pages end at 1000; these have no end but an empty page: a short one may be followed by more. Within
        every page rows are newest first.

        Raises:
            Refused, Unreachable: see `json`.
        """
        ascending = position.startswith("a")
        while page := self._page(path, position, params):
            yield page
            ids = [row["id"] for row in page]
            position = f"a{max(ids)}" if ascending else f"b{min(ids)}"

    def _page(self, path: str, position: str, params: dict[str, str | int]) -> list[dict[str, Any]]:
        given = {**params, "page": position} if position else params
        for attempt in range(TRIES):
            page = self.json(path, **given)
            if isinstance(page, list) and all(isinstance(row, dict) and isinstance(row.get("id"), int) for row in page):
                return page
            self._back_off(attempt, TRIES)
        raise Unreachable(f"{self.base_url}{path}: no list of rows with ids; is --base-url a Danbooru?")

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
                response, said = self._request(self._cdn, url, body, FILE_LIMIT, self.file_seconds)
                if response.status_code == 404:
                    raise FileGone("HTTP 404")
                if response.is_success:
                    check(bytes(body))
                    return bytes(body)
                problem = _words(response, said)
            except ValueError as error:
                problem = str(error)
                body.clear()
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
            said = bytearray()
            try:
                with client.stream("GET", url, params=params, headers=headers) as response:
                    status = response.status_code
                    if status in (200, 416) or (status == 206 and not _continues(response, len(body))):
                        body.clear()  # from the start again
                    if status == 416 or (status == 206 and headers and not body):
                        raise _Transient(f"HTTP {status}: no rest of the file")
                    self._read(response, body if response.is_success else said, limit, deadline)
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
                f"{url}: HTTP 429, {THROTTLE_TRIES} times; run the same command later, with a lower --rate"
            )
        if status in TRANSIENT:
            raise _Transient(_words(response, said))
        if status == 401 or (status == 403 and "cf-mitigated" in response.headers):
            raise Refused(url, response, said)
        return response, bytes(said)

    def _read(self, response: httpx.Response, body: bytearray, limit: int, deadline: float) -> None:
        """Add a response's content to `body`, chunk by chunk, so that nothing of it is lost where it breaks off."""
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


def _continues(response: httpx.Response, start: int) -> bool:
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


def _words(response: httpx.Response, said: bytes | bytearray) -> str:
    """What the server says of its status: {"success":false,"error":CLASS,"message":TEXT}, or HTML."""
    try:
        answer = json.loads(said)
        words = f" {answer['error']}: {answer['message']}"
    except (ValueError, TypeError, KeyError):
        words = (
            " (Cloudflare asks for a browser)" if "cf-mitigated" in response.headers else f" {response.reason_phrase}"
        )
    return f"HTTP {response.status_code}{words}".rstrip()


def _hint(status: int) -> str:
    return {
        401: "check --login and --api-key (DANBOORU_LOGIN, DANBOORU_API_KEY)",
        403: "the site refuses this client or your network: try without a VPN or later, or log in with --login",
        404: "check --base-url",
        410: "check --tags",
        422: "use fewer tags in --tags (two without a paid account), or log in with --login",
    }.get(status, "check --tags and --base-url")


# --- flags that both scripts have -----------------------------------------------------------------------------------


def add_arguments(parser: ArgumentParser) -> None:
    """The flags of a connection: --base-url, --rate, --login, --api-key."""
    group = parser.add_argument_group("connection")
    group.add_argument("--base-url", type=_site, default=DANBOORU, help="(default: %(default)s)")
    group.add_argument(
        "--rate",
        type=positive_float,
        default=1.0,
        help=f"requests a second after a burst of {BURST}; at most {DANBOORU_RATE:.0f} for Danbooru itself "
        "(default: %(default)s)",
    )
    group.add_argument("--login", help="Danbooru user name (default: the variable DANBOORU_LOGIN)")
    group.add_argument(
        "--api-key",
        help="of your Danbooru profile; better set the variable DANBOORU_API_KEY, which no process list shows",
    )


def connect(arguments: Any, **options: Any) -> Client:
    """A client from these flags.

    Raises:
        UserError: a rate that Danbooru does not allow, or half of a login.
    """
    host = urlsplit(arguments.base_url).hostname or ""
    if arguments.rate > DANBOORU_RATE and (host == "donmai.us" or host.endswith(".donmai.us")):
        raise UserError(f"--rate {arguments.rate:g}: Danbooru allows {DANBOORU_RATE:.0f} a second; pass less")
    login = arguments.login or os.environ.get("DANBOORU_LOGIN")
    api_key = arguments.api_key or os.environ.get("DANBOORU_API_KEY")
    if bool(login) != bool(api_key):
        raise UserError(f"{'--api-key' if login else '--login'}: missing; a login is both, a name and a key")
    if login and not (login + (api_key or "")).isascii():
        raise UserError("--login: only ASCII can be sent; copy name and key from your Danbooru profile")
    return Client(arguments.base_url, rate=arguments.rate, login=login, api_key=api_key, **options)


def _site(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ArgumentTypeError(f"{text} is no address such as {DANBOORU}")
    return text.rstrip("/")
