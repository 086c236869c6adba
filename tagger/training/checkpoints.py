"""The files of a run: the folder of its checkpoints, what a killed run needs to go on, and the signal to stop.

A state for going on is a file `resume_<step>.pt` in the output folder, written whole or not at all; the newest two are
kept, so that even a disk that lost the newest leaves one:

    state = checkpoints.newest_state(Path("checkpoints"), hint="begin again")
"""

import re
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from tagger import cli
from tagger.files import UserError, replacing, write_json
from tagger.formats.checkpoint import CONFIG_FILE, STATE_PATTERN, best_name, epoch_name
from tagger.formats.vocabulary import VOCABULARY_FILE, Vocabulary, write_vocabulary

METRICS_FILE = "metrics.csv"  # a row per epoch
CURVES_FILE = "curves.png"

KEPT_STATES = 2
STATE_NAME = re.compile(r"resume_(\d+)\.pt")


class DifferentSettings(UserError):
    """A run is resumed with another value than it began with.

    Attributes:
        name: of the setting, or words for what differs.
        saved, now: the two values.
    """

    def __init__(self, name: str, saved: object, now: object) -> None:
        super().__init__(f"{name}: the run that shall go on has {saved}, not {now}")
        self.name, self.saved, self.now = name, saved, now


class StopRequest:
    """Turns SIGTERM, which schedulers and `kill` send, into a flag that the training loop looks at."""

    def __init__(self) -> None:
        self.asked = False
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set a handler
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


# --- the folder -----------------------------------------------------------------------------------------------------


def prepare_output(folder: Path, config: Mapping[str, Any], vocabulary: Vocabulary, overwrite: bool, hint: str) -> None:
    """Write all that inference needs but the weights: before the first epoch, so that any checkpoint is complete.

    Args:
        overwrite: remove the checkpoints of an earlier run.
        hint: ends the error, as in "name another folder".

    Raises:
        UserError: the folder holds checkpoints of an earlier run, and `overwrite` is not set.
    """
    folder.mkdir(parents=True, exist_ok=True)
    patterns = (epoch_name("*", "*"), best_name("*"), STATE_PATTERN)
    earlier = sorted(path for pattern in patterns for path in folder.glob(pattern))
    # A state of step 0 holds nothing learnt: the run that wrote it died before its first checkpoint.
    worth_keeping = [path for path in earlier if path != state_path(folder, 0)]
    if worth_keeping and not overwrite:
        raise UserError(f"{folder}: holds {worth_keeping[0].name} of an earlier run; {hint}")
    for path in earlier:  # a shorter run must not end among the later epochs of another
        path.unlink()
    write_vocabulary(folder / VOCABULARY_FILE, vocabulary)
    write_json(folder / CONFIG_FILE, config)


def prune_checkpoints(folder: Path, model: str, keep: int) -> None:
    """Remove all but the newest `keep` epoch checkpoints of a model; 0 keeps all. The best one stays in any case."""
    if not keep:
        return
    pattern = re.compile(epoch_name(re.escape(model), r"(\d+)"))
    paths = folder.glob(epoch_name("*", "*"))
    found = sorted((int(match[1]), path) for path in paths if (match := pattern.fullmatch(path.name)))
    for _, path in found[:-keep]:
        path.unlink()


# --- states from which a run goes on --------------------------------------------------------------------------------


def state_path(folder: Path, step: int) -> Path:
    """Where the state after `step` optimizer steps lies."""
    return folder / f"resume_{step:08}.pt"


def _states(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the resume states in a folder, the newest first."""
    found = [(int(match[1]), path) for path in folder.glob(STATE_PATTERN) if (match := STATE_NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def save_state(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` optimizer steps, then remove all but the newest two.

    Args:
        state: tensors, numbers, strings, and lists and dicts of them: what `torch.load(weights_only=True)` takes.
    """
    path = state_path(folder, step)
    with replacing(path, "wb") as file:
        torch.save(dict(state), file)
    for _, old in _states(folder)[KEPT_STATES:]:
        old.unlink()
    return path


def newest_state(folder: Path, hint: str) -> dict[str, Any] | None:
    """The newest state that can be read, its tensors on the CPU; None where the folder holds none at all.

    Args:
        hint: ends the error, as in "begin again in another folder".

    Raises:
        UserError: there are states, but all are damaged.
    """
    states = _states(folder)
    for _, path in states:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zipfile, pickle and torch each have their own for a damaged file
            cli.warn(f"warning: {path}: damaged ({type(error).__name__}), passed over")
        else:
            return state
    if states:
        raise UserError(f"{folder}: no {STATE_PATTERN} can be read; {hint}")
    return None


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than the run began with.

    Args:
        saved, now: what decides about the weights, by setting (`lr`) or in words (`the vocabulary`).

    Raises:
        DifferentSettings: for the first one that differs.
    """
    saved = {name.removeprefix("--"): value for name, value in saved.items()}  # up to 0.2, states named flags
    for name, value in now.items():
        if saved.get(name) != value:
            raise DifferentSettings(name, saved.get(name), value)
