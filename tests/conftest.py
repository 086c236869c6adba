"""The sample dataset, its TFRecords and a checkpoint trained on them, each made once and never changed by a test.

tensorflow and torch must not share a process: tensorflow runs in processes of its own, here and in the tests.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import safetensors.torch
import timm
import torch

import train_pytorch
from examples.sample_booru.__main__ import CATEGORIES, tags_of
from examples.sample_booru.drawing import draw_post
from tests.helpers import run_script, write_csv

# derandomize: the same examples in every run, so that a failure is one commit's and not one day's.
hypothesis.settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("tests")

# pytest -n 2: the workers share the cores, and threads that outnumber them wait for each other, twenty times as long
# as they compute. That holds for the scripts that the tests start, too.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

POSTS = 24
STORED_SIZE = 56  # pixels of the records' images
INPUT_SIZE = 28  # pixels of the models' input: two by two patches


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test takes the user's cached probabilities, or leaves any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def tensorflow_stays_out() -> Iterator[None]:
    yield
    assert "tensorflow" not in sys.modules, "a test imported tensorflow beside torch"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Image + txt pairs with ratings, general tags, characters and artists, and the tag_categories.csv for them."""
    folder = tmp_path_factory.mktemp("dataset")
    categories: dict[str, int] = {}
    for number in range(POSTS):
        post = draw_post(number, kind="jpg")
        (folder / f"{number:02}.jpg").write_bytes(post.data)
        (folder / f"{number:02}.txt").write_text(",".join(tags_of(post, CATEGORIES)), encoding="utf-8")
        categories |= dict.fromkeys(post.character, 4) | dict.fromkeys(post.artist, 1)
    write_csv(folder / "tag_categories.csv", [f"{name},{category}" for name, category in sorted(categories.items())])
    return folder


@pytest.fixture(scope="session")
def records(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What create_tfrecord.py makes of the dataset: 18 + 6 images of 56 x 56 pixels."""
    folder = tmp_path_factory.mktemp("records")
    csv_path = write_csv(folder / "tags.csv", ["general,9", "sensitive,9", "questionable,9", "explicit,9"])
    flags = ["--dataset-folder", dataset, "--output-path", folder / "out", "--tags-csv", csv_path]
    done = run_script("create_tfrecord.py", *flags, "--img-size", STORED_SIZE, "--split-ratio", 0.75, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="session")
def checkpoint(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of eva02_tiny after one epoch on the records at 28 x 28 pixels."""
    folder = tmp_path_factory.mktemp("checkpoint") / "checkpoints"
    flags = ["--model", "eva02_tiny", "--image_size", INPUT_SIZE, "--epochs", 1, "--batch_size", 8, "--device", "cpu"]
    done = train_pytorch.main(["--dataset_root", str(records), "--output_dir", str(folder), *map(str, flags)])
    assert done == 0
    return folder


# WD v3's architectures, with few layers: timm's name, its arguments, pixels.
WD_V3: dict[str, tuple[str, dict[str, Any], int]] = {
    "eva02": ("eva02_tiny_patch14_336", {"img_size": 56, "depth": 2, "ref_feat_shape": [4, 4]}, 56),
    "vit": ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2, "class_token": False, "fc_norm": False}, 64),
    "swinv2": ("swinv2_tiny_window8_256", {"img_size": 64, "depths": [1, 1], "num_heads": [2, 4], "embed_dim": 16}, 64),
    "convnext": ("convnext_atto", {"depths": [1, 1, 1, 1]}, 64),
}


@pytest.fixture(params=WD_V3)
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Any]:
    """A repository as WD v3's, of each of its architectures, with few layers; and the model in it."""
    architecture, model_args, size = WD_V3[request.param]
    names = ["general", "sensitive", "questionable", "explicit", "1girl", "solo", "miku"]
    rows = [f"{name},{category},0" for name, category in zip(names, (9, 9, 9, 9, 0, 0, 4), strict=True)]
    text = "\n".join(["tag_id,name,category,count", *(f"{number},{row}" for number, row in enumerate(rows)), ""])
    (tmp_path / "selected_tags.csv").write_text(text, encoding="utf-8")
    torch.manual_seed(7)
    pool = {"global_pool": "avg"} if request.param in ("vit", "eva02") else {}
    model = timm.create_model(architecture, num_classes=7, **pool, **model_args).eval()
    head = model.get_classifier()
    torch.nn.init.normal_(head.weight, std=0.5)
    config = {
        "architecture": architecture,
        "num_classes": 7,
        "num_features": model.num_features,
        **pool,
        "model_args": model_args,
        "pretrained_cfg": {
            "input_size": [3, size, size],
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "num_classes": 7,
            "custom_load": False,
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    return tmp_path, model
