"""Make the .txt files of a dataset comma-separated lists of Danbooru tags.

python replace_blanks.py --dataset-folder ./dataset --dry-run

1girl whiskey long_hair  ->  1girl,whiskey,long_hair     separated by blanks: the blanks become commas
long hair, blue eyes     ->  long_hair,blue_eyes         commas already: tidied, a blank within a tag becomes _
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from tagger import cli
from tagger.files import UserError, read_text, write_text
from tagger.formats.tag_lists import format_tags, parse_tags, tag_files


def parse_arguments(argv: Sequence[str] | None) -> Namespace:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    parser.add_argument("--dataset-folder", type=Path, default=Path("dataset"), help="folder with the .txt files")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, change nothing")
    return parser.parse_args(argv)


def tidy(text: str) -> str:
    """The tag list of one txt file in the form `1girl,long_hair`; applying it twice changes nothing more."""
    if "," in text:
        parts = ["_".join(part.split()) for part in parse_tags(text)]
    else:
        parts = text.split()
    # Parsed once more, for two spellings may have become one tag.
    return format_tags(parse_tags(",".join(parts)))


def tidy_file(path: Path, dry_run: bool) -> bool:
    """Tidy one txt file, or print what it would become; whether it was not tidy.

    Raises:
        UserError: it cannot be read.
    """
    text = read_text(path, "write its tags, separated by commas")
    tidied = tidy(text)
    if tidied == text:
        return False
    if dry_run:
        print(f"{path.name}: {tidied}")
    else:
        write_text(path, tidied)
    return True


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    paths = tag_files(arguments.dataset_folder)
    changed = left_out = 0
    for path in paths:
        try:
            changed += tidy_file(path, arguments.dry_run)
        except UserError as error:
            cli.warn(f"left out: {error}")
            left_out += 1
    would = "would be " if arguments.dry_run else ""
    print(f"{changed} of {len(paths)} files {would}changed" + (f", {left_out} left out" if left_out else ""))
    return cli.INCOMPLETE if left_out else cli.DONE


if __name__ == "__main__":
    sys.exit(main())
