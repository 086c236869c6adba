"""The model that answers, or the two: one for everything but artists, and one for these.

    tagger = open_tagger(settings.model, Hints(), Hints())
    demands = tagger.demands(Request(least=0.35))
    for path, logits in Taggers(tagger, demands, …).predictions(paths, cache):
        found = probabilities(logits, demands)

Two models are one tagger with one vocabulary, so that thresholds, captions and report need not know of it: behind the
first model's labels come the second's, and those that do not count have no name.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tagger.files import UserError
from tagger.formats import families
from tagger.formats.checkpoint import CONFIG_FILE
from tagger.formats.families.description import Description, Hints, packed, unpacked
from tagger.formats.families.engines import installed_engines
from tagger.formats.thresholds import TAG_METRICS_FILE, default_thresholds, read_tag_thresholds, threshold_of
from tagger.formats.vocabulary import ARTIST, VOCABULARY_FILE, Vocabulary, category_of
from tagger.inference.cache import PredictionCache, fingerprint
from tagger.inference.engines.protocol import Engine, EngineHints, EngineSettings
from tagger.inference.logits import Logits
from tagger.inference.predictor import Hints as PredictorHints
from tagger.inference.predictor import Predictor, Results, predictions
from tagger.inference.selection import Demand, Request
from tagger.inference.settings import ModelSettings

if TYPE_CHECKING:
    from torch import nn

    from tagger.inference.similar import SimilarArtists

Load = Callable[[Mapping[str, Any], Path], "nn.Module"]  # a model of a config.json and a file of weights


# --- which models ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tagger:
    """One or two models.

    Attributes:
        main: what answers for everything, or but for artists.
        artists: what answers for these, where that is another model.
        only_artists: whether the main model is asked for artists alone.
    """

    main: Description
    artists: Description | None = None
    only_artists: bool = False

    @property
    def models(self) -> tuple[Description, ...]:
        return (self.main, self.artists) if self.artists else (self.main,)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The labels of all models; those that do not count have no name, and keep their place."""
        if not self.artists and not self.only_artists:
            return self.main.vocabulary
        names: list[str] = []
        categories = [category for model in self.models for category in model.vocabulary.categories]
        for model in self.models:
            for_artists = model is self.artists or self.only_artists
            pairs = zip(model.vocabulary.names, model.vocabulary.categories, strict=True)
            names += [name if (category == ARTIST) == for_artists else "" for name, category in pairs]
        return Vocabulary(tuple(names), tuple(categories))

    @property
    def files(self) -> list[Path]:
        """What is read of the models."""
        return [path for model in self.models for path in (model.weights, *model.data, *model.files)]

    def demands(self, request: Request) -> list[Demand]:
        """What is asked of each model."""
        for_artists = self.artists or (self.main if self.only_artists else None)
        return [
            Demand(
                request if for_artists in (None, model) else replace(request, artists=0),
                model.vocabulary,
                model.output.activation,
            )
            for model in self.models
        ]


def open_tagger(
    settings: ModelSettings, hints: Hints, artist_hints: Hints, cache: PredictionCache | None = None
) -> Tagger:
    """Find the files of the models, or fetch them, and read all but the weights.

    Args:
        cache: what knows folders of an earlier run, but for thresholds of every tag.

    Raises:
        UserError: a file is missing or unusable, or a model for artists knows none.
    """
    artists = None
    if settings.artist_model:
        artists = _open(settings.artist_model, {}, artist_hints, cache)
        if not artists.vocabulary.indices(ARTIST):
            raise UserError(f"{artists.labels}: no artists in it; {artist_hints.path}")
    named = {CONFIG_FILE: settings.config, VOCABULARY_FILE: settings.tags_csv}
    if settings.path:
        main = _open_folder(settings.path, named, hints, cache)
    elif settings.repository:
        main = _open_repository(settings.repository, named, hints)
    else:
        assert artists is not None  # the command line sees to that
        return Tagger(_in_order(artists, settings.channel_order), only_artists=True)
    return Tagger(_in_order(main, settings.channel_order), artists)


PASSED_OVER = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".txt")
Named = Mapping[str, Path | None]  # files that win over those of a folder, by the name that they have there


def _open(place: str, named: Named, hints: Hints, cache: PredictionCache | None) -> Description:
    """A path, or where there is none, a repository."""
    if Path(place).exists():
        return _open_folder(Path(place), named, hints, cache)
    return _open_repository(place, named, hints)


def _open_repository(name: str, named: Named, hints: Hints) -> Description:
    from tagger.formats.families.hub import open_repository

    return open_repository(name, named, hints)


def _open_folder(path: Path, named: Named, hints: Hints, cache: PredictionCache | None) -> Description:
    """A folder's description, from the cache where nothing in the folder has changed since.

    To read 100,000 tags takes longer than the whole answer may take.
    """
    key = _folder_key(path, named) if cache else b""
    if cache and (found := unpacked(cache.get(key) or b"")):
        return found
    from tagger.formats.families.registry import open_folder  # late: all families are imported with it

    opened = open_folder(path, named, hints)
    if cache and (data := packed(opened)):
        cache.put(key, data)
    return opened


def _folder_key(path: Path, named: Named) -> bytes:
    """What a folder's description depends on: name, size and time of its files and of the code that reads them.

    Pictures and captions are none of them; a checkpoint may lie among a million.
    """
    code = Path(families.__file__).parent
    folders = [path if path.is_dir() else path.parent, code, code.parent]
    listed = sorted(
        (entry.path, entry.stat().st_size, entry.stat().st_mtime_ns)
        for folder in folders
        if folder.is_dir()
        for entry in os.scandir(folder)
        if not entry.name.lower().endswith(PASSED_OVER) and entry.is_file()
    )
    given = [
        (name, str(file), file.stat().st_size, file.stat().st_mtime_ns)
        for name, file in named.items()
        if file and file.is_file()
    ]
    identity = [str(path), os.getcwd(), given, listed, installed_engines()]
    return hashlib.sha256(json.dumps(identity).encode("utf-8", "surrogateescape")).digest()


def _in_order(model: Description, channel_order: str | None) -> Description:
    return model.in_order(channel_order) if channel_order else model


# --- thresholds of every tag ----------------------------------------------------------------------------------------


def tag_thresholds(tagger: Tagger, kind: str, thresholds: Mapping[str, float], hint: str) -> list[float] | None:
    """A threshold for each label, of "per_tag" (the trainer's) or "published" (the authors').

    Where two models answer, the one for artists may have none of its own, and the threshold of artists holds.

    Args:
        thresholds: those of the categories.
        hint: ends an error.

    Returns:
        None where the authors publish thresholds of categories alone.

    Raises:
        UserError: the model has none.
    """
    found: list[float] = []
    for model in tagger.models:
        of_artists = [threshold_of("artist", thresholds)] * len(model.vocabulary)
        if kind == "published" and model.per_tag:
            found += model.per_tag()
        elif kind == "per_tag" and (path := model.weights.with_name(TAG_METRICS_FILE)).exists():
            found += read_tag_thresholds(path, model.vocabulary, hint)
        elif model is tagger.artists:
            found += of_artists
        elif kind == "published" and model.advised:
            return None
        elif kind == "published":
            raise UserError(f"{model.labels}: its authors publish no thresholds; {hint}")
        else:
            found += read_tag_thresholds(path, model.vocabulary, hint)
    return found


def advised_thresholds(tagger: Tagger) -> dict[str, float]:
    """The thresholds of categories that the models' authors advise, where they do."""
    advised = dict(tagger.main.advised)
    if tagger.artists:
        advised |= {key: value for key, value in tagger.artists.advised.items() if key == "artist_threshold"}
    return advised and default_thresholds() | advised


# --- running them ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunHints:
    """How errors end."""

    predictor: PredictorHints
    engine: EngineHints


def open_similar(tagger: Tagger, hint: str) -> "SimilarArtists":
    """How close pictures are to the artists that were taught to the model that answers for artists.

    Raises:
        UserError: see SimilarArtists.
    """
    from tagger.inference.similar import SimilarArtists  # late: few runs ask for it

    return SimilarArtists(tagger.artists or tagger.main, hint)


def open_engine(model: Description, settings: EngineSettings, load: Load, hints: EngineHints) -> Engine:
    """Load a model.

    Raises:
        UserError: the device is not there, or the weights cannot be loaded.
    """
    config = model.config
    if config is None:
        from tagger.inference.engines.onnx_engine import OnnxEngine  # late, like the next: each takes its time

        return OnnxEngine(model, settings, hints)
    from tagger.inference.engines.torch_engine import TorchEngine

    return TorchEngine(lambda: load(config, model.weights), model.preparation, settings, hints)


class Taggers:
    """The models of a tagger, to be run over images.

    Args:
        demands: what their answers must be enough for, see Tagger.demands.
        batch_size: images at a time.
        load: see Load.
        similar: what looks on, where the artists that are closest are asked for.
    """

    def __init__(
        self,
        tagger: Tagger,
        demands: Sequence[Demand],
        settings: EngineSettings,
        batch_size: int,
        load: Load,
        hints: RunHints,
        similar: "SimilarArtists | None" = None,
    ) -> None:
        self.demands = demands
        self.watchers = [similar if similar and model is similar.model else None for model in tagger.models]
        self.predictors = []
        for model, watcher in zip(tagger.models, self.watchers, strict=True):
            opens = partial(open_engine, model, settings, load, hints.engine)
            self.predictors.append(
                Predictor(
                    watcher.watching(opens) if watcher else opens,
                    len(model.vocabulary),
                    batch_size,
                    model.preparation if model.config else None,
                    hints.predictor,
                    name=str(model.weights),
                )
            )
        self.keys = [
            fingerprint((model.weights, *model.data), model.identity(), settings.device, settings.precision)
            for model in tagger.models
        ]

    def predictions(self, paths: Iterable[Path], cache: PredictionCache | None) -> Iterator[Results]:
        """For each image in turn the logits of each model, or why it could not be read."""
        paths = list(paths)
        caches = [cache] * len(self.predictors)
        streams = [
            predictions(paths, *how)
            for how in zip(self.predictors, caches, self.keys, self.demands, self.watchers, strict=True)
        ]
        for results in zip(*streams, strict=True):
            yield results[0][0], _together([logits for _, logits in results])

    def summary(self) -> str:
        """One line for each model."""
        return "; ".join(predictor.summary() for predictor in self.predictors)


def _together(parts: Sequence[Logits | UserError]) -> tuple[Logits, ...] | UserError:
    """The answers of all models, or the first error."""
    answers: list[Logits] = []
    for part in parts:
        if isinstance(part, UserError):
            return part
        answers.append(part)
    return tuple(answers)


def probabilities(logits: Sequence[Logits], demands: Sequence[Demand]) -> dict[int, float]:
    """What is asked for of one image, by the label of the tagger's vocabulary, rising; of a few others perhaps, too.

    Args:
        logits: of each model, enough for what is asked of it.
    """
    if len(demands) == 1:
        return demands[0].probabilities(logits[0])
    found: dict[int, float] = {}
    start = 0  # of the model's labels in the vocabulary
    for part, demand in zip(logits, demands, strict=True):
        found |= {start + label: probability for label, probability in demand.probabilities(part).items()}
        start += part.count
    return found


# --- what is said of them -------------------------------------------------------------------------------------------


def describe(model: Description, engine: Engine | None = None) -> list[str]:
    """What a model is, what it is shown and what it answers, a line for each.

    Args:
        engine: the loaded model, which knows what an ONNX graph decides.
    """
    vocabulary = model.vocabulary
    counts = ", ".join(f"{len(vocabulary.indices(category_of(name))):,} {name}" for name in vocabulary.category_names)
    pixels = (engine.preparation if engine else model.preparation).lines()
    advised = ", ".join(f"{key.removesuffix('_threshold')} {value:g}" for key, value in model.advised.items())
    own = "for every tag" if model.per_tag else advised or "none"
    return [
        f"model: {model.weights}",
        f"family: {model.family}",
        *([f"runs on: {engine.device}"] if engine else []),
        f"tags: {len(vocabulary):,} in {model.labels} ({counts})",
        "pixels:",
        *(f"  {line}" for line in pixels),
        f"answer: {model.output.line() if model.config is None else f'logits, then {model.output.activation}'}",
        f"a tag passes {'from' if model.inclusive else 'above'} its threshold; published thresholds: {own}",
        *(f"assumed: {assumption}" for assumption in model.assumptions),
    ]
