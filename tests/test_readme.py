"""Every command of the READMEs is run, in their order, in a copy of what git has, with the smallest of models.

python -m pytest tests/test_readme.py
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from examples.sample_booru.server import start

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "README.zh.md")

# What is added to a command so that it needs no internet and no GPU. argparse takes the last of two values.
SMALLER = {
    "simple_dan_crawl.py": "--base-url {base_url} --rate 1000 --target-count 24",
    "generate_selected_tags.py": "--base-url {base_url} --min-posts 1",
    "create_tfrecord.py": "--img-size 28",
    "train_pytorch.py": "--model eva02_tiny --image_size 28 --epochs 1 --device cpu",
}


def commands(readme: str) -> list[str]:
    """The lines of a README's bash blocks, without their comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / readme).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [shlex.join(words) for block in blocks for line in block.splitlines() if (words := shlex.split(line, True))]


def headings(readme: str) -> list[int]:
    """The depth of each heading."""
    text = re.sub(r"^```.*?^```", "", (ROOT / readme).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]


def test_both_languages_say_the_same() -> None:
    english, chinese = READMES
    assert commands(english) == commands(chinese)
    assert headings(english) == headings(chinese)
    for text in ((ROOT / readme).read_text(encoding="utf-8") for readme in READMES):
        assert all((ROOT / target).exists() for target in re.findall(r"\]\((?!http)([^)#]+)\)", text))


def flags_of(script: str) -> set[str]:
    text = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - {"--help"}


@pytest.mark.parametrize(
    "script",
    [
        "simple_dan_crawl.py",
        "replace_blanks.py",
        "generate_selected_tags.py",
        "create_tfrecord.py",
        "train_pytorch.py",
        "wdv3_pytorch.py",
    ],
)
def test_every_flag_is_documented(script: str) -> None:
    for readme in READMES:
        assert flags_of(script) <= set(re.findall(r"--[a-z][\w-]*", (ROOT / readme).read_text(encoding="utf-8")))


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {words[1] for command in commands("README.md") if (words := shlex.split(command))[0] == "make"}
    assert wanted == {"demo", "test"} and wanted <= set(targets)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with what a newcomer has: the files of this one that git does not ignore, and nothing else."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git, or not a clone of it: nobody says which files a newcomer has")
    folder = tmp_path / "clone"
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").rstrip("\0").split("\0"):
        if (ROOT / name).is_file():  # else deleted, and not committed yet
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    return folder


def test_every_command_runs(clone: Path) -> None:
    server, booru = start(posts=60)
    ran = 0
    try:
        for command in commands("README.md"):
            program, *words = shlex.split(command.replace("eva02_large", "eva02_tiny"))
            if program == "make":
                continue  # .ci/run calls them, and this test is a part of one
            assert program == "python", command
            smaller = SMALLER.get(words[0], "").format(base_url=booru.base_url).split()
            done = subprocess.run(
                [sys.executable, *words, *smaller], cwd=clone, capture_output=True, text=True, encoding="utf-8"
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            if words[-2:] == ["--embedded_prompt", "only"]:  # the one whose answer does not depend on a model
                said = done.stdout.replace(" (not in the vocabulary)", "")  # it has grown by then, so this is told
                assert all(f"```text\n{said}```" in (ROOT / name).read_text(encoding="utf-8") for name in READMES)
            ran += 1
    finally:
        server.shutdown()
    # The vocabulary grows, as the READMEs say; all else that the commands make is passed over by git.
    assert git(clone, "diff", "--name-only").splitlines() == ["selected_tags.csv"]
    assert not git(clone, "ls-files", "--others", "--exclude-standard")
    assert ran >= 10
    assert sorted(path.name for path in (clone / "checkpoints").iterdir()) == [
        ".tagger.lock",
        "config.json",
        "curves.png",
        "eva02_tiny_best.pth",
        "eva02_tiny_epoch_1.pth",
        "metrics.csv",
        "resume_00000000.pt",
        "resume_00000001.pt",
        "selected_tags.csv",
        "tag_metrics.csv",
        "threshold.json",
    ]
