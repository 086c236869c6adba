"""Who may import whom, and what is imported before it is needed: read from every file, not from a list kept by hand.

python -m pytest tests/test_layout.py
"""

import ast
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import ROOT

SCRIPTS = (
    "simple_dan_crawl",
    "replace_blanks",
    "generate_selected_tags",
    "create_tfrecord",
    "train_pytorch",
    "wdv3_pytorch",
)
STAGES = ("crawl", "tfrecord", "training", "inference")
GROUND = ("cli", "files", "images", "device", "preparation", "proxies")
OF_THE_PARSER = ("--help", "--version")  # flags that every script has, from tagger.cli
OUTSIDE = ("tests", "examples", "benchmarks")  # may import anything

# Each costs a tenth of a second or more, which the threshold loop has not got. What a module may import of them, where
# that is more than nothing: a stage that cannot do without imports it at the top, all else where it is needed.
HEAVY = {
    "torch",
    "timm",
    "onnxruntime",
    "tensorflow",
    "pandas",
    "pyarrow",
    "httpx",
    "PIL",
    "numpy",
    "matplotlib",
    "google",
    "simplejpeg",
}
PIXELS, ARRAYS, LEARNING = {"PIL", "numpy"}, {"numpy"}, {"torch", "timm", "numpy", "PIL", "google", "simplejpeg"}
ALLOWED = {
    "tagger.images": PIXELS,
    "tagger.device": set(),
    "tagger.formats.records": {"numpy", "google"},
    "tagger.formats.weights": {"torch", "numpy"},
    "tagger.crawl": {"httpx", *PIXELS},
    "tagger.tfrecord": {"google", *PIXELS},
    "tagger.training": LEARNING,
    "tagger.training.curves": {"matplotlib", *PIXELS},
    "tagger.inference.report": PIXELS,
    "tagger.inference.onnx_export": LEARNING,
    "tagger.inference.engines.torch_engine": LEARNING,
    "tagger.inference.engines.onnx_engine": {"onnxruntime", "google", *PIXELS},
    "models": LEARNING,
    "simple_dan_crawl": {"httpx", *PIXELS},
    "generate_selected_tags": {"pandas", "pyarrow", "httpx", *PIXELS},
    "create_tfrecord": {"google", *PIXELS},
    "train_pytorch": LEARNING | {"matplotlib"},
}


@dataclass(frozen=True)
class Source:
    """A module of ours: its dotted name and its syntax tree."""

    name: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """script, models, package (tagger itself), ground, formats, or the name of a stage."""
        parts = self.name.split(".")
        if parts[0] != "tagger":
            return "models" if self.name == "models" else "script"
        if len(parts) == 1:
            return "package"
        return parts[1] if parts[1] in (*STAGES, "formats") else "ground"

    @functools.cached_property
    def imports(self) -> list[str]:
        """The dotted names of what it imports of ours, also within functions; `from a import b` counts as a.b."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.name}: relative imports hide who imports whom"
                found += [f"{node.module}.{alias.name}" for alias in node.names]
        return [name for name in found if name.split(".")[0] in ("tagger", "models", *SCRIPTS, *OUTSIDE)]


def read_sources(root: Path) -> list[Source]:
    """Every module of the scripts and of tagger/."""
    paths = [*root.glob("*.py"), *(root / "tagger").rglob("*.py")]
    return [
        Source(
            ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"),
            ast.parse(path.read_text(encoding="utf-8")),
        )
        for path in sorted(paths)
    ]


# --- the rules: each yields a line for every violation --------------------------------------------------------------


def may_import(source: Source, imported: str) -> bool:
    """Whether a module may import another of ours, by LAYOUT's rules."""
    parts = imported.split(".")
    if parts[0] != "tagger":
        return source.room == "script" and imported.split(".")[0] == "models"
    place = parts[1]
    if source.room == "script":
        return True
    if source.room == "models":
        return place in ("formats", "files")
    if source.room == "ground":
        return place == "files" or (place == "preparation" and source.name != "tagger.files")
    if source.room == "formats":
        return place in ("formats", "files", "preparation", "proxies")
    return place in (*GROUND, "formats", source.room)


def wrong_imports(sources: list[Source]) -> Iterator[str]:
    for source in sources:
        for imported in source.imports:
            if not may_import(source, imported):
                yield f"{source.name} imports {imported}"


def circles(sources: list[Source]) -> Iterator[str]:
    names = {source.name for source in sources}
    graph = {
        source.name: {name if name in names else name.rpartition(".")[0] for name in source.imports} & names
        for source in sources
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> Iterator[str]:
        if name in path:
            yield " -> ".join((*path[path.index(name) :], name))
        elif name not in done:
            for imported in sorted(graph[name]):
                yield from visit(imported, (*path, name))
            done.add(name)

    for name in sorted(graph):
        yield from visit(name, ())


def full_packages(sources: list[Source]) -> Iterator[str]:
    """Code in an __init__.py runs whenever anything of the package is imported."""
    packages = {source.name.rpartition(".")[0] for source in sources}
    for source in sources:
        if source.name in packages and source.room != "script" and len(source.tree.body) != 1:
            yield f"{source.name}/__init__.py holds more than a docstring"


def flags_of(sources: list[Source]) -> set[str]:
    """The flags of all scripts, as they are written in add_argument."""
    return {
        node.args[0].value
        for source in sources
        if source.room == "script"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
        and node.args[0].value.startswith("--")
    }


def texts(source: Source) -> Iterator[str]:
    """All strings of a module but docstrings, which may show commands."""
    spared = set()
    for node in ast.walk(source.tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            spared.add(id(node.body[0].value))  # type: ignore[attr-defined]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in spared:
            yield node.value


def named_flags(sources: list[Source]) -> Iterator[str]:
    """Flags named below the scripts, and scripts named by what all stages share."""
    scripts = re.compile(r"\b(" + "|".join(SCRIPTS) + r")\b")
    for source in sources:
        if source.room == "script":
            continue
        for text in texts(source):
            for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text):
                if flag not in OF_THE_PARSER:
                    yield f"{source.name} names {flag}"
            if source.room in ("ground", "formats") and (script := scripts.search(text)):
                yield f"{source.name} names {script[0]}.py"


def long_functions(sources: list[Source]) -> Iterator[str]:
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > (120 if node.name == "parse_arguments" else 80):
                    yield f"{source.name}.{node.name} has {length} lines"


def script_shape(sources: list[Source]) -> Iterator[str]:
    """`main` is the last function of a script, and nothing but the call of it follows."""
    for source in sources:
        if source.room != "script":
            continue
        functions = [node.name for node in source.tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        if not functions or functions[-1] != "main":
            yield f"{source.name}: main is not its last function"


RULES: dict[str, Callable[[list[Source]], Iterator[str]]] = {
    "imports": wrong_imports,
    "circles": circles,
    "packages": full_packages,
    "flags": named_flags,
    "length": long_functions,
    "main": script_shape,
}


@pytest.mark.parametrize("rule", RULES)
def test_every_file_keeps_the_rule(rule: str) -> None:
    assert list(RULES[rule](read_sources(ROOT))) == []


# What is appended to a file, and the rule that it breaks.
VIOLATIONS = {
    "a script imports a script": ("imports", "wdv3_pytorch.py", "import replace_blanks"),
    "a script imports the tests": ("imports", "wdv3_pytorch.py", "from tests import helpers"),
    "models imports a stage": ("imports", "models.py", "from tagger.training import loss"),
    "models imports the ground": ("imports", "models.py", "from tagger import cli"),
    "a stage imports models": ("imports", "tagger/training/loss.py", "import models"),
    "a stage imports a script": ("imports", "tagger/crawl/posts.py", "import simple_dan_crawl"),
    "a stage imports another": ("imports", "tagger/training/loss.py", "from tagger.inference import output"),
    "a function imports another stage": (
        *("imports", "tagger/inference/output.py"),
        "def f():\n    from tagger.training.loss import TaggingLoss",
    ),
    "formats imports a stage": ("imports", "tagger/formats/records.py", "import tagger.tfrecord.shards"),
    "formats imports the ground": ("imports", "tagger/formats/records.py", "from tagger import cli"),
    "the ground imports formats": ("imports", "tagger/images.py", "from tagger.formats import records"),
    "the ground imports the ground": ("imports", "tagger/images.py", "from tagger import cli"),
    "two modules import each other": (
        *("circles", "tagger/formats/vocabulary.py"),
        "from tagger.formats import thresholds",
    ),
    "a package holds code": ("packages", "tagger/formats/__init__.py", "VERSION = 1"),
    "the ground names a flag": ("flags", "tagger/device.py", "HINT = 'pass --device cpu'"),
    "formats names a flag in an f-string": ("flags", "tagger/formats/weights.py", "HINT = f'{1} --model_path'"),
    "formats names a script": ("flags", "tagger/formats/weights.py", "HINT = 'run train_pytorch.py'"),
    "a stage names a flag": ("flags", "tagger/training/loss.py", "HINT = 'pass a lower --lr'"),
    "a function is long": ("length", "tagger/training/loss.py", "def f():\n" + "    pass\n" * 80),
    "main is not last": ("main", "replace_blanks.py", "def after():\n    pass"),
}


@pytest.mark.parametrize("what", VIOLATIONS)
def test_a_planted_violation_is_found(what: str, tmp_path: Path) -> None:
    rule, name, code = VIOLATIONS[what]
    for path in [*ROOT.glob("*.py"), *(ROOT / "tagger").rglob("*.py")]:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    with open(tmp_path / name, "a", encoding="utf-8") as file:
        file.write(f"\n{code}\n")
    assert list(RULES[rule](read_sources(tmp_path))) != []


# --- what a module imports in fact ----------------------------------------------------------------------------------

# Imports each module in a process of its own, forked from one that has imported nothing heavy.
IMPORT = """
import importlib, os, sys
for name in sys.argv[1:]:
    sys.stdout.flush()
    if child := os.fork():
        if os.waitpid(child, 0)[1]:
            print(name, "failed")
    else:
        importlib.import_module(name)
        print(name, *{each.partition(".")[0] for each in sys.modules})
        sys.stdout.flush()
        os._exit(0)
"""


def allowed(module: str) -> set[str]:
    """What a module may import of HEAVY: its own entry, or that of the closest package above it."""
    while module not in ALLOWED and "." in module:
        module = module.rpartition(".")[0]
    return ALLOWED.get(module, set())


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="a process of its own for each takes a minute here")
def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    modules = [source.name for source in read_sources(ROOT)]
    command = [sys.executable, "-c", IMPORT, *modules]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    imported = {name: set(rest) for name, *rest in map(str.split, done.stdout.splitlines())}
    assert imported.keys() == set(modules)
    wrong = {name: found & HEAVY - allowed(name) for name, found in imported.items()}
    assert {name: found for name, found in wrong.items() if found} == {}
