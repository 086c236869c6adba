"""What deepghs publishes: the animetimm models, as weights and as ONNX, and conversions of others such as PixAI v0.9.

python wdv3_pytorch.py --model_repo deepghs/pixai-tagger-v0.9-onnx --describe

preprocess.json says how pixels are made, and wins over what timm would do by config.json: that lacks the padding to 512
which comes first.
"""

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tagger.files import UserError
from tagger.formats.checkpoint import CONFIG_FILE, read_config
from tagger.formats.families import timm_form
from tagger.formats.families.description import Description, Family, Files, Hints, Needed, Output, choose_onnx
from tagger.formats.families.labels import HINT, Table, category_codes, category_thresholds, read_object, vocabulary_of
from tagger.formats.thresholds import threshold_key
from tagger.formats.vocabulary import CATEGORY_NAMES, VOCABULARY_FILE, Category, category_name
from tagger.preparation import Preparation, from_stages

PREPROCESS_FILE, CATEGORIES_FILE, THRESHOLDS_FILE = "preprocess.json", "categories.json", "thresholds.csv"
TESTED_WITH = ("test", "stages")  # the entry of preprocess.json that holds the stages of inference
BEST = "best_threshold"  # column of selected_tags.csv


def choose_weights(names: Collection[str], named: str | None) -> Needed | None:
    """See Family."""
    needed = timm_form.choose(names, named)
    if needed is None or not {PREPROCESS_FILE, VOCABULARY_FILE, CONFIG_FILE} <= set(names):
        return None
    further = tuple(name for name in (CATEGORIES_FILE, THRESHOLDS_FILE) if name in names)
    return Needed(needed.weights, (CONFIG_FILE, VOCABULARY_FILE, PREPROCESS_FILE), further)


def choose_graph(names: Collection[str], named: str | None) -> Needed | None:
    """See Family."""
    return choose_onnx(names, named, [VOCABULARY_FILE, PREPROCESS_FILE], [CATEGORIES_FILE, THRESHOLDS_FILE])


def read_weights(files: Files, weights: Path, hints: Hints) -> Description | None:
    """The form for timm: the weights give logits."""
    config = read_config(files[CONFIG_FILE], hints.config)
    described = _describe(files, weights)
    if len(described.vocabulary) != config["num_classes"]:
        raise UserError(
            f"{files[VOCABULARY_FILE]}: {len(described.vocabulary)} tags, but the model has {config['num_classes']}; "
            f"{HINT}"
        )
    # A model of one label an image comes without categories.json and best thresholds.
    single = described.per_tag is None and CATEGORIES_FILE not in files
    assumed = ("one label an image (softmax), for there are no thresholds beside it",) if single else ()
    output = Output(activation="softmax" if single else "sigmoid")
    return replace(described, config=config, output=output, assumptions=assumed)


def read_graph(files: Files, weights: Path, hints: Hints) -> Description | None:
    """The ONNX form: of the outputs embedding, logits and prediction, the last has the probabilities."""
    return replace(_describe(files, weights), output=Output(names={"prediction": "probabilities"}, position=None))


def _describe(files: Files, weights: Path) -> Description:
    """What both forms share."""
    table = Table(files[VOCABULARY_FILE])
    codes: Mapping[str, Category] = {str(number): number for number in CATEGORY_NAMES}
    if path := files.get(CATEGORIES_FILE):
        codes = category_codes(path)
    vocabulary = vocabulary_of(table, codes)
    advised: dict[str, float] = {}
    per_tag: Callable[[], Sequence[float]] | None = None
    if BEST in table.header:
        per_tag = functools.partial(table.numbers, BEST)
    if path := files.get(THRESHOLDS_FILE):
        of_tags = category_thresholds(path, vocabulary, codes)
        by_category = dict(zip(vocabulary.categories, of_tags, strict=True))
        advised = {threshold_key(category_name(category)): value for category, value in by_category.items()}
        per_tag = per_tag or (lambda: of_tags)
    return Description(
        family=TITLE,
        weights=weights,
        labels=table.path,
        vocabulary=vocabulary,
        preparation=read_preprocess(files[PREPROCESS_FILE]),
        files=tuple(files.values()),
        advised=advised,
        per_tag=per_tag,
    )


def read_preprocess(path: Path) -> Preparation:
    """The stages of a preprocess.json that belong to inference.

    Raises:
        UserError: there are none, or some that are not known here.
    """
    data = read_object(path)
    key = next((key for key in TESTED_WITH if key in data), None)
    if key is None:
        raise UserError(f"{path}: neither {' nor '.join(TESTED_WITH)} in it; {HINT}")
    return from_stages(data[key], path)


TITLE = "animetimm (deepghs)"
WEIGHTS = Family(TITLE, "torch", choose_weights, read_weights)
GRAPH = Family(TITLE, "onnx", choose_graph, read_graph)
