"""Which family a folder or a repository belongs to, by the names of its files and then by their content.

python -c "from tagger.formats.families.registry import open_folder; print(open_folder('checkpoints').family)"
"""

import fnmatch
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from tagger.files import UserError
from tagger.formats.families import animetimm, camie, cl_tagger, cl_tagger_v2, kaloscope, pixai_v1, timm_form, wd_onnx
from tagger.formats.families.description import NO_HINTS, Description, Family, Hints, Needed, data_of
from tagger.formats.families.engines import EngineMissing, installed_engines
from tagger.formats.vocabulary import VOCABULARY_FILE, Vocabulary, first_difference, read_vocabulary

# In this order: what has a file of its own before what could be several; weights before graphs, of which the large
# repositories hold both.
FAMILIES: dict[str, Family] = {
    "cl_tagger": cl_tagger.FAMILY,
    "cl_tagger_v2": cl_tagger_v2.FAMILY,
    "camie": camie.FAMILY,
    "kaloscope": kaloscope.FAMILY,
    "pixai_v1_blocks": pixai_v1.BLOCKS,
    "pixai_v1_config": pixai_v1.CONFIG,
    "animetimm": animetimm.WEIGHTS,
    "animetimm_onnx": animetimm.GRAPH,
    "timm": timm_form.FAMILY,
    "pixai_v1_csv": pixai_v1.CSV,
    "wd_onnx": wd_onnx.FAMILY,
}

# What is known and cannot be run: a file by which it is known, and what to take instead.
REFUSED = {
    "tags_v0.9_13k.json": "PixAI's own file of v0.9 would have to run code; take deepghs/pixai-tagger-v0.9-onnx",
    "tagger_pipeline.py": (
        "PixAI's own form of v1.0 would have to run code; take its ONNX conversion, such as "
        "Mexes/pixai-tagger-v1.0-onnx-fp32-fp16-int8 or bdsqlsz/pixai-tagger-v1.0-ONNX"
    ),
    "class_mapping.csv": "Kaloscope's own file would have to run code; take DraconicDragon/Kaloscope-onnx/v2.0",
    "*_metadata.json": "the first Camie tagger is not read here; take Camais03/camie-tagger-v2",
}


def candidates(
    names: Collection[str], named: str | None, engines: Collection[str], place: object
) -> list[tuple[Family, Needed]]:
    """The families whose files are among the names, the likeliest first.

    Args:
        names: of the files in one folder.
        named: the file of weights that the user named, or None.
        engines: those that can be used, keys of PACKAGES.
        place: the folder, for errors.

    Raises:
        UserError: none, with what is known of the folder.
    """
    found = [(family, needed) for family in FAMILIES.values() if (needed := family.choose(names, named))]
    usable = [each for each in found if each[0].engine in engines]
    complete = [each for each in usable if set(each[1].others) <= set(names)]
    if complete or usable:
        return complete or usable
    if found:
        raise EngineMissing(place, found[0][0].title, found[0][0].engine)
    for pattern, reason in REFUSED.items():
        if fnmatch.filter(names, pattern):
            raise UserError(f"{place}: {reason}")
    weights = [
        name for name in sorted(names) if name.endswith((*timm_form.SUFFIXES, *timm_form.RARER_SUFFIXES, ".onnx"))
    ]
    if not weights:
        raise UserError(f"{place}: no .safetensors, .pth or .onnx in it; name another folder, or a file of weights")
    raise UserError(f"{place}: {', '.join(weights[:3])}; name one file of weights")


def first_described(
    families: list[tuple[Family, Needed]], folder: Path, fetch: Callable[[str], Path], place: object, hints: Hints
) -> tuple[Description, Needed]:
    """The description of the first family that the files' content does not deny.

    Args:
        folder: where the weights are, or will be.
        fetch: gives the path of another file by its name.

    Raises:
        UserError: a file cannot be read, or all families deny it.
    """
    for family, needed in families:
        files = {name: fetch(name) for name in (*needed.others, *needed.further)}
        if described := family.read(files, folder / needed.weights, hints):
            return described, needed
    raise UserError(f"{place}: files of no tagger that is known here; {hints.path}")


def open_folder(
    path: Path | str,
    named: Mapping[str, Path | None] | None = None,
    hints: Hints = NO_HINTS,
    engines: Collection[str] | None = None,
) -> Description:
    """The tagger in a folder, or that of a file of weights and what lies beside it.

    Args:
        named: files that win over those of the folder, by the name that they have there.
        engines: those that may be used; by default all that are installed.

    Raises:
        UserError: there is no such path, it is no tagger that is known, or a file of it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file; {hints.path}")
    folder, weights = (path, None) if path.is_dir() else (path.parent, path.name)
    given = {name: file for name, file in (named or {}).items() if file}
    names = {each.name for each in folder.iterdir()} | given.keys()
    families = candidates(names, weights, installed_engines() if engines is None else engines, path)
    described, needed = first_described(families, folder, lambda name: given.get(name) or folder / name, path, hints)
    data = tuple(folder / name for name in data_of(needed.weights, names))
    return with_labels(replace(described, data=data), given.get(VOCABULARY_FILE))


def with_labels(description: Description, csv_path: Path | None) -> Description:
    """The same with the categories of a CSV that the user named, where the family's own labels are no such CSV.

    Raises:
        UserError: it has other names.
    """
    if csv_path is None or csv_path == description.labels:
        return description
    vocabulary = read_vocabulary(csv_path)
    if vocabulary.names != description.vocabulary.names:
        difference = first_difference(vocabulary.names, description.vocabulary.names)
        raise UserError(f"{csv_path}: not the tags of the model ({difference}); leave it out")
    labels = Vocabulary(vocabulary.names, vocabulary.categories)
    return replace(description, vocabulary=labels, labels=csv_path, files=(*description.files, csv_path))
