"""Make the captions of a dataset comma-separated lists of Danbooru tags.

    python replace_blanks.py --dataset-folder ./dataset --dry-run

1girl whiskey long_hair    ->  1girl,whiskey,long_hair    a line without another separator: blanks separate
looking at viewer smile    ->  looking_at_viewer,smile    but not within a tag that the vocabulary knows
long hair, blue eyes       ->  long_hair,blue_eyes        commas, semicolons, |||, Chinese ones and line ends separate
(long hair:1.2), a \\(bb\\)  ->  long_hair,a_(bb)           weights and escapes of prompts are undone

Only a .txt with a picture beside it is touched. UTF-16, GBK and Shift-JIS become UTF-8. What stood there is kept in
replace_blanks.undo.jsonl, and --undo brings it back.
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line

# isort: split

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tagger.files import UserError, locked_folder, write_text
from tagger.formats import text_encoding
from tagger.formats.pairs import captions_of
from tagger.formats.tag_lists import TagReader, format_tags, parse_tags
from tagger.formats.undo_log import Change, UndoLog
from tagger.formats.vocabulary import VOCABULARY_FILE, read_vocabulary

SHIPPED_VOCABULARY = Path(__file__).with_name(VOCABULARY_FILE)
UNDO_FILE = "replace_blanks.undo.jsonl"
BATCH = 256  # files whose old texts are on the disk before the first of them is changed
SEPARATOR = re.compile(r"[,，、]|\|\|\||;(?=\s|$)")  # within a line
SHOWN = 20  # names of files that could not be brought back


@dataclass(frozen=True)
class Settings:
    """What was asked for; see the flags."""

    folder: Path
    vocabulary: Path
    dry_run: bool
    undo: bool


def parse_arguments(argv: Sequence[str] | None) -> Settings:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    parser.add_argument(
        "--dataset-folder", type=Path, default=Path("dataset"), help="pictures with captions beside them"
    )
    parser.add_argument(
        "--tags-csv",
        type=Path,
        default=SHIPPED_VOCABULARY,
        help="the vocabulary, which tells what blanks are within a tag",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would change, change nothing")
    parser.add_argument("--undo", action="store_true", help="bring back what earlier runs changed")
    arguments = parser.parse_args(argv)
    return Settings(arguments.dataset_folder, arguments.tags_csv, arguments.dry_run, arguments.undo)


# --- one caption ----------------------------------------------------------------------------------------------------


def tidy(text: str, reader: TagReader, known: Collection[str]) -> str:
    """A caption in the form `1girl,long_hair`; applying it twice changes nothing more.

    Args:
        reader: reads each tag in whatever spelling it has.
        known: the vocabulary's names.
    """
    parts = [part for line in text.splitlines() for part in split_line(line, known)]
    return format_tags(dict.fromkeys(reader.name(part) for part in parse_tags("\n".join(parts))))


def split_line(line: str, known: Collection[str]) -> list[str]:
    """The tags of a line, as they are written."""
    if SEPARATOR.search(line):
        return parse_tags(line)
    parts = [part for part in line.split(";") if part.strip()]
    if len(parts) > 1 and line.strip() not in known:  # steins;gate, where the vocabulary has it
        return parts
    return list(join_words(line.split(), known))


def join_words(words: Sequence[str], known: Collection[str]) -> Iterator[str]:
    """Words that blanks separate, those joined that are a tag of the vocabulary together, and not all tags alone.

    Greedily from the left, the longest first: `very long hair` is one tag, `1girl solo` two.
    """
    start = 0
    while start < len(words):
        for end in range(len(words), start + 1, -1):
            together = next((name for blank in "_ " if (name := blank.join(words[start:end])) in known), None)
            if together is not None and not all(word in known for word in words[start:end]):
                break
        else:
            end, together = start + 1, words[start]
        yield together or ""
        start = end


# --- the folder -----------------------------------------------------------------------------------------------------


def tidied_captions(paths: Sequence[Path], settings: Settings) -> Iterator[tuple[Path, bytes, str] | UserError]:
    """Each caption that has to change, with its bytes and its new text, or why it cannot be read."""
    known = read_vocabulary(settings.vocabulary, "name the CSV with --tags-csv").index
    reader = TagReader(known)
    for path in paths:
        try:
            data = path.read_bytes()
            text, _ = text_encoding.decode(data)
        except OSError as error:
            yield UserError(f"{path}: {error.strerror}; check it")
        except UnicodeError as error:
            yield UserError(f"{path}: {error}; save it as UTF-8")
        else:
            # A line end behind the last tag is nothing to rewrite a file for.
            if (tidied := tidy(text, reader, known)).encode() != data.rstrip(b"\r\n"):
                yield path, data, tidied
    if weights := reader.weights_in_words():
        cli.warn(f"{weights}; the weights were left out")


def tidy_folder(settings: Settings) -> int:
    """Tidy all captions of a folder; the exit code."""
    paths, others = captions_of(settings.folder)
    if not paths:
        raise UserError(
            f"{settings.folder}: no picture with a .txt beside it; fetch some pairs with simple_dan_crawl.py, or name "
            "another --dataset-folder"
        )
    log = UndoLog(settings.folder / UNDO_FILE)
    changed = left_out = 0
    results = tidied_captions(paths, settings)
    while batch := list(islice(results, BATCH)):
        changes = []
        for result in batch:
            if isinstance(result, UserError):
                cli.warn(f"left out: {result}")
                left_out += 1
            else:
                changes.append(result)
        if not settings.dry_run and changes:
            log.append(Change.to(path, before, after.encode()) for path, before, after in changes)
        for path, _, after in changes:
            if settings.dry_run:
                print(f"{path.name}: {after}")
            else:
                write_text(path, after)
        changed += len(changes)
    would = "would be " if settings.dry_run else ""
    print(f"{changed} of {len(paths)} captions {would}changed" + (f", {left_out} left out" if left_out else ""))
    if changed and not settings.dry_run:
        print(f"{log.path} has what stood there; --undo brings it back")
    if others:
        cli.warn(f"{others} txt files have no picture beside them and were left alone")
    return cli.INCOMPLETE if left_out else cli.DONE


def undo(settings: Settings) -> int:
    """Bring back what stood in the captions before; the exit code."""
    log = UndoLog(settings.folder / UNDO_FILE)
    if settings.dry_run:
        names = sorted({change.name for change in log.read()})
        print(*names, f"{len(names)} captions would be brought back", sep="\n")
        return cli.DONE
    restored, left = log.undo()
    for name in left[:SHOWN]:
        cli.warn(f"left out: {settings.folder / name}: changed since, or gone; the old text is in {log.path}")
    print(f"{len(restored)} captions brought back" + (f", {len(left)} left out" if left else ""))
    return cli.INCOMPLETE if left else cli.DONE


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = parse_arguments(argv)
    if not settings.folder.is_dir():
        raise UserError(f"{settings.folder}: no such folder; name the dataset with --dataset-folder")
    if settings.dry_run:
        return undo(settings) if settings.undo else tidy_folder(settings)
    with locked_folder(settings.folder):
        return undo(settings) if settings.undo else tidy_folder(settings)


if __name__ == "__main__":
    sys.exit(main())
