"""The boorus that can be crawled: what each must be able to do, and which one is at an address.

    python -c "from tagger.crawl.sites import SITES; print(*SITES)"

Another booru is a module beside danbooru.py and one entry in SITES.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tagger.crawl import danbooru
from tagger.crawl.client import Client, Connection, is_within
from tagger.crawl.posts import Post, Row, Selection


class Booru(Protocol):
    """A site, as the crawler needs it."""

    @property
    def client(self) -> Client:
        """The server's API and files over HTTP."""

    def query(self, tags: str, min_score: int | None) -> str:
        """What a person searches for, in the site's own words; a cursor is kept under it."""

    def pages(self, query: str, *, older_than: int | None = None, newer_than: int | None = None) -> Iterator[list[Row]]:
        """The posts that a search finds, page by page; no page is empty.

        Newest first, below the id `older_than` where it is given; or oldest first, above the id `newer_than`.

        Raises:
            Refused, Unreachable: see `Client.json`.
        """

    def is_ordered(self, query: str) -> bool:
        """Whether a search has an order of its own, for which `numbered_pages` is asked instead of `pages`.

        Raises:
            UserError: an order in which no run could go on where an earlier one ended.
        """

    def numbered_pages(self, query: str, first: int) -> Iterator[tuple[int, list[Row]]]:
        """The pages of such a search with their numbers, from number `first` on, in the search's own order.

        Raises:
            Refused, Unreachable: see `Client.json`.
        """

    def find_many(self, post_ids: Sequence[int]) -> Iterator[Row]:
        """Several posts as the server has them now; those that are gone are left out.

        Raises:
            Refused, Unreachable: see `Client.json`.
        """

    def find_file(self, md5: str) -> Row | None:
        """The post whose file has this MD5, or None.

        Raises:
            Refused, Unreachable: see `Client.json`.
        """

    def spelling_hint(self, tags: str) -> str:
        """What somebody should know whose search for these tags found nothing."""

    def find(self, post_id: int) -> Row:
        """A post as the server has it now.

        Raises:
            FileFailed: there is no such post any more.
            Refused, Unreachable: see `Client.json`.
        """

    def read_post(self, row: Row, selection: Selection) -> Post:
        """A post from a row of `pages` or of `find`.

        Raises:
            PassedOver: hidden, without tags of these categories, or what `check_listing` passes over.
        """


SITES: dict[str, Callable[[Connection], Booru]] = {danbooru.DOMAIN: danbooru.Danbooru}


def open_booru(connection: Connection) -> Booru:
    """The booru at an address, by its domain. What is unknown is taken for a site that runs Danbooru's software.

    Raises:
        UserError: a rate that the site does not allow, or half of a login.
    """
    known = (make for domain, make in SITES.items() if is_within(connection.base_url, domain))
    return next(known, danbooru.Danbooru)(connection)
