"""crawler.py on a booru of another kind, which lives in memory: the crawler knows nothing of Danbooru.

python -m pytest tests/crawl/test_crawler.py
"""

import hashlib
import io
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

import simple_dan_crawl
from tagger.crawl import sites
from tagger.crawl.client import Client, Connection, FileFailed, FileGone, Stopped, Throttle, Unreachable
from tagger.crawl.crawler import FAILED, SAVED, Crawl, CrawlSettings, NeverBegun
from tagger.crawl.danbooru import Danbooru
from tagger.crawl.dataset_folder import Cursor, DatasetFolder
from tagger.crawl.posts import PassedOver, Post, Row, Selection
from tagger.crawl.sites import Booru, open_booru

ADDRESS = "https://booru.example.org"


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG", comment=b"%d" % number)  # so that no two have the same bytes
    return out.getvalue()


class Files:
    """A client that has the files of the posts in memory; `behave` is called before each is handed out."""

    def __init__(self) -> None:
        self.base_url = ADDRESS
        self.throttle = Throttle(rate=1000)
        self.behave: Callable[[int], object] = lambda post_id: None
        self.asked: list[int] = []
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    def file(self, url: str, check: Callable[[bytes], None]) -> bytes:
        if self.stopped.is_set():
            raise Stopped
        post_id = int(url)
        self.asked.append(post_id)
        self.behave(post_id)
        data = picture(post_id)
        check(data)
        return data


class MemoryBooru:
    """Posts with the ids 1, 2, 3, … in pages of four; a row holds words instead of Danbooru's fields."""

    def __init__(self, posts: int) -> None:
        self.files = Files()
        self.rows: list[dict[str, Any]] = [
            {"id": number, "words": ["solo", f"tag{number}"]} for number in range(1, posts + 1)
        ]

    @property
    def client(self) -> Client:
        return cast(Client, self.files)

    def query(self, tags: str, min_score: int | None) -> str:
        return f"find {tags}"

    def pages(self, query: str, *, older_than: int | None = None, newer_than: int | None = None) -> Iterator[list[Row]]:
        found: list[Row] = [row for row in self.rows if (newer_than or 0) < row["id"] < (older_than or math.inf)]
        found.sort(key=lambda row: row["id"], reverse=newer_than is None)
        for start in range(0, len(found), 4):
            yield found[start : start + 4]

    def is_ordered(self, query: str) -> bool:
        return False

    def numbered_pages(self, query: str, first: int) -> Iterator[tuple[int, list[Row]]]:
        raise NotImplementedError

    def find_many(self, post_ids: Sequence[int]) -> Iterator[Row]:
        return (row for row in self.rows if row["id"] in post_ids)

    def find_file(self, md5: str) -> Row | None:
        return None

    def spelling_hint(self, tags: str) -> str:
        return ""

    def find(self, post_id: int) -> Row:
        return next((row for row in self.rows if row["id"] == post_id), {}) or self._gone()

    def _gone(self) -> Row:
        raise FileFailed("the post is gone")

    def read_post(self, row: Row, selection: Selection) -> Post:
        if "words" not in row:
            raise PassedOver("wordless")
        file = row.get("file", row["id"])
        return Post(
            row["id"], hashlib.md5(picture(file)).hexdigest(), str(file), True, "jpg", {"general": row["words"]}
        )


def crawl(booru: MemoryBooru, path: Path, target: float = math.inf, **settings: Any) -> Crawl:
    """A finished crawl; a new client each time, for the end of a crawl stops it."""
    booru.files.stopped.clear()
    each = Crawl(booru, DatasetFolder(path), CrawlSettings("", target, Selection(), jobs=3, **settings))
    each.run()
    return each


def test_newest_first_as_many_as_asked_for(tmp_path: Path) -> None:
    booru = MemoryBooru(posts=20)
    done = crawl(booru, tmp_path, 6)
    assert sorted(booru.files.asked) == [15, 16, 17, 18, 19, 20]
    assert done.outcomes == {SAVED: 6} and len(done.folder.pairs) == 6
    assert DatasetFolder(tmp_path).cursor(ADDRESS, "find ") == Cursor(15, 20)
    md5 = hashlib.md5(picture(20)).hexdigest()
    assert (tmp_path / f"{md5}.txt").read_text() == "solo,tag20"


def test_it_goes_on_below_and_an_update_above(tmp_path: Path) -> None:
    booru = MemoryBooru(posts=20)
    crawl(booru, tmp_path, 6)
    booru.rows += [{"id": number, "words": ["new"]} for number in (21, 22, 23, 24, 25)]
    crawl(booru, tmp_path, 8)
    assert sorted(booru.files.asked[6:]) == [13, 14]
    crawl(booru, tmp_path, update=True)
    assert sorted(booru.files.asked[8:]) == [21, 22, 23, 24, 25]
    assert DatasetFolder(tmp_path).cursor(ADDRESS, "find ") == Cursor(13, 25)


def test_an_update_needs_a_first_crawl(tmp_path: Path) -> None:
    with pytest.raises(NeverBegun, match="never begun here"):
        crawl(MemoryBooru(posts=3), tmp_path, update=True)


def test_the_cursor_waits_for_the_slowest(tmp_path: Path) -> None:
    """20 ends after the server's collapse at 17: the cursor must not have passed 20, whatever ended meanwhile."""
    booru, collapsed = MemoryBooru(posts=20), threading.Event()

    def behave(post_id: int) -> None:
        if post_id == 20:
            assert collapsed.wait(10)
            raise Stopped
        if post_id == 17:
            collapsed.set()
            raise Unreachable("the server is gone")

    booru.files.behave = behave
    with pytest.raises(Unreachable):
        crawl(booru, tmp_path, 6)
    assert DatasetFolder(tmp_path).cursor(ADDRESS, "find ").oldest is None
    booru.files.behave = lambda post_id: None
    done = crawl(booru, tmp_path, 6)
    assert done.folder.pairs == {hashlib.md5(picture(number)).hexdigest() for number in range(15, 21)}


def test_a_failure_costs_one_post_and_can_be_tried_again(tmp_path: Path) -> None:
    booru = MemoryBooru(posts=10)

    def behave(post_id: int) -> None:
        if post_id in (9, 8):
            raise FileGone("HTTP 404") if post_id == 9 else FileFailed("too slow")

    booru.files.behave = behave
    done = crawl(booru, tmp_path, 4)
    assert done.outcomes == {SAVED: 4, FAILED: 2}
    assert done.folder.failures == {9: "HTTP 404", 8: "too slow"}
    booru.files.behave = lambda post_id: None
    booru.rows = [row for row in booru.rows if row["id"] != 8]
    again = crawl(booru, tmp_path, 5, retry_failures=True)
    assert again.folder.failures == {8: "the post is gone"}
    assert len(again.folder.pairs) == 5
    assert DatasetFolder(tmp_path).cursor(ADDRESS, "find ").oldest == 5


def test_what_is_passed_over_is_counted_by_its_reason(tmp_path: Path) -> None:
    booru = MemoryBooru(posts=6)
    booru.rows[3:5] = [{"id": 4}, {"id": 5}]
    assert crawl(booru, tmp_path).outcomes == {SAVED: 4, "wordless": 2}


def test_the_same_file_in_several_posts_is_one_pair(tmp_path: Path) -> None:
    booru = MemoryBooru(posts=6)
    for row in booru.rows:
        row["file"] = 6
    assert crawl(booru, tmp_path).outcomes == {SAVED: 1}
    assert booru.files.asked == [6]


# --- the registry ---------------------------------------------------------------------------------------------------


def test_a_site_is_known_by_its_domain_and_danbooru_is_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Connection] = []

    def make(connection: Connection) -> Booru:
        made.append(connection)
        return MemoryBooru(posts=0)

    monkeypatch.setitem(sites.SITES, "example.org", make)
    connection = Connection(ADDRESS)
    assert isinstance(open_booru(connection), MemoryBooru) and made == [connection]
    for address in ("https://danbooru.donmai.us", "http://127.0.0.1:1", "https://notexample.org"):
        assert isinstance(open_booru(Connection(address)), Danbooru)


def test_one_entry_is_all_that_another_booru_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sites.SITES, "example.org", lambda connection: MemoryBooru(posts=9))
    assert simple_dan_crawl.main(["--base-url", ADDRESS, "--output-dir", str(tmp_path), "--target-count", "5"]) == 0
    assert "5 pairs, 5 of them new" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.jpg"))) == 5
