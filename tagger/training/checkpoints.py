"""What a killed run needs to go on bit for bit, and the signals that ask it to stop.

A state is a file `resume_<step>.pt` in the output folder, written whole or not at all; the newest two are kept, so that
even a disk that lost the newest leaves one:

    state = training_state.newest(Path("checkpoints"))
"""

import re
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from tagger.files import UserError, replacing

KEPT_STATES = 2
STATE_NAME = re.compile(r"resume_(\d+)\.pt")


class StopRequest:
    """Turns SIGTERM, which schedulers and `kill` send, into a flag that the training loop looks at."""

    def __init__(self) -> None:
        self.asked = False
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _states(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the resume states in a folder, the newest first."""
    found = [(int(match[1]), path) for path in folder.glob("resume_*.pt") if (match := STATE_NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def path_of(folder: Path, step: int) -> Path:
    """Where the state after `step` optimizer steps lies."""
    return folder / f"resume_{step:08}.pt"


def save(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write the state after `step` optimizer steps, then remove all but the newest two.

    Args:
        state: tensors, numbers, strings, and lists and dicts of them: what `torch.load(weights_only=True)` takes.
    """
    path = path_of(folder, step)
    with replacing(path, "wb") as file:
        torch.save(dict(state), file)
    for _, old in _states(folder)[KEPT_STATES:]:
        old.unlink()
    return path


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest state that can be read, its tensors on the CPU; None where the folder holds none at all.

    Raises:
        UserError: there are states, but all are damaged.
    """
    states = _states(folder)
    for _, path in states:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # zipfile, pickle and torch each have their own for a damaged file
            print(f"train_pytorch.py: warning: {path}: damaged ({type(error).__name__}), passed over", file=sys.stderr)
    if states:
        raise UserError(f"{folder}: no resume_*.pt can be read; start again with --overwrite")
    return None


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than the run began with.

    Args:
        saved, now: what decides about the weights, by flag (`--lr`) or by a word (`the vocabulary`).

    Raises:
        UserError: naming the first setting that differs.
    """
    for name, value in now.items():
        if saved.get(name) != value:
            hint = f"pass {name} {saved.get(name)}" if name.startswith("--") else "go on with what it began with"
            raise UserError(
                f"{name}: the run that shall go on has {saved.get(name)}, not {value}; {hint}, or begin another run "
                "with another --output_dir"
            )


def prune_checkpoints(folder: Path, model: str, keep: int) -> None:
    """Remove all but the newest `keep` epoch checkpoints of a model; 0 keeps all. The best one stays in any case."""
    pattern = re.compile(re.escape(model) + r"_epoch_(\d+)\.pth")
    found = sorted((int(match[1]), path) for path in folder.glob("*.pth") if (match := pattern.fullmatch(path.name)))
    for _, path in found[:-keep] if keep else []:
        path.unlink()
