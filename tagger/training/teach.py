"""Artists from a few example pictures each: rows of a head without training, beside the rows that a model has.

    python train_pytorch.py --pretrained ./checkpoints --teach ./examples-of-artists --output_dir ./taught

What a model sees in the pictures is kept in the output folder, so that further artists can be added and others removed
without their pictures at hand; all taught rows are made anew then, for each tells its artist from the others.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from tagger import images
from tagger.files import UserError, replacing, write_csv, write_json
from tagger.formats.checkpoint import CONFIG_FILE, OUR_KEY, read_config
from tagger.formats.pairs import CAPTION_SUFFIX, IMAGE_SUFFIXES
from tagger.formats.prototypes import Prototypes
from tagger.formats.tag_lists import TagReader, is_usable, read_tags
from tagger.formats.vocabulary import ARTIST, VOCABULARY_FILE, Vocabulary, read_vocabulary
from tagger.preparation import Preparation
from tagger.training import discriminant
from tagger.training.pretrained import head_name

EXAMPLES_FILE = "taught.npz"
REPORT_FILE = "taught.csv"
WARN_BELOW = 5
SAVE_EVERY = 8  # pictures: what a kill costs at most


# --- example pictures -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """The pictures of each artist, by name, and what was left out, a sentence each."""

    pictures: dict[str, list[Path]]
    problems: list[str]


def find_pictures(folder: Path, categories: Mapping[str, object], hint: str) -> Found:
    """The example pictures of a folder: a folder for each artist, or pairs whose txt names one.

    Args:
        categories: category by tag, which says of the tags of a txt which are artists.
        hint: ends the errors.

    Raises:
        UserError: no such folder, or no artist in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {hint}")
    reader, found = TagReader(categories), Found({}, [])
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            name = reader.name(path.name.replace(" ", "_"))
            pictures = [each for each in sorted(path.iterdir()) if is_picture(each)]
            if not is_usable(name) or not pictures:
                found.problems.append(f"{path}: no pictures in it" if is_usable(name) else f"{path}: no name of a tag")
            else:
                found.pictures.setdefault(name, []).extend(pictures)
        elif is_picture(path):
            artists = artists_of(path.with_suffix(CAPTION_SUFFIX), reader, categories)
            if len(artists) == 1:
                found.pictures.setdefault(artists[0], []).append(path)
            else:
                told = "several artists" if artists else "no artist"
                found.problems.append(f"{path}: {told} in a txt beside it")
    if not found.pictures:
        raise UserError(f"{folder}: neither folders of pictures, one for each artist, nor pairs with artists; {hint}")
    return found


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def artists_of(txt: Path, reader: TagReader, categories: Mapping[str, object]) -> list[str]:
    """The artists that a txt names; none where there is no such file."""
    if not txt.is_file():
        return []
    names = dict.fromkeys(map(reader.name, read_tags(txt)))
    return [name for name in names if categories.get(name) == ARTIST]


# --- what a model sees in them --------------------------------------------------------------------------------------


@dataclass
class Examples:
    """Features of example pictures, which are known by the SHA-256 of their files.

    Attributes:
        model: what the features were made by.
        names, pictures: (M,) artists and digests.
        views: (M, V, D) float16.
    """

    model: str
    names: list[str]
    pictures: list[str]
    views: list[np.ndarray]

    @classmethod
    def read(cls, path: Path, model: str, hint: str) -> "Examples":
        """Those of an earlier run, or none.

        Raises:
            UserError: they were made by another model, or are damaged.
        """
        if not path.exists():
            return cls(model, [], [], [])
        try:
            with np.load(path, allow_pickle=False) as file:
                found = cls(str(file["model"]), file["names"].tolist(), file["pictures"].tolist(), list(file["views"]))
        except Exception:  # numpy, zipfile and zlib each have their own for damaged bytes
            raise UserError(f"{path}: damaged; remove it, and teach again") from None
        if found.model != model:
            raise UserError(f"{path}: from another model than the one to be taught; {hint}")
        return found

    def write(self, path: Path) -> None:
        """Write them, whole or not at all."""
        with replacing(path, "wb") as file:
            np.savez(
                file,
                model=np.array(self.model),
                names=np.array(self.names, dtype=np.str_),
                pictures=np.array(self.pictures, dtype=np.str_),
                views=np.stack(self.views) if self.views else np.zeros((0, 0, 0), np.float16),
            )

    def keep(self, kept: Iterable[int]) -> None:
        """Forget all but these."""
        rows = list(kept)
        self.names, self.pictures = [self.names[row] for row in rows], [self.pictures[row] for row in rows]
        self.views = [self.views[row] for row in rows]


def look_at(
    examples: Examples,
    pictures: Mapping[str, Sequence[Path]],
    extract: Callable[[Tensor], Tensor],
    preparation: Preparation,
    save: Callable[[], None],
) -> list[str]:
    """Add what a model sees in pictures, as they are and flipped; what was left out, a sentence each.

    An artist's earlier examples are replaced by the pictures of now.

    Args:
        extract: pixels, uint8 (2, H, W, 3), to features (2, D).
        save: called now and then, so that a kill costs little.
    """
    seen = {
        (name, digest): views
        for name, digest, views in zip(examples.names, examples.pictures, examples.views, strict=True)
    }
    wanted, problems = [(name, path) for name, paths in pictures.items() for path in paths], []
    now: dict[tuple[str, str], np.ndarray] = {}
    for name, path in tqdm(wanted, desc="looking at pictures", unit="img", dynamic_ncols=True):
        try:
            data = path.read_bytes()
            key = (name, hashlib.sha256(data).hexdigest())
            if key not in seen:
                pixels = torch.from_numpy(images.pixels(data, preparation).copy())
                # Always these two together: sums differ in their last digits with the number of pictures in a batch.
                seen[key] = extract(torch.stack([pixels, pixels.flip(1)])).half().cpu().numpy()
                examples.names.append(name)
                examples.pictures.append(key[1])
                examples.views.append(seen[key])
                if len(examples.names) % SAVE_EVERY == 0:
                    save()
            now[key] = seen[key]
        except (UserError, OSError) as error:
            reason = str(error).removeprefix("image: ") if isinstance(error, UserError) else str(error.strerror)
            problems.append(f"{path}: {reason}")
    rows = enumerate(zip(examples.names, examples.pictures, strict=True))
    examples.keep(row for row, key in rows if key in now or key[0] not in pictures)
    return problems


# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taught:
    """What was learnt of one artist.

    Attributes:
        pictures: how many.
        first: the share of its pictures, each left out in turn, for which it comes first.
        rank: the median place that it has there, from 1.
        probability: the mean that it has there.
        confused_with: who comes first most often where it does not, or "".
    """

    name: str
    pictures: int
    first: float
    rank: float
    probability: float
    confused_with: str


def in_order(examples: Examples) -> tuple[list[str], Tensor, Tensor]:
    """The artists by name, the views (V, M, D) float64, and the artist of each picture, (M,).

    In an order of their own, so that sums do not depend on when a picture was added.
    """
    names = sorted(set(examples.names))
    order = sorted(range(len(examples.names)), key=lambda row: (examples.names[row], examples.pictures[row]))
    labels = torch.tensor([names.index(examples.names[row]) for row in order])
    return names, torch.from_numpy(np.stack([examples.views[row] for row in order])).double().transpose(0, 1), labels


def make_prototypes(examples: Examples) -> Prototypes:
    """What pictures are compared with, to say which of the artists are closest; of at least two artists."""
    names, views, labels = in_order(examples)
    found = discriminant.directions(views, labels, len(names))
    parts = (part.float().numpy() for part in (found.middle, found.whitening, found.unit))
    return Prototypes(tuple(names), *parts)


def make_rows(examples: Examples) -> tuple[list[str], discriminant.Rows, list[Taught]]:
    """The artists by name, a row for each, and how well each is known.

    Raises:
        ValueError: fewer than two artists, whom nothing tells apart.
    """
    names, views, labels = in_order(examples)
    if len(names) < 2:
        raise ValueError("at least two artists are needed, for each is told from the others")
    left_out = discriminant.leave_one_out(views, labels, len(names))
    slope, offset = discriminant.calibrate(left_out, labels)
    rows = discriminant.fit(views, labels, len(names)).scaled(slope, offset)
    return names, rows, tell(names, left_out, torch.sigmoid(slope * left_out + offset), labels)


def tell(names: Sequence[str], left_out: Tensor, probabilities: Tensor, labels: Tensor) -> list[Taught]:
    """How well each artist is known, by the pictures that were left out in turn."""
    own = left_out.gather(1, labels.unsqueeze(1))
    ranks = (left_out > own).sum(1) + 1
    first = left_out.argmax(1)
    told = []
    for number, name in enumerate(names):
        mine = labels == number
        wrong = first[mine & (ranks > 1)]
        told.append(
            Taught(
                name,
                int(mine.sum()),
                (ranks[mine] == 1).double().mean().item(),
                ranks[mine].double().median().item(),
                probabilities[mine, number].mean().item(),
                names[int(wrong.mode().values)] if len(wrong) else "",
            )
        )
    return told


def write_report(folder: Path, told: Sequence[Taught]) -> None:
    """Write taught.csv."""
    header = ("name", "pictures", "first", "rank", "probability", "confused_with")
    cells = (
        (each.name, each.pictures, f"{each.first:.3f}", f"{each.rank:g}", f"{each.probability:.3f}", each.confused_with)
        for each in told
    )
    write_csv(folder / REPORT_FILE, header, cells)


def lines_of(told: Sequence[Taught]) -> list[str]:
    """The same as a table for a terminal, the surest first."""
    width = max(len("artist"), *(len(each.name) for each in told))
    lines = [f"{'artist':{width}}  pictures  first  probability  confused with"]
    lines += [
        f"{each.name:{width}}  {each.pictures:8}  {each.first:5.2f}  {each.probability:11.2f}  {each.confused_with}"
        for each in sorted(told, key=lambda each: (-each.first, -each.probability, each.name))
    ]
    return lines


def complete(folder: Path) -> None:
    """Let config.json follow the vocabulary of a taught model, where a killed run wrote the one and not the other."""
    if not (folder / EXAMPLES_FILE).exists():
        return
    config, vocabulary = read_config(folder / CONFIG_FILE), read_vocabulary(folder / VOCABULARY_FILE)
    if config[OUR_KEY].get("tags_sha256") != vocabulary.sha256:
        config["num_classes"] = config["pretrained_cfg"]["num_classes"] = len(vocabulary)
        config[OUR_KEY]["tags_sha256"] = vocabulary.sha256
        write_json(folder / CONFIG_FILE, config)


def with_rows(model: nn.Module, base: int, rows: discriminant.Rows) -> nn.Module:
    """A model whose head has its first `base` rows, bit for bit, and then these."""
    head = model.get_classifier()  # type: ignore[operator]
    grown = nn.Linear(head.in_features, base + len(rows.bias))
    with torch.no_grad():
        grown.weight.copy_(torch.cat([head.weight[:base], rows.weight.to(head.weight).reshape(-1, head.in_features)]))
        grown.bias.copy_(torch.cat([head.bias[:base], rows.bias.to(head.bias)]))
    parent, _, name = head_name(model).rpartition(".")
    setattr(model.get_submodule(parent), name, grown)
    return model


def extended(vocabulary: Vocabulary, base: int, names: Sequence[str], pictures: Mapping[str, int]) -> Vocabulary:
    """The first `base` tags of a vocabulary, and behind them artists."""
    counts = vocabulary.counts or (0,) * len(vocabulary)
    return Vocabulary(
        vocabulary.names[:base] + tuple(names),
        vocabulary.categories[:base] + (ARTIST,) * len(names),
        counts[:base] + tuple(pictures[name] for name in names),
    )
