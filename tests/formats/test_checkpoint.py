"""checkpoint.py: what of a config.json tells how pixels are made.

python -m pytest tests/formats/test_checkpoint.py
"""

from dataclasses import replace

import pytest

from models import make_config
from tagger.files import UserError
from tagger.formats.checkpoint import own_preparation
from tagger.preparation import PadToSquare, Preparation, Resize, on_white_square


def test_a_config_without_a_preparation_means_the_white_square() -> None:
    config = make_config("eva02_tiny", 28, 3)
    assert own_preparation(config, "config.json") == on_white_square(28)
    config["tagger"]["channel_order"] = "BGR"
    assert own_preparation(config, "config.json") == on_white_square(28, channel_order="BGR")


def test_a_preparation_wins_over_all_else_of_a_config() -> None:
    config = make_config("eva02_tiny", 28, 3)
    stages = (PadToSquare((0, 0, 0)), Resize((28, 28), "lanczos"))
    written = replace(on_white_square(28), stages=stages, mean=(0.1, 0.2, 0.3), background=None)
    config["tagger"]["preparation"] = written.to_json()
    assert own_preparation(config, "config.json") == written
    config["tagger"]["preparation"]["stages"] = [{"stage": "swirl"}]
    with pytest.raises(UserError, match=r"config\.json: not a preparation of pixels"):
        own_preparation(config, "config.json")


def test_a_preparation_survives_json() -> None:
    for preparation in (on_white_square(448), on_white_square(28, background=None, floats=True, layout="NHWC")):
        assert Preparation.from_json(preparation.to_json(), "x") == preparation
