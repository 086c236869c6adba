"""Make the captions of a dataset comma-separated lists of Danbooru tags.

    python replace_blanks.py --dataset-folder ./dataset --dry-run

1girl whiskey long_hair    ->  1girl,whiskey,long_hair    a line without another separator: blanks separate
looking at viewer smile    ->  looking_at_viewer,smile    but not within a tag that the vocabulary knows
long hair, blue eyes       ->  long_hair,blue_eyes        commas, semicolons, |||, Chinese ones and line ends separate
(long hair:1.2), a \\(bb\\)  ->  long_hair,a_(bb)           weights and escapes of prompts are undone

Only a .txt with a picture beside it is touched. UTF-16, GBK and Shift-JIS become UTF-8. What stood there is kept in
replace_blanks.undo.jsonl of its folder, and --undo brings it back.
"""

from tagger import cli  # first, so that an interrupt while the others are imported is one line

# isort: split

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tagger.files import UserError, locked_folder, write_text
from tagger.formats import text_encoding
from tagger.formats.pairs import UNDO_SUFFIX, captions_of, folders_of
from tagger.formats.tag_lists import TagReader, format_tags, parse_tags
from tagger.formats.undo_log import Change, UndoLog
from tagger.formats.vocabulary import VOCABULARY_FILE, read_vocabulary

SHIPPED_VOCABULARY = Path(__file__).with_name(VOCABULARY_FILE)
UNDO_FILE = f"replace_blanks{UNDO_SUFFIX}"
BATCH = 256  # files whose old texts are on the disk before the first of them is changed
SEPARATOR = re.compile(r"[,，、]|\|\|\||;(?=\s|$)")  # within a line
SHOWN = 20  # names of files that could not be brought back


@dataclass(frozen=True)
class Settings:
    """What was asked for; see the flags."""

    folder: Path
    recursive: bool
    vocabulary: Path
    dry_run: bool
    undo: bool


def parse_arguments(argv: Sequence[str] | None) -> Settings:
    parser = cli.ArgumentParser(doc=__doc__ or "")
    parser.add_argument(
        "--dataset-folder", type=Path, default=Path("dataset"), help="pictures with captions beside them"
    )
    parser.add_argument("--recursive", action="store_true", help="captions in the folders below, too")
    parser.add_argument(
        "--tags-csv",
        type=Path,
        default=SHIPPED_VOCABULARY,
        help="the vocabulary, which tells what blanks are within a tag",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would change, change nothing")
    parser.add_argument("--undo", action="store_true", help="bring back what earlier runs changed")
    arguments = parser.parse_args(argv)
    return Settings(
        folder=arguments.dataset_folder,
        recursive=arguments.recursive,
        vocabulary=arguments.tags_csv,
        dry_run=arguments.dry_run,
        undo=arguments.undo,
    )


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


# --- the folders ----------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts over folders: captions, those of them that changed or were left out, and txt files without a picture."""

    captions: int = 0
    changed: int = 0
    left_out: int = 0
    others: int = 0


def tidied_captions(
    paths: Sequence[Path], reader: TagReader, known: Collection[str]
) -> Iterator[tuple[Path, bytes, str] | UserError]:
    """Each caption that has to change, with its bytes and its new text, or why it cannot be read."""
    for path in paths:
        try:
            data = path.read_bytes()
            text, _ = text_encoding.decode(data)
        except OSError as error:
            yield UserError(f"{path}: {error.strerror}; make the file readable, or move it away")
        except UnicodeError as error:
            yield UserError(f"{path}: {error}; save it as UTF-8")
        else:
            # A line end behind the last tag is nothing to rewrite a file for.
            if (tidied := tidy(text, reader, known)).encode() != data.rstrip(b"\r\n"):
                yield path, data, tidied


def tidy_folder(folder: Path, settings: Settings, reader: TagReader, known: Collection[str], tally: Tally) -> None:
    """Tidy the captions of one folder, which has an undo log of its own, and count them."""
    paths, others = captions_of(folder)
    tally.captions += len(paths)
    tally.others += others
    if not paths:
        return
    log = UndoLog(folder / UNDO_FILE)
    with nullcontext() if settings.dry_run else locked_folder(folder):
        results = tidied_captions(paths, reader, known)
        while batch := list(islice(results, BATCH)):
            changes = []
            for result in batch:
                if isinstance(result, UserError):
                    cli.warn(f"left out: {result}")
                    tally.left_out += 1
                else:
                    changes.append(result)
            if not settings.dry_run and changes:
                log.append(Change.to(path, before, after.encode()) for path, before, after in changes)
            for path, _, after in changes:
                if settings.dry_run:
                    print(f"{path.relative_to(settings.folder)}: {after}")
                else:
                    write_text(path, after)
            tally.changed += len(changes)


def tidy_folders(settings: Settings) -> int:
    """Tidy all captions; the exit code."""
    known = read_vocabulary(settings.vocabulary, "name the CSV with --tags-csv").index
    reader, tally = TagReader(known), Tally()
    for folder in folders_of(settings.folder, settings.recursive):
        tidy_folder(folder, settings, reader, known, tally)
    if not tally.captions:
        raise UserError(
            f"{settings.folder}: no picture with a .txt beside it; fetch some pairs with simple_dan_crawl.py, or name "
            "another --dataset-folder" + ("" if settings.recursive else ", or pass --recursive for the folders below")
        )
    if weights := reader.weights_in_words():
        cli.warn(f"{weights}; the weights were left out")
    would = "would be " if settings.dry_run else ""
    left_out = f", {tally.left_out} left out" if tally.left_out else ""
    print(f"{tally.changed} of {tally.captions} captions {would}changed{left_out}")
    if tally.changed and not settings.dry_run:
        where = f"{UNDO_FILE} of each folder" if settings.recursive else f"{settings.folder / UNDO_FILE}"
        undo_flags = "--undo --recursive brings" if settings.recursive else "--undo brings"
        print(f"{where} has what stood there; {undo_flags} it back")
    if tally.others:
        cli.warn(f"{tally.others} txt files have no picture beside them and were left alone")
    return cli.INCOMPLETE if tally.left_out else cli.DONE


def undo_folders(settings: Settings) -> int:
    """Bring back what stood in the captions before; the exit code."""
    folders = [folder for folder in folders_of(settings.folder, settings.recursive) if (folder / UNDO_FILE).exists()]
    restored, left_out = [], 0
    for folder in folders or [settings.folder]:  # without any log, reading says so
        log = UndoLog(folder / UNDO_FILE)
        if settings.dry_run:
            names = sorted({change.name for change in log.read()})
            restored += [(folder / name).relative_to(settings.folder) for name in names]
            continue
        with locked_folder(folder):
            done, left = log.undo()
        restored += [Path(name) for name in done]
        left_out += len(left)
        for name in left[:SHOWN]:
            cli.warn(f"left out: {folder / name}: changed since, or gone; the old text is in {log.path}")
    if settings.dry_run:
        print(*restored, f"{len(restored)} captions would be brought back", sep="\n")
        return cli.DONE
    print(f"{len(restored)} captions brought back" + (f", {left_out} left out" if left_out else ""))
    return cli.INCOMPLETE if left_out else cli.DONE


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    settings = parse_arguments(argv)
    if not settings.folder.is_dir():
        raise UserError(f"{settings.folder}: no such folder; name the dataset with --dataset-folder")
    return undo_folders(settings) if settings.undo else tidy_folders(settings)


if __name__ == "__main__":
    sys.exit(main())
