"""Every flag is a setting, and those that decide about the weights are those that resuming compares.

python -m pytest tests/training/test_settings.py
"""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import train_pytorch as script
from tagger.training import checkpoints
from tagger.training.settings import ModelSettings, RecipeSettings, TrainingSettings

# What may change between the parts of a run: it changes where, how fast and how long, or the state itself holds it.
FREE = {
    *("dataset_root", "val_images", "num_workers", "model", "pretrained", "grad_checkpointing", "compile"),
    *("batch_size", "grad_accumulation", "patience", "device"),
    *("output_dir", "overwrite", "resume", "save_every_steps", "keep_checkpoints", "export_dir", "dry_run"),
    *("teach", "unteach"),
}


def test_every_field_is_a_flag_and_every_flag_a_field() -> None:
    flags = vars(script.parse_arguments([])[0]).keys()
    fields = [field.name for group in vars(TrainingSettings()).values() for field in dataclasses.fields(group)]
    assert flags == set(fields) and max(Counter(fields).values()) == 1


def test_every_field_decides_or_is_free() -> None:
    settings = TrainingSettings()
    assert settings.decisive().keys() | FREE == settings.flat().keys()
    assert not settings.decisive().keys() & FREE


@pytest.mark.parametrize("name", TrainingSettings().decisive())
def test_a_decisive_field_is_compared(name: str) -> None:
    began = TrainingSettings()
    value = began.flat()[name]
    other: Any = f"not {value}" if isinstance(value, str) else (value or 0) - 1  # a run may become longer
    went_on = TrainingSettings.from_flat({name: other})
    assert went_on.flat()[name] == other
    with pytest.raises(checkpoints.DifferentSettings) as caught:
        checkpoints.check_same(began.decisive(), went_on.decisive())
    assert caught.value.differences == [checkpoints.Difference(name, value, other)]


def test_all_that_differs_is_named_but_a_longer_run() -> None:
    began = TrainingSettings.from_flat({"epochs": 3}).decisive()
    with pytest.raises(checkpoints.DifferentSettings) as caught:
        checkpoints.check_same(began, TrainingSettings.from_flat({"epochs": 5, "lr": 0.5, "seed": 7}).decisive())
    assert [each.name for each in caught.value.differences] == ["lr", "seed"]
    checkpoints.check_same(began, TrainingSettings.from_flat({"epochs": 5}).decisive())
    with pytest.raises(checkpoints.DifferentSettings, match="epochs: the run that shall go on has 3, not 2"):
        checkpoints.check_same(began, TrainingSettings.from_flat({"epochs": 2}).decisive())


def test_what_a_run_that_goes_on_takes_over() -> None:
    settings = TrainingSettings.from_flat({"lr": 0.5, "batch_size": 7, "dataset_root": Path("a"), "device": "cpu"})
    kept = settings.remembered()
    assert json.loads(json.dumps(kept)) == kept and "device" not in kept
    state = {"remembered": kept | {"of a later version": 1}}
    resumed = script.make_settings({"output_dir": Path("b"), "seed": 3, "pretrained": "x"}, state)
    assert resumed.recipe == dataclasses.replace(settings.recipe, seed=3)
    assert resumed.data.dataset_root == Path("a").resolve() and resumed.model.patch_dropout == 0.75
    assert resumed.run.output_dir == Path("b") and resumed.run.device == "auto"


def test_free_fields_may_change() -> None:
    changed = TrainingSettings.from_flat({"batch_size": 1, "patience": 1, "output_dir": Path("elsewhere")})
    checkpoints.check_same(TrainingSettings().decisive(), changed.decisive())


def test_a_state_that_names_flags_is_understood() -> None:
    """As those of version 0.2 do."""
    now = {"the vocabulary": "abc", **TrainingSettings().decisive()}
    saved = {"the vocabulary": "abc"} | {f"--{name}": value for name, value in TrainingSettings().decisive().items()}
    checkpoints.check_same(saved, now)
    with pytest.raises(checkpoints.DifferentSettings, match=r"^lr: the run that shall go on has 0\.0001, not 0\.5$"):
        checkpoints.check_same(saved, TrainingSettings.from_flat({"lr": 0.5}).decisive())


def test_settings_are_made_from_values_by_name() -> None:
    settings = TrainingSettings.from_flat({"lr": 0.5, "drop_path": 0.25})
    assert settings == TrainingSettings(model=ModelSettings(drop_path=0.25), recipe=RecipeSettings(lr=0.5))
    assert TrainingSettings.from_flat(settings.flat()) == settings
    with pytest.raises(TypeError, match="no setting speed"):
        TrainingSettings.from_flat({"speed": 1})


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], ("muon", 0.75, 1.0)),
        (["--pretrained", "x"], ("adamw", 0.0, 0.75)),
        (["--pretrained", "x", "--optimizer", "muon", "--patch_dropout", "0.5"], ("muon", 0.5, 0.75)),
        (["--patch_dropout", "0", "--layer_decay", "0.5"], ("muon", 0.0, 0.5)),
    ],
)
def test_the_recipe_depends_on_where_the_weights_come_from(
    flags: list[str], expected: tuple[str, float, float]
) -> None:
    settings = script.make_settings(script.parse_arguments(flags)[1])
    assert (settings.recipe.optimizer, settings.model.patch_dropout, settings.recipe.layer_decay) == expected


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingSettings().recipe.lr = 1.0  # type: ignore[misc]
