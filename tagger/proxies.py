"""HTTP clients built from what the environment says of proxies and certificates, and an error that names the variable.

    ALL_PROXY=socks5://127.0.0.1:1080 python simple_dan_crawl.py

httpx, which the hub's library is built on as well, reads HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE
and SSL_CERT_DIR by itself. Two spellings that other programs take it does not: `socks://`, which desktops write, and
addresses in brackets in NO_PROXY. Imported here it is not, for who has the hub's library may have no httpx.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from tagger.files import UserError

Client = TypeVar("Client")

PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def make_client(make: Callable[[], Client]) -> Client:
    """What `make` returns, an HTTP client that keeps to the environment.

    Raises:
        UserError: a variable's value cannot be used; the message names the variable.
    """
    with _respelt():
        try:
            return make()
        except Exception as error:  # ValueError, ImportError, OSError, ssl.SSLError: whatever a value makes of it
            raise UserError(_blame(error, make)) from None


def proxies_set() -> list[str]:
    """The variables that name a proxy, for an error of a server that cannot be reached."""
    return [name for name, value in os.environ.items() if name.upper() in PROXIES and value]


@contextlib.contextmanager
def _respelt() -> Iterator[None]:
    """The environment in the spellings that httpx takes; as it was afterwards."""
    changed: dict[str, str] = {}
    for name, value in os.environ.items():
        if name.upper() in PROXIES and value.startswith("socks://"):
            changed[name] = value.replace("socks://", "socks5://", 1)
        elif name.upper() == "NO_PROXY":
            changed[name] = re.sub(r"\[([0-9A-Fa-f:.]+)\]", r"\1", value)
    before = {name: os.environ[name] for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        os.environ.update(before)


def _blame(error: Exception, make: Callable[[], object]) -> str:
    """Which variable an error comes from: the first without which a client can be built."""
    reason = " ".join(str(error).split()) or type(error).__name__
    there = [name for name in os.environ if name.upper() in (*PROXIES, *CERTIFICATES, "NO_PROXY")]
    for name in there:
        value = os.environ.pop(name)
        try:
            make()
            return f"{name}={value}: {reason}; correct this environment variable, or unset it"
        except Exception:
            continue
        finally:
            os.environ[name] = value
    variables = ", ".join(there) or "proxies and certificates"
    return f"{variables}: {reason}; correct these settings of the environment"
