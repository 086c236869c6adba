"""client.py: the rate of requests, and what needs no server. What a server can do wrong: test_simple_dan_crawl.py.

python -m pytest tests/crawl/test_client.py
"""

import argparse
import threading
import time

import httpx
import pytest

from tagger.crawl import client
from tagger.crawl.client import Client, Connection, Refused, SettingNames, Stopped, Throttle, is_within, site_address


def test_a_burst_and_then_the_rate() -> None:
    throttle = Throttle(rate=50, burst=5)
    started = time.monotonic()
    for _ in range(5):
        throttle.wait()
    assert time.monotonic() - started < 4 / 50  # as long as five at that rate would take
    for _ in range(5):
        throttle.wait()
    assert time.monotonic() - started >= 5 / 50 - 0.001


def test_a_pause_holds_for_all_and_no_burst_follows_it() -> None:
    throttle = Throttle(rate=50, burst=5)
    throttle.pause(0.1)
    started = time.monotonic()
    for _ in range(3):
        throttle.wait()
    assert time.monotonic() - started >= 0.1 + 2 / 50 - 0.001


def test_a_shorter_pause_does_not_shorten_a_longer_one() -> None:
    throttle = Throttle(rate=1000)
    throttle.pause(0.1)
    throttle.pause(0.01)
    started = time.monotonic()
    throttle.wait()
    assert time.monotonic() - started >= 0.09


def test_who_waits_is_woken_by_the_end() -> None:
    throttle = Throttle(rate=0.001, burst=1)
    throttle.wait()
    threading.Timer(0.05, throttle.stopped.set).start()
    with pytest.raises(Stopped):
        throttle.wait()
    with pytest.raises(Stopped):
        throttle.wait()


@pytest.mark.parametrize(
    ("url", "domain", "within"),
    [
        ("https://danbooru.donmai.us", "donmai.us", True),
        ("https://donmai.us:443/", "donmai.us", True),
        ("https://notdonmai.us", "donmai.us", False),
        ("https://donmai.us.example.com", "donmai.us", False),
        ("http://127.0.0.1:8000", "127.0.0.1", True),
        ("nonsense", "donmai.us", False),
    ],
)
def test_a_host_within_a_domain(url: str, domain: str, within: bool) -> None:
    assert is_within(url, domain) == within


@pytest.mark.parametrize("text", ["danbooru.donmai.us", "ftp://x", "https://", "https://alice:key@x", "https://x/?a=b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        site_address(text)


def test_an_address_has_no_slash_at_its_end() -> None:
    assert site_address("https://danbooru.donmai.us/") == "https://danbooru.donmai.us"


def answering(monkeypatch: pytest.MonkeyPatch, response: httpx.Response) -> Client:
    """A client whose server always gives this answer."""
    monkeypatch.setattr(client, "BACKOFF", 0.0)
    names = SettingNames(base_url="THE SITE")
    each = Client(Connection("http://127.0.0.1:9", rate=1000, names=names), lambda status: f"hint {status}")
    each._api = httpx.Client(transport=httpx.MockTransport(lambda request: response))
    return each


def test_a_refusal_has_the_servers_words_and_the_sites_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = httpx.Response(422, json={"success": False, "error": "TagLimitError", "message": "Too many tags."})
    with pytest.raises(Refused, match=r"HTTP 422 TagLimitError: Too many tags\.; hint 422") as caught:
        answering(monkeypatch, refusal).json("/posts.json", lambda answer: None)
    assert caught.value.status == 422


def test_an_answer_that_is_not_what_was_asked_for_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []

    def check(answer: object) -> None:
        checked.append(answer)
        if len(checked) < client.TRIES:
            raise ValueError("not yet")

    assert answering(monkeypatch, httpx.Response(200, json=[1])).json("/x.json", check) == [1]
    assert checked == [[1]] * client.TRIES


def test_in_the_end_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(answer: object) -> None:
        raise ValueError("no list")

    with pytest.raises(client.Unreachable, match=r"x\.json: no list, 4 times; .* check THE SITE"):
        answering(monkeypatch, httpx.Response(200, json={})).json("/x.json", check)
