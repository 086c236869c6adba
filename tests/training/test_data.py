"""The order of images, their augmentation and how processes share them, against what the README promises.

python -m pytest tests/training/test_data.py
"""

import math
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tagger import images
from tagger.files import UserError
from tagger.formats.records import RecordFile, RecordFiles
from tagger.preparation import on_white_square
from tagger.training.data import (
    EpochBatches,
    TaggedImages,
    collate,
    decode,
    in_order,
    make_loader,
    mixup,
    repeat_factors,
    seed_step,
    validation_subset,
)
from tests.conftest import STORED_SIZE

TRAIN = Path("record_shards_train", "aibooru_train.tfrecord")


# --- which image comes when ---


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_without_a_smaller_number_all_validation_images_count(size: int) -> None:
    assert validation_subset(100, size).tolist() == list(range(100))
    assert validation_subset(0, size).tolist() == []


def test_some_validation_images_are_the_same_in_every_epoch_and_of_both_halves() -> None:
    chosen = validation_subset(1000, 200)
    assert len(set(chosen.tolist())) == 200 and sorted(chosen) == list(chosen)
    assert chosen.tolist() == validation_subset(1000, 200).tolist()
    assert 70 < (chosen % 2).sum() < 130  # thresholds are fitted on even numbers and judged on odd ones
    batches = EpochBatches(200, 32, shuffle=False, subset=chosen)
    for batches.epoch in (1, 2):
        keys = [key for batch in batches for key in batch]
        assert keys == [(batches.epoch, number) for number in chosen.tolist()]


def test_processes_share_the_chosen_validation_images() -> None:
    chosen = validation_subset(1000, 33)
    shares = [
        [
            number
            for batch in EpochBatches(33, 8, shuffle=False, rank=rank, world_size=2, subset=chosen)
            for _, number in batch
        ]
        for rank in range(2)
    ]
    assert sorted(shares[0] + shares[1]) == chosen.tolist() and abs(len(shares[0]) - len(shares[1])) <= 8


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 2**32), st.integers(0, 100))
def test_the_order_depends_on_seed_and_epoch_alone(length: int, batch_size: int, seed: int, epoch: int) -> None:
    batches, again = (EpochBatches(length, batch_size, shuffle=True, seed=seed) for _ in range(2))
    again.epoch = epoch + 1
    list(again)  # having played another epoch changes nothing
    batches.epoch = again.epoch = epoch
    order = list(batches)
    assert order == list(again) and len(order) == len(batches)
    assert sorted(number for batch in order for _, number in batch) == list(range(length))
    assert all(len(batch) == batch_size for batch in order[:-1]) and {e for batch in order for e, _ in batch} <= {epoch}


def test_another_seed_or_epoch_is_another_order() -> None:
    def order(seed: int, epoch: int) -> list[list[tuple[int, int]]]:
        batches = EpochBatches(50, 50, shuffle=True, seed=seed)
        batches.epoch = epoch
        return [[(0, number) for _, number in batch] for batch in batches]

    assert len({str(order(seed, epoch)) for seed in (0, 1) for epoch in (1, 2)}) == 4


@given(
    repeats=st.lists(st.floats(1, 6), min_size=1, max_size=40),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 3),
    epoch=st.integers(0, 50),
)
def test_rare_images_come_as_often_as_they_should(
    repeats: list[float], batch_size: int, world_size: int, epoch: int
) -> None:
    factors, count = np.array(repeats), len(repeats)
    numbers = []
    for rank in range(world_size):
        batches = EpochBatches(
            count, batch_size, shuffle=True, repeats=factors, rank=rank, world_size=world_size, seed=3
        )
        batches.epoch = epoch
        order = list(batches)
        batches.first_step = batches.steps // 2  # going on within the epoch
        assert list(batches) == order[len(order) - len(batches) :]
        numbers += [number for batch in order for _, number in batch]
    drawn = math.ceil(factors.sum())
    assert len(numbers) == len(set(numbers)) == drawn - drawn % world_size
    if world_size == 1:
        often = Counter(number % count for number in numbers)
        share = drawn / sum(repeats)
        for number, factor in enumerate(repeats):
            assert max(1, math.floor(factor * share)) <= often[number] <= math.ceil(factor * share)
            assert {number + count * time for time in range(often[number])} <= set(numbers)


def test_over_many_epochs_the_mean_is_the_factor() -> None:
    factors = np.array([1.0, 1.25, 2.5, 1.0, 3.75, 1.5])
    batches, often = EpochBatches(6, 4, shuffle=True, repeats=factors), Counter[int]()
    for batches.epoch in range(800):
        often.update(number % 6 for batch in batches for _, number in batch)
    assert [often[number] / 800 for number in range(6)] == pytest.approx(factors.tolist(), abs=0.06)


def test_an_image_is_repeated_as_its_rarest_artist_wants_it(records: Path) -> None:
    file = RecordFile(records / TRAIN)
    frequency = np.full(1000, np.inf)
    labels = Counter(label for number in range(len(file)) for label in file[number].labels)
    frequency[[label for label, count in labels.items() if count < 3]] = 0.01
    frequency[[label for label, count in labels.items() if count == 3]] = 0.2
    found = repeat_factors(file, frequency, 0.3)
    for number in range(len(file)):
        wanted = [math.sqrt(0.3 / frequency[label]) for label in file[number].labels]
        assert found[number] == pytest.approx(max(1.0, *wanted))
    assert found.max() > 1.5 and found.min() == 1


def test_an_image_that_comes_again_is_cut_in_another_way(records: Path) -> None:
    file = RecordFile(records / TRAIN)
    images = TaggedImages(file, on_white_square(28), crop_min=0.5)
    once, again = images[(1, 3)], images[(1, 3 + len(file))]
    assert not isinstance(once, UserError) and not isinstance(again, UserError)
    assert once[1] == again[1] and not torch.equal(once[0], again[0])


def test_without_shuffling_the_records_come_in_their_order() -> None:
    assert list(EpochBatches(5, 2, shuffle=False)) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]


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


# --- what is made of it ---


def opened(records: Path, **options: Any) -> TaggedImages:
    return TaggedImages(RecordFiles([records / TRAIN]), on_white_square(STORED_SIZE), **options)


def pixels_of(dataset: TaggedImages, epoch: int, number: int) -> np.ndarray:
    sample = dataset[epoch, number]
    assert not isinstance(sample, UserError)
    return sample[0].numpy()


def decoded(records: Path, number: int) -> Image.Image:
    return Image.open(BytesIO(RecordFile(records / TRAIN)[number].image))


def test_unaugmented_images_are_the_stored_ones(records: Path) -> None:
    for number in (0, 5):
        sample = opened(records)[1, number]
        assert not isinstance(sample, UserError)
        assert np.array_equal(sample[0], np.asarray(decoded(records, number)))
        assert sample[1] == list(RecordFile(records / TRAIN)[number].labels)


def test_channel_order_is_the_configs(records: Path) -> None:
    rgb, bgr = (on_white_square(STORED_SIZE, channel_order=order) for order in ("RGB", "BGR"))
    pixels = torch.from_numpy(pixels_of(opened(records), 1, 0)).unsqueeze(0)
    assert torch.equal(in_order(pixels, rgb), pixels)
    assert torch.equal(in_order(pixels, bgr), pixels[..., [2, 1, 0]])
    # What is stored is RGB, whatever the model wants: the flip happens once.
    in_bgr = TaggedImages(RecordFiles([records / TRAIN]), bgr)
    assert np.array_equal(pixels_of(in_bgr, 1, 0), pixels_of(opened(records), 1, 0))


def test_hflip_mirrors(records: Path) -> None:
    plain, mirrored = np.asarray(decoded(records, 0)), np.asarray(ImageOps.mirror(decoded(records, 0)))
    assert np.array_equal(pixels_of(opened(records, hflip=1.0), 1, 0), mirrored)
    sometimes = [pixels_of(opened(records, hflip=0.5), epoch, 0) for epoch in range(40)]
    assert all(np.array_equal(pixels, plain) or np.array_equal(pixels, mirrored) for pixels in sometimes)
    assert 8 < sum(np.array_equal(pixels, plain) for pixels in sometimes) < 32


def test_crops_differ_by_epoch_and_seed_and_come_again(records: Path) -> None:
    cropped = [pixels_of(opened(records, crop_min=0.5, seed=seed), epoch, 0) for seed in (0, 1) for epoch in (1, 2)]
    assert len({pixels.tobytes() for pixels in cropped}) == 4
    assert all(pixels.shape == (STORED_SIZE, STORED_SIZE, 3) for pixels in cropped)
    assert np.array_equal(cropped[3], pixels_of(opened(records, crop_min=0.5, seed=1), 2, 0))


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGBA", {}),
        ("JPEG", "RGB", {"exif": True}),
    ],
)
def test_decoding_is_that_of_images(kind: str, mode: str, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    out = BytesIO()
    Image.fromarray(noise).convert(mode).save(out, kind, **({"exif": exif} if options else {}))
    assert np.array_equal(decode(out.getvalue()).numpy(), np.asarray(images.open_image(out.getvalue())))
    with pytest.raises(UserError):
        decode(out.getvalue()[:200])


def test_a_cutout_hides_its_share(records: Any) -> None:
    train = RecordFile(records / "record_shards_train" / "aibooru_train.tfrecord")
    plain = TaggedImages(train, on_white_square(56))
    cut = TaggedImages(train, on_white_square(56), cutout=0.25)

    def pixels_of(dataset: TaggedImages, epoch: int) -> np.ndarray:
        sample = dataset[epoch, 0]
        assert not isinstance(sample, UserError)
        return sample[0].numpy()

    before, after, again = pixels_of(plain, 1), pixels_of(cut, 1), pixels_of(cut, 1)
    hole = (after == 128).all(-1) & (before != 128).any(-1)
    assert abs(hole.sum() - 28 * 28) < 28
    assert (before[~hole] == after[~hole]).all() and (after == again).all()
    assert (after != pixels_of(cut, 2)).any()


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


# --- batches ---


def test_labels_stay_sparse_until_the_device() -> None:
    pixels = torch.zeros(2, 2, 3, dtype=torch.uint8)
    batch = collate([(pixels, [3]), (pixels, []), (pixels, [0, 99_999])])
    assert not isinstance(batch, UserError)
    stacked, rows, columns = batch
    assert stacked.shape == (3, 2, 2, 3)
    assert (rows.tolist(), columns.tolist()) == ([0, 2, 2], [3, 0, 99_999])


def batches_of(records: Path, num_workers: int) -> list[Any]:
    batches = EpochBatches(18, 8, shuffle=True, seed=5)
    batches.epoch = 3
    augmented = opened(records, hflip=0.5, crop_min=0.5, seed=5)
    return list(make_loader(augmented, batches, num_workers, torch.device("cpu")))


def test_worker_processes_give_the_same_batches(records: Path) -> None:
    alone, with_workers = batches_of(records, 0), batches_of(records, 2)
    assert len(alone) == 3
    for ours, theirs in zip(alone, with_workers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
