"""What a run of the tagger is asked for, sorted by whom it concerns.

settings = Settings(images=ImageSettings((Path("pictures"),), recursive=True, max_pixels=None), model=…)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tagger.formats.translations import Translations
from tagger.inference.artist_strings import ArtistSettings
from tagger.inference.captions import Style
from tagger.inference.engines.protocol import EngineSettings

# What is done with the prompt that a file carries: nothing; told before the model's answer; told instead of it.
EMBEDDED = ("off", "first", "only")


@dataclass(frozen=True)
class ImageSettings:
    """Which images.

    Attributes:
        paths: files and folders.
        recursive: whether folders in folders count, too.
        max_pixels: larger images are not decoded, but left out; None for the usual limit.
    """

    paths: tuple[Path, ...]
    recursive: bool
    max_pixels: int | None


@dataclass(frozen=True)
class ModelSettings:
    """Which tagger.

    Attributes:
        path, repository: a file or folder, or a repository of the hub; neither where there is only `artist_model`.
        config, tags_csv: win over what lies beside it.
        channel_order: "RGB" or "BGR" in place of what its files say, or None.
        artist_model: a path or a repository of the model that is asked for artists in its place, or None.
    """

    path: Path | None
    repository: str | None
    config: Path | None
    tags_csv: Path | None
    channel_order: str | None
    artist_model: str | None


@dataclass(frozen=True)
class ThresholdSettings:
    """Where the thresholds come from.

    Attributes:
        file: a threshold.json that was named, or None.
        given: keys of the file with the values that win over it.
        by_mcut: see SelectionRule.
        kind: "json"; or "per_tag" for each tag's own, from the checkpoint's folder; or "published" for the authors'.
    """

    file: Path | None
    given: Mapping[str, float]
    by_mcut: bool
    kind: str


@dataclass(frozen=True)
class OutputSettings:
    """Where answers go.

    Attributes:
        format: a key of FORMATS.
        file: None for stdout.
        prints: whether answers are written at all: who has captions or a page written wants no thousand on the screen.
        report, onnx: further files to write, or None.
        overwrite: replace what stands there and is not ours.
        translations: of tags, told beside them in JSON and in the report; or None.
    """

    format: str
    file: Path | None
    prints: bool
    report: Path | None
    onnx: Path | None
    overwrite: bool
    translations: Translations | None


@dataclass(frozen=True)
class CaptionSettings:
    """How captions look, and whether they are written beside the images.

    Attributes:
        style: also of the caption and the tags that are printed; its names are as they were typed.
        write: whether a txt is asked for.
        existing: one of EXISTING.
        dry_run: print what would be written instead.
        suffix: of the files.
        constant_share: tags that at least this share of the captions hold are left out of them; None to keep them.
    """

    style: Style
    write: bool
    existing: str
    dry_run: bool
    suffix: str
    constant_share: float | None

    @property
    def writes(self) -> bool:
        """Whether a txt may change."""
        return self.write and not self.dry_run


@dataclass(frozen=True)
class Settings:
    """All that a run is asked for, by whom it concerns.

    Attributes:
        engine, batch_size: how the models are run, and how many images at a time.
        describe: only tell what the models are.
        embedded: one of EMBEDDED.
        pool: one answer for all images.
        use_cache: take and keep logits.
    """

    images: ImageSettings
    model: ModelSettings
    engine: EngineSettings
    batch_size: int
    thresholds: ThresholdSettings
    output: OutputSettings
    captions: CaptionSettings
    artists: ArtistSettings
    describe: bool
    embedded: str
    pool: bool
    use_cache: bool
