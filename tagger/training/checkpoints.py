"""The files of a run: the folder of its checkpoints, what a killed run needs to go on, and the signal to stop.

A state for going on is a file `resume_<step>.pt` in the output folder, written whole or not at all; the newest two are
kept, so that even a disk that lost the newest leaves one:

    state = checkpoints.newest_state(Path("checkpoints"), hint="begin again")
"""

import contextlib
import os
import re
import signal
import threading
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from tagger import cli
from tagger.files import UserError, check_output, check_writable, read_json, replacing, write_json
from tagger.formats.checkpoint import CONFIG_FILE, OUR_KEY, PROTOTYPES_FILE, STATE_PATTERN, best_name, epoch_name
from tagger.formats.thresholds import TAG_METRICS_FILE, THRESHOLDS_FILE
from tagger.formats.vocabulary import VOCABULARY_FILE, Vocabulary, write_vocabulary
from tagger.formats.weights import check_finite, check_sums

METRICS_FILE = "metrics.csv"  # a row per epoch
CURVES_FILE = "curves.png"

STATE_KEYS = frozenset(("settings", "config", "progress", "history", "report", "model", "optimizer", "ema"))
KEPT_STATES = 2
STATE_NAME = re.compile(r"resume_(\d+)\.pt")
CHECKPOINT_NAME = re.compile(r"(.+)_(?:best|epoch_\d+)\.pth")


@dataclass(frozen=True)
class Difference:
    """What a run that shall go on began with, and what it is given now.

    Attributes:
        name: of the setting, or words for what differs.
    """

    name: str
    saved: object
    now: object

    def __str__(self) -> str:
        saved = "none of a version before it" if self.saved is None else self.saved
        return f"{self.name}: the run that shall go on has {saved}, not {self.now}"


class DifferentSettings(UserError):
    """A run is resumed with other values than it began with."""

    def __init__(self, differences: Sequence[Difference]) -> None:
        super().__init__("; ".join(map(str, differences)))
        self.differences = differences


class StopRequest:
    """Turns SIGTERM, which schedulers and `kill` send, into a flag that the training loop looks at."""

    def __init__(self) -> None:
        self.asked = False
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set a handler
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


# --- the folder -----------------------------------------------------------------------------------------------------

# All that a run writes, whatever its checkpoints are called.
OUTPUTS = (CONFIG_FILE, VOCABULARY_FILE, THRESHOLDS_FILE, TAG_METRICS_FILE, METRICS_FILE, CURVES_FILE)


def earlier_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints and states in a folder."""
    patterns = (epoch_name("*", "*"), best_name("*"), STATE_PATTERN)
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def outputs_of_runs(folder: Path, models: Container[str | None]) -> list[Path]:
    """What runs with these models left in a folder, but for the two files that tell what it is.

    Not whatever ends like a checkpoint: among ours may lie somebody's yolo_best.pth.
    """
    of_weights = (THRESHOLDS_FILE, TAG_METRICS_FILE, METRICS_FILE, CURVES_FILE, PROTOTYPES_FILE)
    measured = [folder / name for name in of_weights]
    checkpoints = [
        path
        for path in earlier_checkpoints(folder)
        if (match := CHECKPOINT_NAME.fullmatch(path.name)) is None or match[1] in models
    ]
    return [path for path in (*checkpoints, *measured) if path.is_file()]


def model_in(folder: Path) -> str | None:
    """The model whose checkpoints a folder holds, by its config.json; None where that is not ours."""
    with contextlib.suppress(UserError):
        ours = read_json(folder / CONFIG_FILE, "").get(OUR_KEY)
        return str(ours.get("model")) if isinstance(ours, dict) else None
    return None


def check_folder(
    folder: Path, inputs: Sequence[Path], overwrite: bool, hint: str, overwrite_hint: str, resume_hint: str
) -> None:
    """Refuse a folder for the output of a new run that cannot be written to, or holds what a run must not replace.

    Args:
        inputs: files that the run reads.
        overwrite: whether it may replace an earlier run, or files that are not of a run.
        hint: ends the errors, as in "name another folder".
        overwrite_hint: ends those that `overwrite` would avoid.
        resume_hint: ends that of an earlier run.

    Raises:
        UserError: no folder, no permission, an input, a file of the toolkit, an earlier run, or somebody's files.
    """
    check_writable(folder, hint)
    # A state of step 0 holds nothing learnt: the run that wrote it died before its first checkpoint.
    worth_keeping = [path for path in earlier_checkpoints(folder) if path != state_path(folder, 0)]
    if worth_keeping and not overwrite:
        raise UserError(f"{folder}: holds {worth_keeping[0].name} of an earlier run; {resume_hint}")
    check_files(folder, OUTPUTS, is_ours(folder), inputs, overwrite, hint, overwrite_hint)


def check_files(
    folder: Path,
    names: Sequence[str],
    ours: bool,
    inputs: Sequence[Path],
    overwrite: bool,
    hint: str,
    overwrite_hint: str,
) -> None:
    """Refuse to write files into a folder that cannot be written to, or where others of these names stand.

    Args:
        ours: whether those that stand there are of an earlier run.

    Raises:
        UserError: see `check_folder`, whose other arguments these are.
    """
    check_writable(folder, hint)
    for name in names:
        check_output(
            folder / name,
            hint=hint,
            inputs=inputs,
            is_ours=lambda path: ours,
            overwrite=overwrite,
            overwrite_hint=overwrite_hint,
        )


def is_ours(folder: Path) -> bool:
    """Whether a folder is that of a run or an export of this toolkit, by its config.json."""
    with contextlib.suppress(UserError):  # none, or another program's
        return OUR_KEY in read_json(folder / CONFIG_FILE, "")
    return False


def prepare_output(folder: Path, config: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Write all that inference needs but the weights: before the first epoch, so that any checkpoint is complete.

    What an earlier run left is removed; see `check_folder`. A shorter run must not end among the later epochs of
    another, nor one without a validation split with the thresholds that were fitted to other weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in outputs_of_runs(folder, {config[OUR_KEY]["model"], model_in(folder)}):
        path.unlink()
    write_json(folder / CONFIG_FILE, config)  # first, for by it the folder is known as a run's
    write_vocabulary(folder / VOCABULARY_FILE, vocabulary)


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
        UserError: there are states, but all are damaged, hold weights that are no numbers, or are other files.
    """
    states = _states(folder)
    for _, path in states:
        try:
            check_sums(path)
            # Mapped: the processes of a machine share its pages. Windows keeps mapped files from being removed.
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=os.name != "nt")
            if not state.keys() >= STATE_KEYS:
                raise UserError(f"{path}: not a state of a run")
            check_finite(state["model"], path)
            check_finite(state["ema"] or {}, path)
        except UserError as error:
            cli.warn(f"warning: {str(error).partition(';')[0]}; passed over")
        except Exception as error:  # zipfile, pickle and torch each have their own for a damaged file
            cli.warn(f"warning: {path}: damaged ({type(error).__name__}); passed over")
        else:
            return state
    if states:
        raise UserError(f"{folder}: no {STATE_PATTERN} can be read; {hint}")
    return None


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than the run began with; but it may be longer.

    Args:
        saved, now: what decides about the weights, by setting (`lr`) or in words (`the vocabulary`).

    Raises:
        DifferentSettings: with all that differ.
    """
    saved = {name.removeprefix("--"): value for name, value in saved.items()}  # up to 0.2, states named flags
    found = [Difference(name, saved.get(name), value) for name, value in now.items() if saved.get(name) != value]
    if found := [each for each in found if not (each.name == "epochs" and is_longer(saved, now))]:
        raise DifferentSettings(found)


def is_longer(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a run that goes on has more epochs than it began with."""
    return int(saved.get("epochs", now["epochs"])) < int(now["epochs"])
