"""The tags in a file that lies beside a picture, whichever program wrote it: see LABEL_SUFFIXES of pairs.py.

python -c "from tagger.formats.sidecars import parse_labels as p; print(p('1.jpg.json', '{\\"tags\\": [\\"solo\\"]}'))"
"""

import os
from pathlib import Path

from tagger.files import read_text
from tagger.formats.posts import tags_in_json
from tagger.formats.tag_lists import parse_tags


def parse_labels(name: str, text: str) -> list[str]:
    """The tags in the text of a file, as they are written.

    Args:
        name: of the file: its suffix says what the text is, and errors begin with it.

    Raises:
        UserError: it does not hold what its suffix says.
    """
    return tags_in_json(name, text) if os.path.splitext(name)[1] == ".json" else parse_tags(text)


def read_labels(path: Path, encoding_hint: str = "save it as UTF-8") -> list[str]:
    """The tags in a file; see `parse_labels`.

    Args:
        encoding_hint: ends the error for text in another encoding.

    Raises:
        UserError: missing, unreadable, not UTF-8, or not what its suffix says.
    """
    return parse_labels(str(path), read_text(path, "write its tags, separated by commas", encoding_hint))
