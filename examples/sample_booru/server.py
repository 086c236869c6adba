"""A local server that speaks as much of Danbooru's API as a crawler needs, over drawn posts.

    python -m examples.sample_booru serve --port 8766 --posts 60

It keeps to what a client can observe of Danbooru: fields, paging, limits, error bodies, and whom it turns away. The
CDN's files are under /original/, thumbnails are made when they are asked for.
"""

import base64
import binascii
import json
import multiprocessing
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tqdm import tqdm

from examples.sample_booru.booru import ApiError, SampleBooru
from examples.sample_booru.drawing import Post, draw_post

UNWELCOME_AGENTS = ("python-", "Python", "Mozilla", "curl", "okhttp")
MANY = 200  # posts; drawing more is shared among all cores


class Server(ThreadingHTTPServer):
    """Knows the booru that its handlers speak for."""

    daemon_threads = True
    request_queue_size = 128
    booru: SampleBooru
    latency = 0.0  # seconds before every answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless the client merely hung up."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection. `send_body` and `send_json` also serve those who intercept."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave in one piece
    server: Server

    def do_GET(self) -> None:
        booru = self.server.booru
        url = urlsplit(self.path)
        params = dict(parse_qsl(url.query, keep_blank_values=True))
        with booru.lock:
            booru.log.append((time.monotonic(), url.path, params, dict(self.headers)))
        time.sleep(self.server.latency)
        agent = self.headers.get("User-Agent", "")
        try:
            if booru.intercept(self, url.path, params):
                return
            if not agent or agent.startswith(UNWELCOME_AGENTS):
                challenge = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head></html>"
                self.send_body(403, challenge, "text/html", {"cf-mitigated": "challenge", "Server": "cloudflare"})
            elif url.path.endswith(".json"):
                self.send_json(200, booru.answer(url.path, params, self.user(params)))
            else:
                self.send_file(*booru.file(url.path))
        except ApiError as error:
            self.send_json(error.status, error.body)

    def user(self, params: Mapping[str, str]) -> str | None:
        """The account of this request, by Basic auth or by parameters; None is an anonymous one.

        Raises:
            ApiError: 401, the key is wrong.
        """
        login, key = params.get("login"), params.get("api_key")
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            try:
                login, _, key = base64.b64decode(credentials).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                login, key = "", None
        if login is not None and (key is None or self.server.booru.users.get(login) != key):
            raise ApiError(401, "SessionLoader::AuthenticationFailure", "Invalid API key")
        return login

    def send_json(self, status: int, value: Any) -> None:
        self.send_body(status, json.dumps(value, ensure_ascii=False).encode(), "application/json; charset=utf-8")

    def send_file(self, body: bytes, content_type: str) -> None:
        """The file, or the part of it that `Range: bytes=FROM-[TO]` asks for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            return self.send_body(200, body, content_type, {"Accept-Ranges": "bytes"})
        first = int(match[1])
        part = body[first : int(match[2]) + 1 if match[2] else None]
        if not part:
            return self.send_body(416, b"", content_type, {"Content-Range": f"bytes */{len(body)}"})
        content_range = f"bytes {first}-{first + len(part) - 1}/{len(body)}"
        return self.send_body(206, part, content_type, {"Content-Range": content_range})

    def send_body(self, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        lengths = {"Content-Type": content_type, "Content-Length": str(len(body))}
        for name, value in {**lengths, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def version_string(self) -> str:
        return "sample-booru"

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are in `booru.log`, not on stderr."""


def draw_posts(numbers: Sequence[int]) -> list[Post]:
    """The posts of these numbers. A listing names every file's MD5, so they are all drawn before it is served."""
    if len(numbers) <= MANY:
        return [draw_post(number) for number in numbers]
    # Fresh processes, for forking one that may hold threads and a GPU is asking for a deadlock.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        drawn = pool.map(draw_post, numbers, chunksize=25)
        return list(tqdm(drawn, "drawing", len(numbers), unit="post", dynamic_ncols=True))


def start(
    posts: int = 60, first: int = 0, port: int = 0, latency: float = 0.0, booru_class: type[SampleBooru] = SampleBooru
) -> tuple[Server, SampleBooru]:
    """Serve the posts of `first`, `first` + 1, … from a daemon thread; `server.shutdown()` ends it.

    Args:
        port: 0 takes any that is free; `booru.base_url` tells which.
        latency: seconds before every answer.
    """
    drawn = draw_posts(range(first, first + posts))
    server = Server(("127.0.0.1", port), Handler)
    server.latency = latency
    server.booru = booru_class(drawn, f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.booru
