"""Every benchmark that this machine can run, one after another, and one table of them: what the toolkit is worth here.

    python -m benchmarks --quick      # a minute or two: does everything run? The figures mean nothing
    python -m benchmarks              # or `make bench`: half an hour on two cores that have nothing else to do

Each makes its own data. What it compares with is named in the table where it is not installed (`pip install
gallery-dl`). The table goes to stdout, as Markdown; progress goes to stderr. --write puts it into docs/benchmarks.md,
and the most important lines into both READMEs. Exit code 1 where a benchmark broke off. For Linux and macOS:
Windows does not tell what ended processes took.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.runner import BENCHMARKS, chosen, measure
from benchmarks.table import Machine, Row, markdown, markdown_zh, say
from tagger.files import UserError, replacing

BEGIN, END = "<!-- python -m benchmarks --write begins -->", "<!-- python -m benchmarks --write ends -->"
BUSY = 0.2  # of a core: with more load than this before the first benchmark, times on the clock are in doubt
LEGEND = "`*`: by the clock, which other work on the machine falsifies. Ratio: ours / the other's."
LEGEND_ZH = "`*`：按实际时间计，机器上的其他任务会影响它。比值：本工具 / 对比对象。"


def documents(rows: Sequence[Row], where: Machine) -> dict[str, list[str]]:
    """What stands between the markers of each file: the table, and where it was measured."""
    return {
        "docs/benchmarks.md": [*markdown(rows), "", LEGEND, "", str(where)],
        "README.md": [*markdown(row for row in rows if row.zh), "", LEGEND, "", str(where)],
        "README.zh.md": [*markdown_zh(rows), "", LEGEND_ZH, "", where.zh()],
    }


def replace_between(text: str, lines: Iterable[str]) -> str:
    """A text with other lines between its markers.

    Raises:
        ValueError: it has not both of them, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError
    return "\n".join([before + BEGIN, *lines, END]) + after


def write(rows: Sequence[Row], where: Machine, root: Path) -> None:
    """Put the table into the files that show it.

    Raises:
        UserError: one of them has no place for it; then none is changed.
    """
    texts = {}
    for name, lines in documents(rows, where).items():
        path = root / name
        try:
            texts[path] = replace_between(path.read_text(encoding="utf-8"), lines)
        except (OSError, ValueError):
            raise UserError(f"{path}: it needs two lines, {BEGIN} and {END}") from None
    for path, text in texts.items():
        with replacing(path) as file:
            file.write(text)
        say(f"{path}: written")


def run_all(names: Sequence[str], keep: Path | None, quick: bool) -> list[Row]:
    """The rows of these benchmarks, in the order in which they ran.

    Args:
        keep: a folder for their pictures and records, which a later run takes up; None: they are removed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = (keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row for name in names for row in measure(name, folder, quick)]
    # So little data meets no goal, or meets it by chance.
    return [replace(row, goal=None) for row in rows] if quick else rows


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    hours = ", ".join(each.name for each in BENCHMARKS if each.hours)
    parser.add_argument("--quick", action="store_true", help="with so little data that the figures mean nothing")
    parser.add_argument(
        "--only",
        choices=[each.name for each in BENCHMARKS],
        action="append",
        default=[],
        metavar="NAME",
        help=f"run this one; may be given again. {hours} take long and run only when named. %(choices)s",
    )
    parser.add_argument("--folder", type=Path, help="keep pictures and records there (default: a temporary one)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md and the READMEs")
    arguments = parser.parse_args(argv)
    if arguments.write and (arguments.quick or arguments.only):
        parser.error("--write: the table in the documents is of a whole run, without --quick and --only")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    where = Machine.here()
    if (where.load or 0) > BUSY and not arguments.quick:
        say(f"warning: a load of {where.load:.1f} here; times on the clock want a machine that does nothing else")
    try:
        rows = run_all(chosen(arguments.only), arguments.folder, arguments.quick)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, what shells expect
    print(*markdown(rows), "", LEGEND, "", where, sep="\n")
    if arguments.quick:
        print("--quick: too little data for these figures to mean anything.")
    failed = any(row.failed for row in rows)
    if arguments.write and failed:
        say("not written: a benchmark broke off")
    elif arguments.write:
        try:
            write(rows, where, ROOT)
        except UserError as error:
            say(str(error))
            return 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
