"""Proxies and certificates of the environment: SOCKS works, and what cannot be used is named.

python -m pytest tests/test_proxies.py
"""

import socket
import socketserver
import struct
import threading
from collections.abc import Iterator

import httpx
import pytest

from examples.sample_booru.booru import SampleBooru
from examples.sample_booru.server import start
from tagger.files import UserError
from tagger.proxies import make_client

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Socks5(socketserver.BaseRequestHandler):
    """As much of RFC 1928 as a client needs: no authentication, CONNECT to a name or an IPv4 address."""

    connections = 0

    def handle(self) -> None:
        _, methods = struct.unpack("!BB", self.request.recv(2))
        self.request.recv(methods)
        self.request.sendall(b"\x05\x00")
        _, _, _, kind = struct.unpack("!BBBB", self.request.recv(4))
        host = (
            socket.inet_ntoa(self.request.recv(4)) if kind == 1 else self.request.recv(self.request.recv(1)[0]).decode()
        )
        (port,) = struct.unpack("!H", self.request.recv(2))
        type(self).connections += 1
        with socket.create_connection((host, port)) as upstream:
            self.request.sendall(b"\x05\x00\x00\x01" + bytes(6))
            back = threading.Thread(target=self.pump, args=(upstream, self.request), daemon=True)
            back.start()
            self.pump(self.request, upstream)
            back.join(timeout=5)

    @staticmethod
    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass


@pytest.fixture
def socks() -> Iterator[str]:
    """The address of a SOCKS proxy on this machine."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Socks5) as server:
        server.daemon_threads = True
        Socks5.connections = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(scope="module")
def booru() -> Iterator[SampleBooru]:
    server, booru = start(posts=3)
    yield booru
    server.shutdown()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
def test_a_socks_proxy_is_used(booru: SampleBooru, socks: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://{socks}")
    with make_client(lambda: httpx.Client(headers={"User-Agent": "toolkit"})) as client:
        assert client.get(f"{booru.base_url}/posts.json").status_code == 200
    assert Socks5.connections == 1


@pytest.mark.parametrize("exceptions", ["localhost,127.0.0.1", "[::1],127.0.0.1", "*"])
def test_what_no_proxy_excepts_goes_without(
    booru: SampleBooru, socks: str, exceptions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"socks5://{socks}")
    monkeypatch.setenv("NO_PROXY", exceptions)
    with make_client(lambda: httpx.Client(headers={"User-Agent": "toolkit"})) as client:
        assert client.get(f"{booru.base_url}/posts.json").status_code == 200
    assert Socks5.connections == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks4://127.0.0.1:9"),
        ("all_proxy", "gopher://127.0.0.1:9"),
        ("HTTPS_PROXY", "ftp://127.0.0.1:9"),
        ("SSL_CERT_FILE", "/nowhere/certificates.pem"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name}=.*correct this environment variable, or unset it"):
        make_client(httpx.Client)


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "[::1]")
    make_client(httpx.Client).close()
    import os

    assert (os.environ["ALL_PROXY"], os.environ["NO_PROXY"]) == ("socks://127.0.0.1:9", "[::1]")


def test_httpx_itself_still_refuses_what_is_respelt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the respelling has become needless."""
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:9")
    with pytest.raises(ValueError, match="Unknown scheme"):
        httpx.Client()
