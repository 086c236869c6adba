"""What runs the models of a family, and whether it is installed here.

python -c "from tagger.formats.families.engines import installed_engines; print(installed_engines())"
"""

import importlib.util

from tagger.files import UserError

PACKAGES = {"torch": ("torch", "timm"), "onnx": ("onnxruntime",)}  # what each engine needs


def installed_engines() -> list[str]:
    """The engines whose packages are here; they are looked for and not imported."""
    return [name for name, packages in PACKAGES.items() if all(map(importlib.util.find_spec, packages))]


class EngineMissing(UserError):
    """The files are known, and what would run them cannot be used here.

    Attributes:
        engine: a key of PACKAGES.
    """

    def __init__(self, place: object, family: str, engine: str) -> None:
        super().__init__(f"{place}: a model of the family {family}, which needs {' and '.join(PACKAGES[engine])}")
        self.engine = engine
