"""The crawl: posts in their order into a dataset folder, several downloads at a time.

python simple_dan_crawl.py --tags "1girl solo" --target-count 100
"""

import contextlib
import math
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from tqdm import tqdm

from tagger import cli, images
from tagger.crawl.client import FileFailed, FileGone, Stopped
from tagger.crawl.dataset_folder import DatasetFolder, Origin
from tagger.crawl.posts import FIRST_CATEGORIES, PassedOver, Post, Row, Selection, check_file, to_jpeg
from tagger.crawl.sites import Booru
from tagger.files import UserError

SAVE_EVERY = 50  # settled posts between two savings of the cursor
SAVED, FAILED = "saved", "failed"
ALIKE = 50  # failures in a row, and for one reason, after which there is no use in going on


class NeverBegun(UserError):
    """What is newer than the last crawl was asked for, and there was none."""


class FailingAlike(UserError):
    """File after file could not be had, for one reason."""


class OrderedUpdate(UserError):
    """What is newer than the last crawl was asked for, in an order that is not that of time."""


@dataclass(frozen=True)
class CrawlSettings:
    """What to fetch.

    Attributes:
        tags: the search, in the site's words; "" finds everything.
        target: pairs that the folder shall hold; math.inf for no limit.
        selection: which of the posts that are found are wanted, and what of them.
        jobs: downloads at a time.
        update: what was posted since the first crawl, instead of going on towards older posts.
        retry_failures: first try the posts again whose files could not be had.
    """

    tags: str
    target: float
    selection: Selection
    jobs: int = 8
    update: bool = False
    retry_failures: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a post: SAVED (detail: its MD5), FAILED (detail: why), or why it was passed over."""

    what: str
    detail: str = ""


class Crawl:
    """Posts in their order into a folder, several downloads at a time, until it holds as many pairs as were asked for.

    Posts are settled in any order, but the cursor passes only those whose predecessors are all settled, and no download
    begins that might not be needed: so the result does not depend on when a run was killed.

    Attributes:
        outcomes: how many posts came to what; see Outcome.
    """

    def __init__(self, booru: Booru, folder: DatasetFolder, settings: CrawlSettings) -> None:
        self.booru, self.folder, self.settings = booru, folder, settings
        self.query = booru.query(settings.tags, settings.selection.min_score)
        self.is_ordered = booru.is_ordered(self.query)
        if self.is_ordered and settings.update:
            raise OrderedUpdate(f"{self.query}: an update goes by time, and this search has an order of its own")
        self.cursor = folder.cursor(booru.client.base_url, self.query)
        self.outcomes: Counter[str] = Counter()
        self.pool = ThreadPoolExecutor(settings.jobs)
        self.running: dict[Future[Outcome], Post] = {}
        # Posts that the cursor has not passed, in the order of the listing, each with its download if it needs one. Of
        # a post the cursor notes the id, or in a search with an order of its own the number of the page.
        self.ahead: deque[tuple[int, Future[Outcome] | None]] = deque()
        self.page_number = 0  # of such a search
        self.listed = 0  # posts that the server listed
        self.completed = 0  # older pairs that got tags of categories that were not asked for when they were made
        self.alike: tuple[str, int] = ("", 0)  # the reason of the latest failure, and how many had it in a row
        self.settled: set[Future[Outcome]] = set()  # downloads in `ahead` that ended
        self.unsaved = 0  # posts that the cursor passed since it was saved
        self.is_closing = False
        total = None if math.isinf(settings.target) else int(settings.target)
        self.bar = tqdm(total=total, initial=len(folder.pairs), unit="pair", dynamic_ncols=True)

    def run(self) -> None:
        """Crawl until the target is reached or the listing ends. However it ends, the cursor is saved.

        Raises:
            NeverBegun: an update of a query that this folder has not seen.
            UserError: the server refuses or does not recover.
            OSError: the disk is full, or the folder cannot be written to.
        """
        try:
            self._complete_pairs()
            if self.settings.retry_failures:
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
        """How many downloads may begin without a pair too many, should all that run succeed."""
        return self.settings.target - len(self.folder.pairs) - len(self.running)

    # -- the listing -------------------------------------------------------------------------------------------------

    def _pages(self) -> Iterator[list[Row]]:
        """The listing from the cursor on: towards older posts, or in an update towards newer ones."""
        if self._missing() <= 0:
            return
        if self.is_ordered:
            for number, page in self.booru.numbered_pages(self.query, self.cursor.page or 1):
                self.page_number = number
                self.listed += len(page)
                yield page
            return
        if not self.settings.update:
            pages = self.booru.pages(self.query, older_than=self.cursor.oldest)
        elif self.cursor.newest is None:
            raise NeverBegun(f"{self.folder.path}: this query was never begun here")
        else:
            pages = self.booru.pages(self.query, newer_than=self.cursor.newest)
        for page in pages:
            if self.cursor.newest is None:  # the first page of the first crawl: an update begins above it
                self.cursor.newest = page[0]["id"]
            self.listed += len(page)
            yield page

    def _take(self, page: Iterable[Row]) -> None:
        """Begin the downloads of a page, as far as they are needed, and settle what ends meanwhile."""
        rows = deque(page)
        while rows and (self._missing() > 0 or self.running):
            room = self._missing()
            chunk: list[tuple[int, Post | None]] = []
            while rows and room > 0:
                row = rows.popleft()
                post = self._wanted(row)
                if post is not None and any(other and other.md5 == post.md5 for _, other in chunk):
                    post = None  # two threads would write to one file
                chunk.append((self.page_number if self.is_ordered else row["id"], post))
                room -= post is not None
            self._begin(chunk)
            # Go on before the last ones end, so that no thread idles; but where the downloads that run would be enough,
            # another may begin only when one of them has failed.
            while len(self.running) > self.settings.jobs or (self.running and self._missing() <= 0):
                self._settle_some()

    def _wanted(self, row: Row) -> Post | None:
        """The post of a row, or None where there is nothing to do."""
        if row["id"] in self.folder.passed_over or row["id"] in self.folder.failures:
            return None
        try:
            post = self.booru.read_post(row, self.settings.selection)
        except PassedOver as reason:
            self.outcomes[str(reason)] += 1
            return None
        under_way = any(post.md5 == other.md5 for other in self.running.values())
        return None if under_way or post.md5 in self.folder.pairs else post

    def _begin(self, chunk: Sequence[tuple[int, Post | None]]) -> None:
        """Start downloads. Their categories are noted first, so that a kill cannot leave a pair without them."""
        self._note_categories([post for _, post in chunk if post is not None])
        for place, post in chunk:
            future = None
            if post is not None:
                future = self.pool.submit(self._fetch, post)
                self.running[future] = post
            self.ahead.append((place, future))
        self._advance()

    def _note_categories(self, posts: Iterable[Post]) -> None:
        if set(self.settings.selection.categories) - FIRST_CATEGORIES:
            self.folder.note_categories({name: n for post in posts for name, n in post.categories.items()})

    # -- what ended --------------------------------------------------------------------------------------------------

    def _settle_some(self) -> None:
        """Wait for a download to end, note what came of it, and move the cursor."""
        done, _ = wait(self.running, return_when=FIRST_COMPLETED)
        for future in done:
            post = self.running.pop(future)
            with contextlib.suppress(Stopped):  # the download that made all others stop raises the reason
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
            cli.warn(f"failed: post {post.id}: {outcome.detail}")
            self.folder.note_failure(post.id, outcome.detail)
        else:
            self.folder.note_passed_over(post.id, outcome.what)
            self.folder.forget_failure(post.id)
        self._count_alike(outcome)

    def _count_alike(self, outcome: Outcome) -> None:
        """Stop where failure follows failure: a site that serves no files need not be walked to its end."""
        if outcome.what != FAILED:
            self.alike = ("", 0)
            return
        # Without paths, sizes and digests, which differ from file to file.
        reason = re.sub(r"\S*/\S*|(?<!HTTP )\b\d+\b|\b[0-9a-f]{6,}\b", "…", outcome.detail)
        self.alike = (reason, self.alike[1] + 1 if self.alike[0] == reason else 1)
        if self.alike[1] == ALIKE and not self.is_closing:
            raise FailingAlike(f"{ALIKE} files in a row could not be had, all for this reason: {outcome.detail}")

    def _advance(self) -> None:
        """Move the cursor over the posts at its head that are settled."""
        while self.ahead and (self.ahead[0][1] is None or self.ahead[0][1] in self.settled):
            place, future = self.ahead.popleft()
            if future is not None:
                self.settled.discard(future)
            if self.is_ordered:
                self.cursor.page = place
            elif self.settings.update:
                self.cursor.newest = place
            else:
                self.cursor.oldest = place
            self.unsaved += 1
        if self.unsaved >= SAVE_EVERY:
            self.folder.save_cursors()
            self.unsaved = 0

    def _close(self) -> None:
        """End all threads; what they finished meanwhile counts."""
        self.is_closing = True
        self.booru.client.stop()
        try:
            self.pool.shutdown(cancel_futures=True)
            for future in [future for future in self.running if not future.cancelled() and future.exception() is None]:
                self._note(future, self.running.pop(future))
            self._advance()
            self.folder.save_cursors()
            self.folder.tidy_origins()
        finally:
            self.bar.close()  # whatever fails here: a bar that is left open is drawn again below the error

    # -- pairs of earlier runs -----------------------------------------------------------------------------------------

    def _complete_pairs(self) -> None:
        """Add the tags of categories that were not asked for when a pair was made; no file is downloaded again.

        Without them these pictures would teach that they have no artist.
        """
        wanted = self.settings.selection.categories
        known, unknown = self.folder.incomplete(wanted)
        if not known and not unknown:
            return
        cli.warn(
            f"{cli.counted(len(known) + len(unknown), 'older pair')} were made without asking for all of "
            f"{','.join(wanted)}; their tags are looked up again, their files are not"
        )
        with tqdm(total=len(known) + len(unknown), unit="pair", desc="tags", dynamic_ncols=True) as bar:
            found = set()
            for row in self.booru.find_many(sorted(known, reverse=True)):
                if (md5 := known.get(row["id"])) is not None:
                    found.add(row["id"])
                    self._complete(md5, row)
                    bar.update()
            gone = [(md5, post_id) for post_id, md5 in known.items() if post_id not in found]
            for md5 in unknown:  # a folder of version 0.1, which did not note the posts' ids
                if (found_row := self.booru.find_file(md5)) is not None:
                    self._complete(md5, found_row)
                else:
                    gone.append((md5, 0))
                bar.update()
        for md5, post_id in gone:  # noted as asked for, or every run would ask again
            self.folder.note_origin(md5, Origin(post_id, frozenset(wanted)))
        if gone:
            cli.warn(
                f"{cli.counted(len(gone), 'older pair')} keep their tags, for their posts are gone, as {gone[0][0]}"
            )

    def _complete(self, md5: str, row: Row) -> None:
        """Add to a pair the tags of its post that it lacks."""
        wanted = self.settings.selection.categories
        try:
            # Neither score nor size decides about a pair that is there.
            post = self.booru.read_post(row, Selection(categories=wanted))
            self._note_categories([post])
            had = self.folder.categories_of(md5)  # of these the txt may have been edited, and the rating changed
            names = [name for category, names in post.tags.items() if category not in had for name in names]
            self.completed += self.folder.add_tags(md5, names, Origin(post.id, frozenset(wanted)))
        except PassedOver:
            self.folder.note_origin(md5, Origin(row["id"], frozenset(wanted)))  # hidden by now
        except UserError as error:
            cli.warn(f"left out: {error}")

    # -- failures of earlier runs ------------------------------------------------------------------------------------

    def _retry_failures(self) -> None:
        """Download what failed before. These posts lie behind the cursor, which stays where it is."""
        for post_id in list(self.folder.failures):
            try:
                post = self._ask_again(post_id)
            except FileFailed as error:
                self.outcomes[FAILED] += 1
                self.folder.note_failure(post_id, str(error))
            except PassedOver as reason:
                self.outcomes[str(reason)] += 1
                self.folder.forget_failure(post_id)
            else:
                self._note_categories([post])
                self.running[self.pool.submit(self._fetch, post)] = post
            while len(self.running) > self.settings.jobs:
                self._settle_some()
        while self.running:
            self._settle_some()

    def _ask_again(self, post_id: int) -> Post:
        """The post as the server has it now.

        Raises:
            FileFailed: there is no such post any more.
            PassedOver: it is none of those that were asked for, any more.
        """
        return self.booru.read_post(self.booru.find(post_id), self.settings.selection)

    # -- in the pool's threads ---------------------------------------------------------------------------------------

    def _fetch(self, post: Post) -> Outcome:
        try:
            return self._save(post)
        except (UserError, OSError):  # a refusal, a full disk: no other thread shall send one more request
            self.booru.client.stop()
            raise

    def _save(self, post: Post) -> Outcome:
        try:
            try:
                data = self._download(post)
            except FileGone as error:
                fresh = self._ask_again(post.id)  # the file may have been replaced, and with it its MD5
                if fresh.url == post.url:
                    raise FileFailed(str(error)) from None
                post = fresh
                self._note_categories([post])
                data = self._download(post)
            jpeg = to_jpeg(data, post.suffix)
        except PassedOver as reason:
            return Outcome(str(reason))
        except (FileFailed, images.UnreadableImage) as error:
            return Outcome(FAILED, str(error))
        categories = frozenset(self.settings.selection.categories)
        self.folder.save_pair(post.md5, jpeg, post.names, Origin(post.id, categories))
        return Outcome(SAVED, post.md5)

    def _download(self, post: Post) -> bytes:
        return self.booru.client.file(post.url, lambda data: check_file(data, post))
