"""cella110n's cl_tagger_v2: a SigLIP2 whose pictures are stretched, with a threshold for each tag.

python wdv3_pytorch.py --model_repo cella110n/cl_tagger_v2/v2_00 --describe
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from tagger.files import UserError
from tagger.formats.families.description import Description, Family, Files, Hints, Needed, Output, choose_onnx
from tagger.formats.families.labels import HINT, mapped_vocabulary, read_object
from tagger.preparation import PILLOW_NUMBERS, Preparation, Resize

VOCABULARY_FILE = "model_vocabulary.json"
METRICS_FILE = "model_tag_metrics.npz"
PROCESSOR_FILE = "preprocessor_config.json"
SIDE = 384
ADVISED = 0.55


def choose(names: Collection[str], named: str | None) -> Needed | None:
    """See Family."""
    return choose_onnx(names, named, [VOCABULARY_FILE], [METRICS_FILE, PROCESSOR_FILE])


def read(files: Files, weights: Path, hints: Hints) -> Description | None:
    """See Family."""
    path = files[VOCABULARY_FILE]
    vocabulary = mapped_vocabulary(read_object(path), path)
    filter_name, assumptions = _filter(files)
    metrics = files.get(METRICS_FILE)
    return Description(
        family=FAMILY.title,
        weights=weights,
        labels=path,
        vocabulary=vocabulary,
        preparation=Preparation((Resize((SIDE, SIDE), filter_name),)),
        output=Output(names={"logits": "logits"}),
        files=tuple(files.values()),
        any_side=True,
        advised={"general_threshold": ADVISED, "character_threshold": ADVISED, "artist_threshold": ADVISED},
        per_tag=None if metrics is None else lambda: best_thresholds(metrics, len(vocabulary)),
        assumptions=assumptions,
    )


def _filter(files: Files) -> tuple[str, tuple[str, ...]]:
    """How pictures are resized, and what is assumed where no file says it."""
    if path := files.get(PROCESSOR_FILE):
        number = read_object(path).get("resample")
        if isinstance(number, int) and 0 <= number < len(PILLOW_NUMBERS):
            return PILLOW_NUMBERS[number], ()
    return "bicubic", ("resized with the filter bicubic, for no file says which",)


def best_thresholds(path: Path, count: int) -> Sequence[float]:
    """The entry `best_thr` of an npz: a threshold for each tag.

    Raises:
        UserError: not such a file, or one of another vocabulary.
    """
    import numpy as np  # here, for few ask for these

    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = arrays["best_thr"].astype(float)
    except Exception as error:  # zipfile, zlib and numpy fail in many ways at a damaged file
        raise UserError(f"{path}: no best_thr can be read ({error}); {HINT}") from None
    if found.shape != (count,) or not ((found >= 0) & (found <= 1)).all():
        raise UserError(f"{path}: best_thr is not one number in 0 to 1 for each of {count:,} tags; {HINT}")
    thresholds: list[float] = found.tolist()
    return thresholds


FAMILY = Family("cl_tagger v2", "onnx", choose, read)
