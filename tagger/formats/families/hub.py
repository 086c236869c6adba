"""Taggers of the Hugging Face hub: which files of a repository are needed, and these alone are fetched.

python -c "from tagger.formats.families import hub; print(hub.Repository.of('owner/name/folder@main'))"
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tagger.files import UserError
from tagger.formats.families import timm_form
from tagger.formats.families.description import NO_HINTS, Description, Hints, data_of
from tagger.formats.families.engines import installed_engines
from tagger.formats.families.registry import candidates, first_described, with_labels
from tagger.formats.vocabulary import VOCABULARY_FILE
from tagger.proxies import make_client, proxies_set

NAME = re.compile(r"(?:hf[-_]hub:)?([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)(?:@([\w./-]+))?")
PAGE = "https://huggingface.co/"
WEIGHTS = (*timm_form.SUFFIXES, *timm_form.RARER_SUFFIXES, ".onnx")
BY_HAND = "or fetch its files in a browser and name their folder"


@dataclass(frozen=True)
class Repository:
    """A place on the hub.

    Attributes:
        name: owner/name.
        folder: in it, "" for its top; or a file of weights in it.
        revision: a branch, a tag or a commit; None is the default branch.
    """

    name: str
    folder: str = ""
    revision: str | None = None

    @classmethod
    def of(cls, text: str) -> "Repository":
        """Read owner/name[/folder][@revision].

        Raises:
            UserError: it is not of that form.
        """
        match = NAME.fullmatch(text)
        if not match or ".." in text:
            raise UserError(f"{text}: neither a file or folder nor a repository (owner/name)")
        return cls(match[1], match[2].strip("/"), match[3])

    def __str__(self) -> str:
        return self.name + (f"/{self.folder}" if self.folder else "") + (f"@{self.revision}" if self.revision else "")


def open_repository(
    text: str,
    named: Mapping[str, Path | None] | None = None,
    hints: Hints = NO_HINTS,
    engines: Collection[str] | None = None,
) -> Description:
    """The tagger in a repository; its files are fetched, or taken from huggingface_hub's cache.

    Args:
        text: owner/name[/folder][@revision].
        named: files that win over those of the repository, by the name that they have there.
        engines: those that may be used; by default all that are installed.

    Raises:
        UserError: no such repository, closed to this user, no network, or no tagger that is known.
    """
    repository = Repository.of(text)
    listed, online = _list(repository)
    given = {name: file for name, file in (named or {}).items() if file}
    folder, weights = PurePosixPath(repository.folder), None
    if repository.folder in listed:
        folder, weights = folder.parent, folder.name
    names = {PurePosixPath(name).name for name in listed if PurePosixPath(name).parent == folder}
    if not any(name.endswith(WEIGHTS) for name in names):
        folders = sorted({str(PurePosixPath(name).parent) for name in listed if name.endswith(WEIGHTS)})
        there = f"there are some in {', '.join(folders[:5])}" if folders else "the repository has none"
        raise UserError(f"{text}: no weights in this folder; {there}")

    def fetch(name: str) -> Path:
        return given.get(name) or _fetch(repository, str(folder / name), online)

    families = candidates(names | given.keys(), weights, installed_engines() if engines is None else engines, text)
    # All files of a snapshot lie in one place, which the first small one that is fetched tells.
    small = (name for _, needed in families for name in needed.others if name in names and name not in given)
    place = next((fetch(name).parent for name in small), Path())
    described, needed = first_described(families, place, fetch, text, hints)
    data = tuple(fetch(name) for name in data_of(needed.weights, names))
    return with_labels(replace(described, weights=fetch(needed.weights), data=data), given.get(VOCABULARY_FILE))


def _list(repository: Repository) -> tuple[list[str], bool]:
    """The paths of all files of a repository; without a network, those of its copy in the cache. Whether there is one.

    Raises:
        UserError: neither the hub nor the cache has it.
    """
    import huggingface_hub  # here, for it brings a web client that local files do not need
    from huggingface_hub import errors

    make_client(huggingface_hub.get_session)  # what the environment says of proxies is read when the first is made
    try:
        info = huggingface_hub.HfApi().model_info(repository.name, revision=repository.revision)
        return [each.rfilename for each in info.siblings or ()], True
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _refusal(repository, error) from None
    except Exception as error:  # whatever the web client raises, which one that is depends on the hub's version
        reason = error
    try:
        snapshot = huggingface_hub.snapshot_download(
            repository.name, revision=repository.revision, local_files_only=True
        )
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError, ValueError):
        raise _refusal(repository, reason) from None
    root = Path(snapshot)
    return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()], False


def _fetch(repository: Repository, path: str, online: bool) -> Path:
    """A file of a repository, from the cache where it is there in its newest form.

    Raises:
        UserError: it cannot be had; the message names it.
    """
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.hf_hub_download(
                repository.name, path, revision=repository.revision, local_files_only=not online
            )
        )
    except Exception as error:  # see _list
        raise _refusal(repository, error, path) from None


def _refusal(repository: Repository, error: Exception, path: str | None = None) -> UserError:
    """What a failure of the hub means for the user."""
    from huggingface_hub import errors

    where, page = f"{repository}: {path}" if path else str(repository), PAGE + repository.name
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"{where}: gated; accept its terms on {page} and put a token of your account into HF_TOKEN")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"{where}: no such revision; see {page}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(f"{where}: no such repository, or a private one that needs HF_TOKEN; check the name at {page}")
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return UserError(f"{where}: not in the repository; see {page}")
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    network = " or ".join(["the network", *proxies_set()])
    return UserError(
        f"{where}: cannot be fetched ({reason}); check {network}, set HF_ENDPOINT to a mirror such as "
        f"https://hf-mirror.com, {BY_HAND}"
    )
