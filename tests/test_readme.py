"""Every command of the READMEs is run, in their order, on the sample booru and with the smallest of models.

python -m pytest tests/test_readme.py
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

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


def test_every_command_runs(tmp_path: Path) -> None:
    server, booru = start(posts=60)
    for name in ("selected_tags.csv", "threshold.json"):
        shutil.copy(ROOT / name, tmp_path)
    Image.new("RGB", (320, 200), "orange").save(tmp_path / "test.png")
    (tmp_path / "pictures").mkdir()
    shutil.copy(tmp_path / "test.png", tmp_path / "pictures")
    ran = 0
    try:
        for command in commands("README.md"):
            program, *words = shlex.split(command.replace("eva02_large", "eva02_tiny"))
            if program == "make":
                continue  # .ci/run calls them, and this test is a part of one
            assert program == "python", command
            smaller = SMALLER.get(words[0], "").format(base_url=booru.base_url).split()
            done = subprocess.run(
                [sys.executable, ROOT / words[0], *words[1:], *smaller],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                encoding="utf-8",
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            ran += 1
    finally:
        server.shutdown()
    assert ran >= 10
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
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
