"""The recipe against formulas written out here, and the order of images against what the README promises.

python -m pytest tests/training/test_optimizer.py
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812 the field's habit

import models
from models import make_config
from tagger.files import UserError
from tagger.formats.records import RecordFile
from tagger.training.data import EpochBatches, TaggedImages, collate, mixup, seed_step
from tagger.training.loss import LOSSES, TaggingLoss, positive_weights, start_head_at_log_odds, tag_frequency
from tagger.training.optimizer import make_optimizer, parameter_groups, warmup_and_cosine


@pytest.fixture(scope="module")
def model() -> Any:
    return models.build(make_config("eva02_tiny", 28, 7))


def test_bce_is_summed_over_labels_and_averaged_over_images() -> None:
    logits, targets = torch.randn(5, 7), torch.randint(2, (5, 7)).float()
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
    torch.testing.assert_close(TaggingLoss("bce")(logits, targets), expected)


def test_asl_plays_down_easy_negatives() -> None:
    logits, targets = torch.randn(5, 7, dtype=torch.bfloat16), torch.randint(2, (5, 7)).float()
    p = torch.sigmoid(logits.float())
    expected = -(targets * p.log() + (1 - targets) * p**2 * (1 - p).log()).sum() / 5
    loss = TaggingLoss("asl")(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_positives_of_rare_tags_weigh_more() -> None:
    frequency = torch.tensor([0.4, 0.1, 0.025, 1e-6], dtype=torch.float64)
    assert positive_weights(frequency, 0.0) is None
    weight = positive_weights(frequency, 0.5)
    assert weight is not None
    mean = frequency.mean().item()
    assert weight.tolist() == pytest.approx([1.0, math.sqrt(mean / 0.1), math.sqrt(mean / 0.025), 10.0])
    logits, targets = torch.zeros(1, 4), torch.ones(1, 4)
    for kind in LOSSES:
        plain, weighted = (TaggingLoss(kind, chosen)(logits, targets) for chosen in (None, weight))
        assert (weighted / plain).item() == pytest.approx(weight.mean().item())


def test_the_head_starts_at_the_log_odds(model: Any) -> None:
    frequency = tag_frequency([0, 1, 2, 3, 10, 50, 100], 100)
    start_head_at_log_odds(model, frequency)
    expected = (torch.tensor([0, 1, 2, 3, 10, 50, 100]) + 0.5) / 101
    torch.testing.assert_close(torch.sigmoid(model.head.bias), expected)


def test_groups_have_the_decay_and_the_rate_they_should(model: Any) -> None:
    groups = parameter_groups(model, weight_decay=0.05, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    of = {names[id(p)]: group for group in groups for p in group["params"]}
    assert of.keys() == set(names.values())
    for name, group in of.items():
        undecayed = name.endswith("bias") or "norm" in name or name in ("cls_token", "pos_embed")
        assert group["weight_decay"] == (0.0 if undecayed else 0.05), name
    # 12 blocks below the head, and the patch embedding below them.
    assert of["head.weight"]["lr_scale"] == 1.0
    scales = [of[f"blocks.{number}.mlp.fc2.weight"]["lr_scale"] for number in range(12)]
    assert [above / below for below, above in itertools.pairwise(scales)] == [2.0] * 11
    assert scales[11] == 0.5
    assert of["patch_embed.proj.weight"]["lr_scale"] == scales[0] / 2

    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = warmup_and_cosine(optimizer, total_steps=100, warmup=0.1)
    rates = []
    for step in range(100):
        schedule.step_update(step)
        rates.append({group["lr_scale"]: group["lr"] for group in optimizer.param_groups})
    assert rates[0][1.0] == 0.0
    assert rates[5][1.0] == pytest.approx(5e-4)
    assert rates[10][1.0] == pytest.approx(1e-3) == max(rate[1.0] for rate in rates)
    assert rates[55][1.0] == pytest.approx(5e-4)
    assert rates[99][1.0] < 1e-6
    assert all(rate[scale] == pytest.approx(rate[1.0] * scale) for rate in rates for scale in rate)


def test_muon_is_for_the_matrices_inside(model: Any) -> None:
    optimizer = make_optimizer("muon", model, lr=1e-3, weight_decay=0.05, layer_decay=1.0)
    by_muon = {id(p) for group in optimizer.param_groups if not group["use_fallback"] for p in group["params"]}
    names = {name for name, parameter in model.named_parameters() if id(parameter) in by_muon}
    assert {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.11.mlp.fc2.weight"} <= names
    assert all(name.startswith("blocks.") or name == "patch_embed.proj.weight" for name in names)
    everything = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(everything) == len(set(map(id, everything))) == len(list(model.parameters()))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(torch.randn(2, 3, 28, 28)).square().sum().backward()
    optimizer.step()
    moved = (model.blocks[0].attn.qkv.weight - before["blocks.0.attn.qkv.weight"]).detach() / 1e-3
    values = torch.linalg.svdvals(moved)
    # Orthogonal, but for the directions that ten tokens have no gradient in; of the size that AdamW's would have.
    assert values[4] > values[0] / 2
    assert values[0].item() == pytest.approx(0.2 * 576**0.5, rel=0.4)


def test_mixup_blends_images_and_targets_alike() -> None:
    pixels, targets = torch.rand(4, 3, 2, 2), torch.eye(4)
    same, _ = mixup(pixels, targets, 0.0, np.random.default_rng(0))
    assert same is pixels
    mixed, blended = mixup(pixels, targets, 0.4, np.random.default_rng(0))
    share = blended[0, 0].item()
    assert 0 < share < 1
    torch.testing.assert_close(blended[0], torch.tensor([share, 0, 0, 1 - share]))
    torch.testing.assert_close(mixed[1], share * pixels[1] + (1 - share) * pixels[2])


def test_chance_is_a_function_of_seed_step_and_process() -> None:
    def drawn(seed: int, step: int, rank: int) -> tuple[float, float]:
        random = seed_step(seed, step, rank)
        return random.random(), torch.rand(()).item()

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    assert len({value for key in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)) for value in drawn(*key)}) == 8


def test_a_cutout_hides_its_share(records: Any) -> None:
    train = RecordFile(records / "record_shards_train" / "aibooru_train.tfrecord")
    plain = TaggedImages(train, 56, "RGB")
    cut = TaggedImages(train, 56, "RGB", cutout=0.25)

    def pixels_of(dataset: TaggedImages, epoch: int) -> np.ndarray:
        sample = dataset[epoch, 0]
        assert not isinstance(sample, UserError)
        return sample[0].numpy()

    before, after, again = pixels_of(plain, 1), pixels_of(cut, 1), pixels_of(cut, 1)
    hole = (after == 128).all(-1) & (before != 128).any(-1)
    assert abs(hole.sum() - 28 * 28) < 28
    assert (before[~hole] == after[~hole]).all() and (after == again).all()
    assert (after != pixels_of(cut, 2)).any()


@given(
    length=st.integers(1, 60),
    batch_size=st.integers(1, 8),
    accumulation=st.integers(1, 3),
    world_size=st.integers(1, 4),
    shuffle=st.booleans(),
)
def test_every_image_comes_once_and_processes_share_each_step(
    length: int, batch_size: int, accumulation: int, world_size: int, shuffle: bool
) -> None:
    everyone = [
        EpochBatches(length, batch_size, shuffle=shuffle, accumulation=accumulation, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    seen = [list(batches) for batches in everyone]
    numbers = sorted(number for batches in seen for batch in batches for _, number in batch)
    left_out = length % world_size if shuffle else 0
    assert len(numbers) == len(set(numbers)) == length - left_out
    assert [len(batches) for batches in everyone] == [len(batches) for batches in seen]
    if shuffle:
        assert len({len(batches) for batches in seen}) == 1
        # One process with all of it per batch sees in each step what they see together.
        alone = EpochBatches(length, batch_size * accumulation * world_size, shuffle=True)
        for step, together in enumerate(alone):
            if step < everyone[0].steps and len(together) % world_size == 0:
                size = [batches.images_of(step) for batches in everyone]
                assert sum(size) == len(together)
    for batches, given_out in zip(everyone, seen, strict=True):
        batches.first_step = batches.steps // 2
        rest = list(batches)
        assert rest == given_out[len(given_out) - len(rest) :]
        assert sum(map(len, rest)) == sum(batches.images_of(step) for step in range(batches.first_step, batches.steps))


def test_labels_stay_sparse_until_the_device() -> None:
    pixels = torch.zeros(2, 2, 3, dtype=torch.uint8)
    batch = collate([(pixels, [3]), (pixels, []), (pixels, [0, 99_999])])
    assert not isinstance(batch, UserError)
    stacked, rows, columns = batch
    assert stacked.shape == (3, 2, 2, 3)
    assert (rows.tolist(), columns.tolist()) == ([0, 2, 2], [3, 0, 99_999])
