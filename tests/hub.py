"""A hub of one's own: folders served as huggingface_hub's client asks for repositories.

from tests.hub import FakeHub
with FakeHub({"owner/name": folder}).used(monkeypatch, tmp_path / "cache") as hub: ...
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Repositories by name.

    Args:
        folders: what lies in each; revisions are "main" and COMMIT.
        gated: names of those that want a token.

    Attributes:
        fetched: what was downloaded, as "owner/name/file", in its order.
    """

    def __init__(self, folders: Mapping[str, Path], gated: tuple[str, ...] = ()) -> None:
        self.folders, self.gated = dict(folders), gated
        self.fetched: list[str] = []

    @contextlib.contextmanager
    def used(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator["FakeHub"]:
        """Serve, and make huggingface_hub ask here and keep its files in a cache of its own."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_HEAD(self) -> None:
                hub.answer(self)

            def do_GET(self) -> None:
                hub.answer(self)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """What the hub's API and its files' addresses say."""
        parts = unquote(urlsplit(request.path).path).strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        revision = (parts[5:6] if api else parts[3:4]) or ["main"]
        headers: dict[str, str] = {"X-Repo-Commit": COMMIT}
        if name not in self.folders:
            self._send(request, 404, b"", headers | {"X-Error-Code": "RepoNotFound"})
        elif revision[0] not in ("main", COMMIT):
            self._send(request, 404, b"", headers | {"X-Error-Code": "RevisionNotFound"})
        elif api:
            paths = sorted(path for path in self.folders[name].rglob("*") if path.is_file())
            siblings = [{"rfilename": path.relative_to(self.folders[name]).as_posix()} for path in paths]
            self._send(request, 200, json.dumps({"id": name, "sha": COMMIT, "siblings": siblings}).encode(), headers)
        elif name in self.gated:
            self._send(request, 403, b"", headers | {"X-Error-Code": "GatedRepo"})
        else:
            self._send_file(request, name, "/".join(parts[4:]), headers)

    def _send_file(self, request: BaseHTTPRequestHandler, name: str, file: str, headers: dict[str, str]) -> None:
        path = self.folders[name] / file
        if not path.is_file():
            self._send(request, 404, b"", headers | {"X-Error-Code": "EntryNotFound"})
            return
        data = path.read_bytes()
        if request.command == "GET":
            self.fetched.append(f"{name}/{file}")
        self._send(request, 200, data, headers | {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    @staticmethod
    def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body)), "Connection": "close"}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)
