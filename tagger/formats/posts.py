"""The tags of a booru's post as other programs describe it: in the JSON beside a picture, or in a row of a table.

    python -c "from tagger.formats.posts import tags_of; print(tags_of({'rating': 's', 'tag_string_artist': 'ke-ta'}))"

gallery-dl writes what a site says (Danbooru's `tag_string_artist`, elsewhere `tags_artist` or `tags`), Hydrus its tags
with namespaces, and the public tables of Danbooru either of the former, or columns that are called as the categories.
Whatever it was, the answer is the list that could stand in a txt file.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tagger.files import UserError
from tagger.formats.namespaces import RATING_BY_TEXT
from tagger.formats.tag_lists import danbooru_spelling

# What sites call the kinds of tags, by what we call them; the order is that of the tags in the answer.
CATEGORIES = {
    "general": ("general", "tag"),
    "character": ("character", "characters"),
    "artist": ("artist", "artists", "creator"),
    "copyright": ("copyright", "copyrights", "series"),
    "meta": ("meta", "metadata"),
}
FORMS = ("tag_string_{}", "tags_{}", "{}")  # of the keys that have the tags of one kind
ALL_TAGS = ("tag_string", "tags")  # the keys that have the tags of all kinds
COLUMNS = frozenset(
    ("rating", *ALL_TAGS, *(form.format(name) for names in CATEGORIES.values() for name in names for form in FORMS))
)


def tags_of(post: Mapping[str, Any]) -> list[str]:
    """The tags of a post: the rating, general tags, and the others with their namespaces, such as `artist:ke-ta`.

    Tags that are only in the list of all tags count as general, or as what their own namespaces say.

    Args:
        post: what is known of it. Keys other than COLUMNS, and values of other types, are passed over.
    """
    by_category: dict[str, list[str]] = {category: [] for category in CATEGORIES}
    # A lone `artist` or `copyright` is what a camera or a shop wrote; beside `general` it is a kind of tags.
    forms = FORMS if post.get("general") else FORMS[:-1]
    for category, names in CATEGORIES.items():
        keys = (form.format(name) for form in forms for name in names)
        for tags in (_listed(post[key], key) for key in keys if post.get(key)):
            by_category[category] += tags
    known = {tag for tags in by_category.values() for tag in tags}
    for key in ALL_TAGS:
        for category, tags in _all_tags(post.get(key), key):
            by_category[category] += [tag for tag in tags if tag not in known]
    found = [rating] if (rating := _rating(post)) else []
    found += by_category.pop("general")
    found += [f"{category}:{tag}" for category, tags in by_category.items() for tag in tags]
    return list(dict.fromkeys(found))


def tags_in_json(name: str, text: str) -> list[str]:
    """The tags in a JSON file that lies beside a picture: a post, or nothing but a list of tags.

    Args:
        name: of the file, for errors.

    Raises:
        UserError: it is not JSON, or neither.
    """
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{name}: not JSON ({error}); correct or remove it") from None
    if isinstance(value, list):
        value = {"tags": value}
    if not isinstance(value, dict):
        raise UserError(f"{name}: a {type(value).__name__}, where a post or a list of tags belongs; remove it")
    return tags_of(value)


def _rating(post: Mapping[str, Any]) -> str | None:
    """The rating's name; other things that are called rating, such as a number of stars, are none."""
    rating = post.get("rating")
    if not isinstance(rating, str):
        return None
    # gallery-dl names the site as the category. On sites without Danbooru's software, the letter s is for safe.
    if rating == "s" and "category" in post and not any(key.startswith("tag_string") for key in post):
        return RATING_BY_TEXT["safe"]
    return RATING_BY_TEXT.get(rating.strip().lower())


def _all_tags(value: Any, key: str) -> Iterator[tuple[str, list[str]]]:
    """Category and tags of what should be all tags: a list, or lists by category or by Hydrus's services.

    Hydrus's API gives {service: {"display_tags": {status: tags}}}, where status "0" is that of tags which are in use.
    """
    if not isinstance(value, Mapping):
        yield "general", _listed(value, key)
        return
    ours = {name: category for category, names in CATEGORIES.items() for name in names}
    for name, part in value.items():
        if isinstance(part, Mapping):
            by_status = part.get("display_tags") or part.get("storage_tags")
            yield "general", _listed(by_status.get("0"), key) if isinstance(by_status, Mapping) else []
        else:
            yield ours.get(name, "general"), _listed(part, key)


def _listed(value: Any, key: str) -> list[str]:
    """The tags of a list, or of a text in which blanks or commas separate them; empty ones are dropped."""
    parts: Iterable[str]
    if isinstance(value, str):
        # Danbooru's strings are separated by blanks; its older tags have commas in them.
        parts = value.split() if key.startswith("tag_string") or "," not in value else value.split(",")
    elif isinstance(value, Iterable) and not isinstance(value, (Mapping, bytes)):
        parts = (each for each in value if isinstance(each, str))
    else:
        return []
    return [tag for tag in map(danbooru_spelling, parts) if tag]


MD5 = re.compile(r"(?:^|[_-])([0-9a-f]{32})$")  # in a stem: alone, or at the end of gallery-dl's danbooru_1_<md5>


def key_of(stem: str) -> str | None:
    """The id (as digits) or the MD5 of the post that a picture is called after; None where it is called otherwise."""
    if stem.isascii() and stem.isdigit():
        return stem.lstrip("0") or "0"
    match = MD5.search(stem.lower())
    return match[1] if match else None
