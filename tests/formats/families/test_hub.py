"""hub.py: which files of a repository are fetched, and what is said where one cannot be had.

python -m pytest tests/formats/families/test_hub.py
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from tagger.files import UserError
from tagger.formats.families import hub
from tagger.formats.families.hub import Repository, open_repository
from tagger.inference.engines.onnx_engine import OnnxEngine
from tagger.inference.engines.protocol import EngineSettings
from tests.families import MINIATURES
from tests.hub import COMMIT, FakeHub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", Repository("owner/name")),
        ("hf-hub:owner/na.me", Repository("owner/na.me")),
        ("owner/name/v2.0", Repository("owner/name", "v2.0")),
        ("owner/name/a/model.onnx@main", Repository("owner/name", "a/model.onnx", "main")),
        ("owner/name@refs/pr/1", Repository("owner/name", revision="refs/pr/1")),
    ],
)
def test_names(text: str, expected: Repository) -> None:
    assert Repository.of(text) == expected


@pytest.mark.parametrize(
    "text", ["name", "C:\\models", "owner/name/../x", "owner//name", "https://huggingface.co/a/b", ""]
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(UserError, match="neither a file or folder nor a repository"):
        Repository.of(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with two taggers in folders of their own, one with its tensors beside the graph, and large files."""
    root = tmp_path / "repository"
    for name in ("PixAI v1.0 ONNX, tags.json", "Kaloscope ONNX"):
        (root / name[:5]).mkdir(parents=True)
        MINIATURES[name].make(root / name[:5])
    (root / "README.md").write_text("hello")
    (root / "Kalos" / "best_checkpoint.pth").write_bytes(b"3 GB")
    return root


def test_a_folder_of_a_repository_and_only_what_is_needed(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with FakeHub({"a/b": folder}).used(monkeypatch, tmp_path / "cache") as server:
        described = open_repository("a/b/PixAI")
        assert server.fetched == [f"a/b/PixAI/{name}" for name in ("tags.json", "model.onnx.data", "model.onnx")]
        assert described.data[0].name == "model.onnx.data"
        # In the hub's cache graph and data are links to files of other names.
        OnnxEngine(described, EngineSettings("cpu"))
        assert open_repository(f"a/b/Kalos/kaloscope_2-0.onnx@{COMMIT}").family == "Kaloscope, ONNX"
        assert not any(name.endswith(".pth") for name in server.fetched)


def test_the_cache_does_where_there_is_no_network(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    with FakeHub({"a/b": folder}).used(monkeypatch, tmp_path / "cache"):
        online = open_repository("a/b/PixAI")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert open_repository("a/b/PixAI").weights == online.weights
    with pytest.raises(UserError, match=r"a/b/Kalos: no weights in this folder; there are some in PixAI"):
        open_repository("a/b/Kalos")
    with pytest.raises(UserError, match=r"a/c: cannot be fetched .*HF_ENDPOINT.*or fetch its files in a browser"):
        open_repository("a/c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a/gated/Kalos", r"class_mapping\.csv: gated; accept its terms on https://huggingface\.co/a/gated .*HF_TOKEN"),
        ("a/missing", "a/missing: no such repository, or a private one that needs HF_TOKEN"),
        ("a/b@old", "a/b@old: no such revision"),
        ("a/b", "a/b: no weights in this folder; there are some in Kalos, PixAI"),
        ("a/b/nothing", "no weights in this folder"),
        ("a/empty", "the repository has none"),
    ],
)
def test_what_cannot_be_had(folder: Path, tmp_path: Path, monkeypatch: Any, text: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    repositories = {"a/b": folder, "a/gated": folder, "a/empty": tmp_path / "empty"}
    served = FakeHub(repositories, gated=("a/gated",)).used(monkeypatch, tmp_path / "cache")
    with served, pytest.raises(UserError, match=words):
        open_repository(text)


def test_a_file_that_is_missing_is_named(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    listed = ["Kalos/class_mapping.csv", "Kalos/model.onnx"]
    monkeypatch.setattr(hub, "_list", lambda repository: (listed, True))
    served = FakeHub({"a/b": folder}).used(monkeypatch, tmp_path / "cache")
    with served, pytest.raises(UserError, match=r"a/b/Kalos: Kalos/model\.onnx: not in the repository"):
        open_repository("a/b/Kalos")


@pytest.fixture
def no_session() -> Iterator[None]:
    """The hub's library keeps its web client for the process; one that this test makes is for this test alone."""
    huggingface_hub.close_session()
    yield
    huggingface_hub.close_session()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "no address"])
def test_a_hub_that_cannot_be_reached(address: str, no_session: None, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("ALL_PROXY", "")
    with pytest.raises(UserError, match=r"a/b: cannot be fetched \(.+\); check the network, set HF_ENDPOINT"):
        open_repository("a/b")


@pytest.mark.parametrize(("name", "value"), [("https_proxy", "ftp://127.0.0.1:9"), ("SSL_CERT_FILE", "/nowhere.pem")])
def test_a_variable_that_no_client_can_use_is_named(
    name: str, value: str, no_session: None, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"{name}={re.escape(value)}: .*environment variable, or unset it"):
        open_repository("a/b")


@pytest.mark.parametrize("scheme", ["socks", "socks5"])
def test_the_proxy_of_a_hub_that_cannot_be_reached_is_named(
    scheme: str, no_session: None, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:9")
    with pytest.raises(UserError, match=r"a/b: cannot be fetched .* check the network or ALL_PROXY"):
        open_repository("a/b")
