"""The crawl: posts in their order into a dataset folder, several downloads at a time.

python simple_dan_crawl.py --tags "1girl solo" --target-count 100
"""

import contextlib
import math
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from tagger import images
from tagger.crawl import danbooru
from tagger.crawl.dataset_folder import FAILURES_FILE, DatasetFolder
from tagger.crawl.posts import FIELDS, PassedOver, Post, check_file, read_post, to_jpeg
from tagger.files import UserError

PAGE = 200  # posts; the most that Danbooru lists at once
SAVE_EVERY = 50  # settled posts between two savings of the cursor
SAVED, FAILED = "saved", "failed"


@dataclass(frozen=True)
class Outcome:
    """What became of a post: SAVED (detail: its MD5), FAILED (detail: why), or why it was passed over."""

    what: str
    detail: str = ""


class Crawl:
    """Posts in their order into a folder, several downloads at a time, until it holds `target` pairs.

    Posts are settled in any order, but the cursor passes only those whose predecessors are all settled, and no download
    begins that might not be needed: so the result does not depend on when a run was killed.
    """

    def __init__(self, client: danbooru.Client, folder: DatasetFolder, target: float, arguments: Any) -> None:
        self.client, self.folder, self.target, self.arguments = client, folder, target, arguments
        score = f"score:>={arguments.min_score}" if arguments.min_score is not None else ""
        self.query = f"{arguments.tags} {score}".strip()
        self.cursor = folder.cursor(arguments.base_url, self.query)
        self.outcomes: Counter[str] = Counter()
        self.pool = ThreadPoolExecutor(arguments.jobs)
        self.running: dict[Future[Outcome], Post] = {}
        self.settled: set[Future[Outcome] | None] = set()
        self.line: deque[tuple[int, Future[Outcome] | None]] = deque()  # posts in listing order; None: nothing to do
        self.passed = 0  # posts that the cursor passed since it was saved
        total = None if math.isinf(target) else int(target)
        self.bar = tqdm(total=total, initial=len(folder.pairs), unit="pair", dynamic_ncols=True)

    def run(self) -> None:
        """Crawl until the target is reached or the listing ends. However it ends, the cursor is saved.

        Raises:
            UserError: the server refuses or does not recover.
            OSError: the disk is full, or the folder cannot be written to.
        """
        try:
            if self.arguments.retry_failures:
                self._retry_failures()
            for page in self._pages():
                self._take(page)
                if self._missing() <= 0:
                    break
            while self.running:
                self._settle_some()
        finally:
            self._close()

    def _missing(self) -> float:
        """How many downloads may begin, so many being needed even if all that run succeed."""
        return self.target - len(self.folder.pairs) - len(self.running)

    def _pages(self) -> Iterator[list[dict[str, Any]]]:
        """The listing from the cursor on: towards older posts, or with --update towards newer ones."""
        if self._missing() <= 0:
            return
        if not self.arguments.update:
            position = "" if self.cursor.oldest is None else f"b{self.cursor.oldest}"
        elif self.cursor.newest is not None:
            position = f"a{self.cursor.newest}"
        else:
            raise UserError(f"{self.folder.path}: --update: this query was never begun here; run it without --update")
        for page in self.client.pages("/posts.json", position, tags=self.query, limit=PAGE, only=FIELDS):
            rows = sorted(page, key=lambda row: row["id"], reverse=not self.arguments.update)
            if self.cursor.newest is None:
                self.cursor.newest = rows[0]["id"]
            yield rows

    def _take(self, page: Iterable[dict[str, Any]]) -> None:
        """Begin the downloads of a page, as far as they are needed, and settle what ends meanwhile."""
        rows = deque(page)
        while rows and (self._missing() > 0 or self.running):
            room = self._missing()
            chunk: list[tuple[int, Post | None]] = []
            while rows and room > 0:
                row = rows.popleft()
                chunk.append((row["id"], self._wanted(row)))
                room -= chunk[-1][1] is not None
            self._begin(chunk)
            while len(self.running) > self.arguments.jobs or (self.running and self._missing() <= 0):
                self._settle_some()

    def _wanted(self, row: dict[str, Any]) -> Post | None:
        """The post of a row, or None where there is nothing to do."""
        if row["id"] in self.folder.passed_over or row["id"] in self.folder.failures:
            return None
        try:
            post = read_post(row, self.arguments.size, self.arguments.categories, self.arguments.min_score)
        except PassedOver as reason:
            self.outcomes[str(reason)] += 1
            return None
        under_way = any(post.md5 == other.md5 for other in self.running.values())
        return None if under_way or post.md5 in self.folder.pairs else post

    def _begin(self, chunk: Sequence[tuple[int, Post | None]]) -> None:
        """Start downloads. Their categories are noted first, so that a kill cannot leave a pair without them."""
        self._note_categories([post for _, post in chunk if post is not None])
        for post_id, post in chunk:
            future = None
            if post is not None:
                future = self.pool.submit(self._fetch, post)
                self.running[future] = post
            self.line.append((post_id, future))
        self._advance()

    def _note_categories(self, posts: Iterable[Post]) -> None:
        if {"character", "artist"} & set(self.arguments.categories):
            self.folder.note_categories({name: n for post in posts for name, n in post.categories.items()})

    def _settle_some(self) -> None:
        """Wait for a download to end, note what came of it, and move the cursor."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in done:
            post = self.running.pop(future)
            with contextlib.suppress(danbooru.Stopped):  # another one ended the crawl, and will tell why
                self._note(future, post)
        self._advance()

    def _note(self, future: Future[Outcome], post: Post) -> None:
        outcome = future.result()
        self.settled.add(future)
        self.outcomes[outcome.what] += 1
        if outcome.what == SAVED:
            self.folder.pairs.add(outcome.detail)
            self.folder.forget_failure(post.id)
            self.bar.update()
        elif outcome.what == FAILED:
            tqdm.write(f"simple_dan_crawl.py: failed: post {post.id}: {outcome.detail}", file=sys.stderr)
            self.folder.note_failure(post.id, outcome.detail)
        else:
            self.folder.note_passed_over(post.id, outcome.what)
            self.folder.forget_failure(post.id)

    def _close(self) -> None:
        """End all threads; what they finished meanwhile counts."""
        self.client.stop()
        self.pool.shutdown(cancel_futures=True)
        for future in [future for future in self.running if not future.cancelled() and future.exception() is None]:
            self._note(future, self.running.pop(future))
        self._advance()
        self.folder.save_cursors()
        self.bar.close()

    def _advance(self) -> None:
        """Move the cursor over the posts at the head of the line that are settled."""
        while self.line and (self.line[0][1] is None or self.line[0][1] in self.settled):
            post_id, future = self.line.popleft()
            self.settled.discard(future)
            if self.arguments.update:
                self.cursor.newest = post_id
            else:
                self.cursor.oldest = post_id
            self.passed += 1
        if self.passed >= SAVE_EVERY:
            self.folder.save_cursors()
            self.passed = 0

    def _retry_failures(self) -> None:
        for post_id in list(self.folder.failures):
            try:
                post = self._ask_again(post_id)
            except danbooru.FileFailed as error:
                self.outcomes[FAILED] += 1
                self.folder.note_failure(post_id, str(error))
            except PassedOver as reason:
                self.outcomes[str(reason)] += 1
                self.folder.forget_failure(post_id)
            else:
                self._note_categories([post])
                self.running[self.pool.submit(self._fetch, post)] = post
            while len(self.running) > self.arguments.jobs:
                self._settle_some()
        while self.running:
            self._settle_some()

    def _ask_again(self, post_id: int) -> Post:
        """The post as the server has it now.

        Raises:
            danbooru.FileFailed: there is no such post any more.
            PassedOver: it is none of those that were asked for, any more.
        """
        try:
            row = self.client.json(f"/posts/{post_id}.json", only=FIELDS)
        except danbooru.Refused as error:
            if error.status != 404:
                raise
            raise danbooru.FileFailed("the post is gone") from None
        if not isinstance(row, dict) or row.get("id") != post_id:
            raise danbooru.FileFailed("the server answers with another post")
        return read_post(row, self.arguments.size, self.arguments.categories, self.arguments.min_score)

    # -- in the pool's threads ---------------------------------------------------------------------------------------

    def _fetch(self, post: Post) -> Outcome:
        try:
            return self._save(post)
        except (UserError, OSError):  # a refusal, a full disk: no other thread shall send one more request
            self.client.stop()
            raise

    def _save(self, post: Post) -> Outcome:
        try:
            try:
                data = self._download(post)
            except danbooru.FileGone as error:
                fresh = self._ask_again(post.id)  # the file may have been replaced, and with it its MD5
                if fresh.url == post.url:
                    raise danbooru.FileFailed(str(error)) from None
                post = fresh
                self._note_categories([post])
                data = self._download(post)
            jpeg = to_jpeg(data, post.suffix)
        except PassedOver as reason:
            return Outcome(str(reason))
        except (danbooru.FileFailed, images.UnreadableImage) as error:
            return Outcome(FAILED, str(error))
        self.folder.save_pair(post.md5, jpeg, post.names)
        return Outcome(SAVED, post.md5)

    def _download(self, post: Post) -> bytes:
        return self.client.file(post.url, lambda data: check_file(data, post))


def summary(folder: DatasetFolder, outcomes: Counter[str]) -> str:
    """One line: what the folder holds, and what became of the posts that this run looked at."""
    passed_over = {what: n for what, n in outcomes.items() if what not in (SAVED, FAILED)}
    parts = [f"{len(folder.pairs)} pairs, {outcomes[SAVED]} of them new"]
    if passed_over:
        reasons = ", ".join(f"{n} {what}" for what, n in sorted(passed_over.items()))
        parts.append(f"passed over {sum(passed_over.values())} posts ({reasons})")
    if folder.failures:
        parts.append(f"{len(folder.failures)} failed, see {FAILURES_FILE}; --retry-failures tries them again")
    return f"{folder.path}: {'; '.join(parts)}"
