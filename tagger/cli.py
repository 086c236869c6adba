"""What the toolkit's command lines share: one-line errors, exit codes, and flags in either spelling.

python replace_blanks.py --dataset_folder ./dataset     # the same as --dataset-folder
"""

import argparse
import contextlib
import errno
import functools
import io
import os
import re
import sys
import time
from argparse import ArgumentTypeError as ArgumentTypeError  # scripts take it from here
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from tagger.files import UserError

VERSION = "0.2.0"  # of the toolkit; the top entry of CHANGELOG.md

# Exit codes: all done; something was left out; wrong arguments or input; and as <sysexits.h> and shells have them.
DONE, INCOMPLETE, UNUSABLE = 0, 1, 2
UNFORESEEN = 70  # EX_SOFTWARE
INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE

Item = TypeVar("Item")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines, and adds the default to every flag's help that does not tell it itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        flags_only = action.nargs == 0 or action.default in (None, argparse.SUPPRESS) or action.default in ((), [], "")
        if flags_only or "(default:" in text or not action.option_strings:
            return text
        shown = (
            "./%(default)s" if isinstance(action.default, Path) and not action.default.is_absolute() else "%(default)s"
        )
        return f"{text} (default: {shown})".strip()


class ArgumentParser(argparse.ArgumentParser):
    """argparse, with one-line errors and with `--two-words` accepted as `--two_words` and the other way round.

    Args:
        doc: a script's docstring, shown by --help.
        separator: "-" or "_", how the script spells its flags.
    """

    def __init__(self, *, doc: str, separator: str = "-") -> None:
        super().__init__(description=doc, formatter_class=HelpFormatter, allow_abbrev=False)
        self.separator = separator
        self._given: list[str] = []
        self.add_argument("--version", action="version", version=VERSION)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # argparse's own, which others call
        args = sys.argv[1:] if args is None else list(args)
        self._given = [self._respell(argument) for argument in args]
        return super().parse_known_args(self._given, namespace)

    def _respell(self, argument: str) -> str:
        flag, equals, value = argument.partition("=")
        if not flag.startswith("--"):
            return argument
        return "--" + flag[2:].replace("-", self.separator).replace("_", self.separator) + equals + value

    def error(self, message: str) -> NoReturn:
        if match := re.fullmatch(r"argument (--[\w-]+)(?:/\S+)?: expected .*argument.*", message):
            at = self._given.index(match[1]) if match[1] in self._given else -1
            if 0 <= at < len(self._given) - 1 and (value := self._given[at + 1]).startswith("-"):
                message += f"; a value that begins with a dash is written {match[1]}={value}"
        self.exit(UNUSABLE, f"{self.prog}: error: {message} (see --help)\n")


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """Decorate a script's `main(argv=None) -> int`: however it ends, one line on stderr says why.

    What users can cause ends with exit code 2, an interrupt with 130, a closed pipe with 141, and what nobody foresaw
    with 70 and the name of a file that has the traceback.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        global _program
        for stream in (sys.stdout, sys.stderr):
            # A tag that the console's code page lacks (GBK, cp1252) must not stop the run.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        _program = Path(sys.modules[main.__module__].__file__ or "").name
        try:
            code = main(argv)
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a full disk can still be told of
            return code
        except UserError as error:
            message = " ".join(str(error).split("\n"))
        except BrokenPipeError:  # `| head` has seen enough
            _drop_stdout()
            return BROKEN_PIPE
        except OSError as error:
            if error.filename is None and error.errno == errno.ENOSPC:
                _drop_stdout()  # it may be what is full, and would complain again when the interpreter flushes it
            where = f"{error.filename}: " if error.filename else ""
            message = f"{where}{error.strerror or error}; check the path, its permissions and the space on the disk"
        except KeyboardInterrupt:
            warn("interrupted")
            return INTERRUPTED
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warn(f"error: nobody foresaw this ({reason}); please report it with {_keep_traceback()}")
            return UNFORESEEN
        warn(f"error: {message}")
        return UNUSABLE

    return run


def _drop_stdout() -> None:
    """Let what is still to be written to stdout vanish, or the interpreter would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _keep_traceback() -> str:
    """Write the current exception's traceback to a file; its path, or the traceback itself where no file can be."""
    import tempfile  # late, with traceback: they take 5 % of an answer from the cache
    import traceback

    text = traceback.format_exc()
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{_program}-", suffix=".log", delete=False, encoding="utf-8"
        ) as log:
            log.write(f"{' '.join(sys.argv)}\n{VERSION}, Python {sys.version}\n{text}")
        return log.name
    except OSError:
        return text


_program = ""  # the script that `command` runs, such as wdv3_pytorch.py


def warn(message: str) -> None:
    """Write a line to stderr behind the running script's name, above a progress bar where there is one."""
    line = f"{_program}: {message}" if _program else message
    with contextlib.suppress(OSError):  # a stderr that takes nothing is no reason to stop
        if "tqdm" in sys.modules:
            from tqdm import tqdm

            tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)


def _tell_of_interrupt(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A sys.excepthook for an interrupt before `main` began, or after it ended."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


# At import, and scripts import this module before all others: torch alone takes three seconds to be imported, in which
# people think better of what they have begun.
sys.excepthook = _tell_of_interrupt


# Where stderr is no terminal, a line tells of progress after a tenth of the work, but no two within a second, and one
# after five minutes at the latest.
LINE_SHARE, SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 1.0, 300.0


def with_progress(items: Iterable[Item], total: int, noun: str) -> Iterator[Item]:
    """The items, with a bar on stderr, or with a few lines where stderr is a file or a pipe.

    Args:
        total: how many items there are.
        noun: what one of them is, as in "image".
    """
    if sys.stderr is None or sys.stderr.isatty():
        from tqdm import tqdm  # late: it takes as long as half an answer from the cache

        yield from tqdm(items, total=total, unit=noun, dynamic_ncols=True, disable=None, leave=False)
        return
    started = told_at = time.monotonic()
    told = 0
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        tenth = done - told >= LINE_SHARE * total and now - told_at >= SHORTEST_PAUSE
        if done < total and (tenth or now - told_at >= LONGEST_PAUSE):
            rate = done / (now - started)
            warn(f"{done:,} of {counted(total, noun)}, {rate:.1f} a second, {(total - done) / rate / 60:.0f} min left")
            told_at, told = now, done


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`, `12,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def command_line(words: Sequence[str]) -> str:
    """Words as they are typed in this system's shell."""
    import shlex  # late: messages need them, and the second answer of inference does not
    import subprocess

    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def file_path(text: str) -> Path:
    """An argparse type: a file to write; `out/` is a folder, whose slash a Path would lose."""
    if text.endswith(("/", os.sep)):
        raise ArgumentTypeError(f"{text} is a folder; name a file in it")
    return Path(text)


def fraction(text: str) -> float:
    """An argparse type: a number in 0..1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def positive_fraction(text: str) -> float:
    """An argparse type: a number above 0 and at most 1."""
    if not (value := fraction(text)):
        raise ArgumentTypeError(f"{text} is not above 0")
    return value


def proper_fraction(text: str) -> float:
    """An argparse type: a number of at least 0 and below 1."""
    if (value := fraction(text)) == 1:
        raise ArgumentTypeError(f"{text} is not below 1")
    return value


def positive_int(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"{text} is not at least 1")
    return value


def non_negative_int(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise ArgumentTypeError(f"{text} is not at least 0")
    return value


def non_negative_float(text: str) -> float:
    """An argparse type: a finite number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text} is not a number above 0")
    return value
