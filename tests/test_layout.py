"""The scripts meet through files alone, and nothing heavy is imported before it is needed.

python -m pytest tests/test_layout.py
"""

import subprocess
import sys

import pytest

from tests.helpers import ROOT

SCRIPTS = {
    "simple_dan_crawl",
    "replace_blanks",
    "generate_selected_tags",
    "create_tfrecord",
    "train_pytorch",
    "wdv3_pytorch",
}
HEAVY = {"torch", "timm", "tensorflow", "pandas", "httpx", "PIL", "numpy"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("files", set()),
        ("cli", set()),
        ("tags", set()),
        ("model_config", set()),
        ("images", {"PIL", "numpy"}),
        ("report", {"PIL", "numpy"}),
        ("records", {"numpy"}),
        ("replace_blanks", set()),
        ("generate_selected_tags", {"pandas", "httpx", "numpy"}),
        ("simple_dan_crawl", {"httpx", "PIL", "numpy"}),
        ("create_tfrecord", {"PIL", "numpy"}),
        ("plan", {"PIL", "numpy"}),
        ("shards", {"PIL", "numpy"}),
        ("workers", set()),
        ("model_files", set()),
        ("captions", set()),
        ("selection", set()),
        ("prediction", set()),
        ("wdv3_pytorch", set()),
        ("train_pytorch", {"torch", "timm", "PIL", "numpy"}),
    ],
)
def test_what_a_module_imports(module: str, allowed: set[str]) -> None:
    code = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert imported & HEAVY <= allowed
    assert imported & SCRIPTS <= {module}
