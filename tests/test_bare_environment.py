"""Every script where little can be relied on: no HOME, an ASCII locale, another user, proxies, a full disk, no stdout.

python -m pytest tests/test_bare_environment.py
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from PIL import Image

from examples.sample_booru.booru import SampleBooru
from examples.sample_booru.server import start
from tests.helpers import ROOT, error_line, tree, write_csv

SCRIPTS = (
    *("simple_dan_crawl.py", "replace_blanks.py", "generate_selected_tags.py", "create_tfrecord.py"),
    *("train_pytorch.py", "wdv3_pytorch.py"),
)
UNKNOWN = 54321  # a user's number that no system gives
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
# No HOME, no XDG_CACHE_HOME; and Python left to an ASCII locale instead of turning to UTF-8 by itself.
BARE = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
pytestmark = pytest.mark.skipif(os.name == "nt", reason="locales, users and file systems of Unix")


@pytest.fixture(scope="module")
def booru() -> Iterator[SampleBooru]:
    server, booru = start(posts=30)
    yield booru
    server.shutdown()


@pytest.fixture
def folder(checkpoint: Path, records: Path) -> Iterator[Path]:
    """A working folder that every user can reach, with a dataset, records and a checkpoint."""
    folder = Path(tempfile.mkdtemp())
    (folder / "dataset").mkdir()
    for number in range(12):
        Image.new("RGB", (20, 30), (number * 9, 0, 90)).save(folder / "dataset" / f"初音{number}.png")
        (folder / "dataset" / f"初音{number}.txt").write_text(f"general,1girl,初音ミク{number % 2}", encoding="utf-8")
    write_csv(folder / "tags.csv", ["general,9", "1girl,0"])
    shutil.copytree(records, folder / "records")
    shutil.copytree(checkpoint, folder / "checkpoint")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def command_of(script: str, booru: SampleBooru) -> list[str]:
    """A small real run of a script in the folder above."""
    flags: dict[str, Sequence[object]] = {
        "simple_dan_crawl.py": (
            *("--base-url", booru.base_url, "--rate", 1000, "--target-count", 6, "--output-dir", "crawled"),
        ),
        "replace_blanks.py": (),
        "generate_selected_tags.py": ("--output-csv", "new.csv"),
        "create_tfrecord.py": ("--tags-csv", "tags.csv", "--img-size", 28, "--workers", 1),
        "train_pytorch.py": (
            *("--dataset_root", "records", "--output_dir", "trained", "--model", "eva02_tiny", "--image_size", 28),
            *("--epochs", 1, "--device", "cpu"),
        ),
        "wdv3_pytorch.py": (
            *("--image_file", "dataset", "--model_path", "checkpoint", "--device", "cpu", "--output", "out.json"),
            *("--output_format", "json", "--write_captions", "--existing", "append"),
        ),
    }
    return [sys.executable, str(ROOT / script), *map(str, flags[script])]


def run(
    command: Sequence[str],
    cwd: Path,
    user: int | None = None,
    variables: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**BARE, **(variables or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )
    if check:
        for words in ("Traceback", "nobody foresaw", "Exception ignored"):
            assert words not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_in_an_ascii_locale_without_a_home(script: str, tmp_path: Path) -> None:
    done = run([sys.executable, str(ROOT / script), "--help"], tmp_path)
    assert done.returncode == 0 and "--help" in done.stdout, done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_in_an_ascii_locale_without_a_home(script: str, folder: Path, booru: SampleBooru) -> None:
    done = run(command_of(script, booru), folder)
    assert done.returncode == 0, done.stderr


def as_user(command: Sequence[str], user: int) -> tuple[list[str], dict[str, str]]:
    """A command of this Python that another user can run, and its environment; skips the test where there is none.

    This Python may lie in root's own folder. The system's, of the same version, then takes our packages.
    """
    packages = {"PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])}
    for python, variables in ((sys.executable, {}), ("/usr/bin/python3", packages)):
        probe = [python, "-c", f"import sys, torch, tensorflow; assert sys.version_info[:2] == {sys.version_info[:2]}"]
        try:
            if not run(probe, Path("/"), user, variables, check=False).returncode:
                return [python, *command[1:]], variables
        except PermissionError:
            continue
    pytest.skip("no Python that another user can run")


@pytest.mark.skipif(not IS_ROOT, reason="only root can be somebody else")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_as_a_user_whom_the_system_does_not_know(script: str, folder: Path, booru: SampleBooru) -> None:
    subprocess.run(["chown", "-R", f"{UNKNOWN}:{UNKNOWN}", folder], check=True)
    command, variables = as_user(command_of(script, booru), UNKNOWN)
    done = run(command, folder, UNKNOWN, variables)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not IS_ROOT, reason="only root can be somebody else")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_folder_that_may_not_be_written(script: str, folder: Path, booru: SampleBooru) -> None:
    command, variables = as_user(command_of(script, booru), UNKNOWN)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = tree(folder)
    done = run(command, folder, UNKNOWN, variables)
    if script == "wdv3_pytorch.py" and done.returncode == 1:
        assert done.stderr.count("ermission denied") >= 1
    else:
        assert done.returncode == 2, done.stderr
        error_line(done.stderr)
    assert tree(folder) == before


@pytest.mark.parametrize(
    "variables",
    [
        {"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost,[::1]"},
        {"all_proxy": "socks://127.0.0.1:9", "no_proxy": "127.0.0.1"},
        {"HTTPS_PROXY": "nonsense", "HTTP_PROXY": "nonsense"},
        {"SSL_CERT_FILE": "/nowhere/certificates.pem"},
    ],
    ids=lambda variables: next(iter(variables)),
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_proxies_of_the_environment(script: str, variables: dict[str, str], folder: Path, booru: SampleBooru) -> None:
    if script in ("train_pytorch.py", "create_tfrecord.py"):
        pytest.skip("asks no server")
    done = run(command_of(script, booru), folder, variables=variables)
    if script == "simple_dan_crawl.py" and done.returncode == 2:
        assert any(name in error_line(done.stderr) for name in variables), done.stderr
    else:
        assert done.returncode == 0, done.stderr


# --- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 40 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


OUTPUTS = {
    "simple_dan_crawl.py": ("--output-dir", "{disk}/crawled"),
    "generate_selected_tags.py": ("--output-csv", "{disk}/new.csv"),
    "create_tfrecord.py": ("--output-path", "{disk}/records"),
    "train_pytorch.py": ("--output_dir", "{disk}/trained"),
    "wdv3_pytorch.py": ("--output", "{disk}/out.json"),
}


@pytest.mark.parametrize("script", OUTPUTS)
def test_a_full_disk(script: str, folder: Path, booru: SampleBooru, full_disk: Path) -> None:
    (full_disk / "filler").write_bytes(bytes(36 << 10))
    more = [word.format(disk=full_disk) for word in OUTPUTS[script]]
    if script == "generate_selected_tags.py":
        names = ",".join(f"tag_with_a_long_name_{number}" for number in range(2000))
        (folder / "dataset" / "初音0.txt").write_text(names, encoding="utf-8")
    if script == "wdv3_pytorch.py":
        more += ["--gen_threshold", "0", "--char_threshold", "0"]
    done = run([*command_of(script, booru), *more], folder)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "No space left on device" in error_line(done.stderr) or "disk is full" in error_line(done.stderr)
    assert not [name for name in tree(full_disk) if name.endswith(".part")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_stdout_that_takes_nothing(script: str, folder: Path, booru: SampleBooru) -> None:
    with open("/dev/full", "w") as full:
        command = [
            each for each in command_of(script, booru) if each not in ("--output", "out.json", "--write_captions")
        ]
        command = [each for each in command if each not in ("--existing", "append")]
        done = subprocess.run(command, cwd=folder, env=BARE, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2, done.stderr
    assert "No space left on device" in error_line(done.stderr)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_closed_stdout(script: str, folder: Path, booru: SampleBooru) -> None:
    command = " ".join(f"'{word}'" for word in command_of(script, booru)) + " >&-"
    done = subprocess.run(command, shell=True, cwd=folder, env=BARE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr
