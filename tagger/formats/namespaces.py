"""Tags that say of themselves what they are: `creator:name`, `character:name`, `series:name`, `meta:name`, `rating:g`.

    python -c "from tagger.formats.namespaces import NamespaceReader; print(NamespaceReader().read('creator:ke ta'))"

Hydrus and the search boxes of boorus write them so. The toolkit itself does where a file knows a tag's category (see
tagger/formats/posts.py), so that a list of tags is all that is handed on.
"""

from collections.abc import Container, Mapping

from tagger.formats.tag_lists import NO_NAMES, TagReader
from tagger.formats.vocabulary import ARTIST, CHARACTER, COPYRIGHT, META, RATING, RATINGS

NAMESPACES = {
    "creator": ARTIST,
    "artist": ARTIST,
    "character": CHARACTER,
    "series": COPYRIGHT,
    "copyright": COPYRIGHT,
    "meta": META,
    "rating": RATING,
}
# Danbooru's letters and words, and the word that boorus without `sensitive` have for `general`.
RATING_BY_TEXT = {**RATINGS, **{name: name for name in RATINGS.values()}, "safe": "general"}


class NamespaceReader(TagReader):
    """A TagReader that takes namespaces for what they say. A name that is known with its namespace keeps it.

    Args:
        known, canonical: see TagReader.

    Attributes:
        categories: what the namespaces said of a name that was read; where they differ, the first of them.
    """

    def __init__(self, known: Container[str] = (), canonical: Mapping[str, str] = NO_NAMES) -> None:
        super().__init__(known, canonical)
        self.categories: dict[str, int] = {}

    def _name(self, written: str) -> str:
        namespace, _, rest = (part.strip() for part in written.partition(":"))
        category = NAMESPACES.get(namespace)
        if category is None or not rest or written in self.known:
            return super()._name(written)
        if category == RATING:
            return RATING_BY_TEXT.get(rest) or super()._name(written)
        name = self.name(rest)
        self.categories.setdefault(name, category)
        return name
