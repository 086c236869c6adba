"""The report: what write_report puts into the page, and what the page does in a headless Chromium.

python -m pytest tests/inference/test_report.py -rs     # says why the browser's tests were passed over, where they were
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

import wdv3_pytorch
from examples.sample_booru.drawing import draw_post
from models import make_config
from tagger.files import UserError
from tagger.formats.translations import Translations
from tagger.formats.vocabulary import CATEGORY_NUMBERS, Vocabulary
from tagger.inference import report
from tagger.inference.artist_strings import ARTIST_WEIGHTS, SYNTAXES, ArtistSettings, Syntax
from tagger.inference.captions import Style
from tagger.inference.logits import Logits
from tagger.inference.predictor import Result
from tagger.inference.selection import SelectionRule
from tests.helpers import ODD_NAMES, write_csv
from tests.inference.embedded.files import novelai_png, png

THRESHOLDS = {
    "general_threshold": 0.4,
    "character_threshold": 0.8,
    "artist_threshold": 0.5,
    "caption_threshold": 0.45,
    "tags_threshold": 0.6,
}
PLAIN = Style()
RATINGS = {"general": 0.9, "sensitive": 0.07, "questionable": 0.02, "explicit": 0.01}
HOSTILE = ["<o>_<o>", "<script>alert(1)</script>", "</script>", "<!--<script>", "&lt;", "\u2028", "__proto__", "$&"]


Said = tuple[Path, dict[str, dict[str, float]]]  # an image and its tags by category


def entry(image: Path, **groups: dict[str, float]) -> Said:
    """An image with the given groups; its ratings are RATINGS, the other groups empty."""
    return image, {"rating": RATINGS} | groups


def write(
    path: Path,
    entries: Sequence[Said | None],
    style: Style = PLAIN,
    syntax: str | None = None,
    translations: Translations | None = None,
) -> None:
    """A report at THRESHOLDS; the tags are numbered as they come. None is an image that has no answer."""
    said = [each or (path.with_name("no answer.png"), {}) for each in entries]
    tags = {(name, category) for _, groups in said for category, group in groups.items() for name in group}
    names = tuple(dict.fromkeys(name for _, groups in said for group in groups.values() for name in group))
    categories = dict(tags)
    vocabulary = Vocabulary(names, tuple(CATEGORY_NUMBERS[categories[name]] for name in names))
    images = [image for image, _ in said]
    rule, artists = SelectionRule(THRESHOLDS), ArtistSettings(syntax)
    with report.writing(path, images, rule, vocabulary, style, artists, translations) as page:
        for each, (image, groups) in zip(entries, said, strict=True):
            if each is None:
                page.pass_over()
                continue
            all_groups = {name: p for group in groups.values() for name, p in group.items()}
            page.add(image, {label: all_groups.get(name, 0.0) for label, name in enumerate(names)})


def data_of(page: Path) -> dict[str, Any]:
    """The JSON in a report, read as a browser does: up to the first end of its element."""
    text = page.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def draw(path: Path, number: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw_post(number, kind="jpg").data)
    return path


# --- the file -------------------------------------------------------------------------------------------------------


def test_odd_names_and_exact_probabilities_survive(tmp_path: Path) -> None:
    names = [*HOSTILE, *ODD_NAMES]
    general = {name: 1 / (1 + number / 2) for number, name in enumerate(names)}
    image = draw(tmp_path / "</script><b> 初音.jpg")
    write(tmp_path / "out.html", [entry(image, general=general)])
    data = data_of(tmp_path / "out.html")
    assert data["images"][0]["name"] == image.name
    assert dict(data["images"][0]["general"]) == general
    assert data["thresholds"] == THRESHOLDS


def test_groups_fall_and_ties_keep_their_order(tmp_path: Path) -> None:
    general = {"b": 0.5, "z": 0.9, "a": 0.5}
    write(tmp_path / "out.html", [entry(draw(tmp_path / "1.jpg"), general=general)])
    assert data_of(tmp_path / "out.html")["images"][0]["general"] == [["z", 0.9], ["b", 0.5], ["a", 0.5]]


def test_what_is_kept_of_an_image() -> None:
    vocabulary = Vocabulary(("general", "explicit", "solo", "hat", "miku", "wlop"), (9, 9, 0, 0, 4, 1))
    kept = report.make_entry(Path("1.jpg"), "1.jpg", dict(enumerate([0.9, 0.001, 0.3, 0.0499, 0.05, 0.7])), vocabulary)
    assert kept.groups == {
        "rating": {"general": 0.9, "explicit": 0.001},
        "general": {"solo": 0.3},
        "character": {"miku": 0.05},
        "artist": {"wlop": 0.7},
    }


def test_order_and_spelling_come_from_python(tmp_path: Path) -> None:
    tags = entry(
        draw(tmp_path / "1.jpg"),
        general={"o_o": 0.9, "long_hair": 0.8, "solo": 0.7},
        character={"saber_(fate)": 0.95},
        artist={"a_b": 0.75},
    )
    style = Style(order="probability", exclude=("solo",), first=("a_b",), spaces=True, escape=True)
    write(tmp_path / "out.html", [tags], style)
    data = data_of(tmp_path / "out.html")
    assert data["images"][0]["order"] == [4, 3, 0, 1]
    assert data["spelling"] == [["long_hair", "long hair"], ["saber_(fate)", "saber \\(fate\\)"], ["a_b", "a b"]]
    write(tmp_path / "out.html", [tags])
    assert data_of(tmp_path / "out.html")["images"][0]["order"] == [0, 1, 2, 3, 4]
    assert data_of(tmp_path / "out.html")["spelling"] == []


def test_file_names_that_are_not_unicode(tmp_path: Path) -> None:
    write(tmp_path / "out.html", [entry(tmp_path / "\udcff.jpg")])
    assert data_of(tmp_path / "out.html")["images"][0]["name"] == "\udcff.jpg"


def test_names_start_where_the_images_part(tmp_path: Path) -> None:
    paths = [tmp_path / "a" / "1.jpg", tmp_path / "a" / "b" / "1.jpg"]
    assert report.names_of(paths) == ["1.jpg", "b/1.jpg"]
    assert report.names_of(paths[1:]) == ["1.jpg"]
    assert report.names_of([]) == []


def test_nothing_is_fetched(tmp_path: Path) -> None:
    write(tmp_path / "out.html", [entry(draw(tmp_path / "1.jpg"))])
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_report_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.html"
    write(out, [entry(tmp_path / "gone.jpg")])
    before = out.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="no space left"):
            write(out, [entry(draw(tmp_path / "1.jpg"))])
    assert out.read_bytes() == before
    write(out, [None])  # an earlier report is worth more than one without images
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jpg", "out.html"]


# --- pages ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "PAGE_SIZE", 3)


@pytest.mark.usefixtures("small_pages")
def test_many_images_are_divided_among_pages(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.html"
    entries: list[Said | None] = [entry(tmp_path / f"{number}.jpg", general={"solo": 0.5}) for number in range(8)]
    entries[1] = None
    entries[6:] = [None, None]
    write(out, entries)
    pages = [out, out.with_name("out-2.html"), out.with_name("out-3.html")]
    assert sorted(out.parent.iterdir()) == sorted(pages)
    for number, (page, names) in enumerate(
        zip(pages, (["0.jpg", "2.jpg"], ["3.jpg", "4.jpg", "5.jpg"], []), strict=True), start=1
    ):
        data = data_of(page)
        assert [image["name"] for image in data["images"]] == names
        assert (data["page"], data["pages"]) == (number, [page.name for page in pages])
        assert [report.is_report(page, other) for other in (1, 2, 3)] == [other == number for other in (1, 2, 3)]


@pytest.mark.usefixtures("small_pages")
def test_pages_that_a_longer_report_left_are_removed_and_no_others(tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    entries = [entry(tmp_path / f"{number}.jpg") for number in range(13)]
    write(out, entries)
    assert len(list(tmp_path.iterdir())) == 5
    write(tmp_path / "out-4.html", entries[:1])  # a report of its own
    write(out, entries[:4])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-2.html", "out-4.html", "out-5.html", "out.html"]
    (tmp_path / "out-4.html").unlink()
    (tmp_path / "out-5.html").unlink()
    write(out, entries[:1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html"]


@pytest.mark.usefixtures("small_pages")
def test_an_error_on_a_later_page_leaves_the_earlier_report(tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    write(out, [entry(tmp_path / "old.jpg")])
    before = out.read_bytes()
    entries = [entry(tmp_path / f"{number}.jpg") for number in range(5)]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(out, [*entries, entry(tmp_path / "5.jpg", rating={"general": math.nan})])
    assert list(tmp_path.iterdir()) == [out] and out.read_bytes() == before


def test_what_looks_like_a_report(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    assert not report.is_report(path)
    path.write_text("<!doctype html><title>Tag report</title>")  # as version 0.1.0 wrote it
    assert report.is_report(path) and not report.is_report(path, 2)
    path.write_text("<!doctype html><title>My page</title>")
    assert not report.is_report(path)


@pytest.mark.parametrize("damage", ["", "<p>no place</p>", "__DATA__ __PAGE__ __DATA__"])
def test_a_template_without_its_places_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    (tmp_path / "template.html").write_text(damage)
    monkeypatch.setattr(report, "TEMPLATE", tmp_path / "template.html")
    with pytest.raises(UserError, match=r"template\.html: no __\w+__ in it, or several; fetch"):
        write(tmp_path / "out.html", [entry(tmp_path / "1.jpg")])
    assert not (tmp_path / "out.html").exists()


def test_a_probability_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "out.html", [entry(tmp_path / "1.jpg", rating={"general": math.nan})])
    assert not (tmp_path / "out.html").exists()


def test_thumbnails_are_small_and_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (1200, 600), "red").save(tmp_path / "1.jpg", exif=exif)
    thumbnail = report.thumbnail(tmp_path / "1.jpg")
    assert (thumbnail["width"], thumbnail["height"]) == (160, 320)
    assert thumbnail["src"].startswith("data:image/jpeg;base64,/9j/")
    Image.new("RGB", (20, 30)).save(tmp_path / "small.png")
    assert report.thumbnail(tmp_path / "small.png")["width"] == 20


def test_what_cannot_be_decoded_has_a_reason_and_no_path(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no image")
    assert report.thumbnail(tmp_path / "1.jpg")["error"].startswith("not an image in a format that is read here")
    assert "no such file" in report.thumbnail(tmp_path / "2.jpg")["error"]


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's chromium, another one that is installed, or playwright's own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r requirements-dev.txt")
    installed = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        try:
            # Chromium refuses to sandbox itself for root, as whom containers run.
            opened = driver.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no chromium that starts: {error.message.splitlines()[0]}")
        yield opened
        opened.close()


class Window:
    """A page in the browser; leaving nothing on its console is part of every test.

    Attributes:
        page: playwright's page.
        complaints: what was written to the console or thrown.
    """

    def __init__(self, browser: Any, report_path: Path, **context: Any) -> None:
        self.context = browser.new_context(offline=True, permissions=["clipboard-read", "clipboard-write"], **context)
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self.refuse)
        self.page.on("request", lambda request: self.saw(request.url))
        self.page.goto(report_path.as_uri())
        self.page.wait_for_selector(".card h2")

    def refuse(self, dialog: Any) -> None:
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def saw(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:")):
            self.complaints.append(url)

    def slide(self, key: str, value: float) -> None:
        """Move a slider, and wait until the page has been drawn anew."""
        self.page.fill(f"#{key}", str(value))
        self.settle()

    def settle(self) -> None:
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def tags(self, category: str, card: int = 0) -> list[str]:
        """The tags that a card shows in one category."""
        rows = f'.card[data-number="{card}"] .group[data-category="{category}"] .tag:visible .name'
        return self.page.locator(rows).all_text_contents()

    def prompt(self, kind: str, card: int = 0) -> str:
        """What the button of a card copies."""
        self.page.click(f'.card[data-number="{card}"] [data-copy="{kind}"]')
        self.page.wait_for_selector(f'.card[data-number="{card}"] [data-copy="{kind}"]:text("Copied")')
        return self.page.evaluate("navigator.clipboard.readText()")

    def images(self) -> list[str]:
        """The names of the images that the filter leaves."""
        return [element.get_attribute("aria-label") for element in self.page.query_selector_all(".card:not([hidden])")]


@pytest.fixture
def window(browser: Any, tmp_path: Path) -> Iterator[Window]:
    """Three images: one with everything, one with hostile names, one that cannot be decoded."""
    entries = [
        entry(
            draw(tmp_path / "first.jpg"),
            general={"smile": 0.41, "1girl": 0.95, "long_hair": 0.62, "hat": 0.3},
            character={"mika_(sample)": 0.85, "guts_(berserk)": 0.79},
            artist={"name_(of_artist)": 0.7, "ink\\well": 0.625, "other": 0.5},
        ),
        entry(draw(tmp_path / "<b>second.jpg", 1), general=dict.fromkeys(HOSTILE, 0.9), artist={"<i>": 0.9}),
        entry(tmp_path / "third.png", general={"hat": 0.9}),
    ]
    (tmp_path / "third.png").write_bytes(b"no image")
    write(tmp_path / "out.html", entries)
    opened = Window(browser, tmp_path / "out.html", locale="en-US")
    yield opened
    opened.context.close()
    assert not opened.complaints


def test_sliders_select_at_once(window: Window) -> None:
    assert window.tags("general") == ["1girl", "long_hair", "smile"]
    assert window.tags("character") == ["mika_(sample)"]
    assert window.tags("artist") == ["name_(of_artist)", "ink\\well"]  # 0.5 is not above 0.5
    assert window.tags("rating") == ["general"]
    window.slide("general_threshold", 0.62)
    assert window.tags("general") == ["1girl"]
    window.slide("general_threshold", 0.1)
    assert window.tags("general") == ["1girl", "long_hair", "smile", "hat"]
    window.slide("character_threshold", 0.9)
    assert window.tags("character") == []
    assert window.page.locator(".card").first.get_by_text("none above 0.90").is_visible()
    window.page.click("#reset")
    window.settle()
    assert window.tags("general") == ["1girl", "long_hair", "smile"]


def test_a_threshold_can_be_typed_and_moved_by_keys(window: Window) -> None:
    window.page.fill('input[type="number"][data-key="general_threshold"]', "0.615")
    window.settle()
    assert window.tags("general") == ["1girl", "long_hair"]
    window.page.fill('input[type="number"][data-key="general_threshold"]', "7")  # passed over, and not kept
    window.page.keyboard.press("Tab")
    assert window.page.input_value('input[type="number"][data-key="general_threshold"]') == "0.615"
    window.page.focus("#general_threshold")
    window.page.keyboard.press("End")
    window.settle()
    assert window.tags("general") == []


def test_tags_below_can_be_shown(window: Window) -> None:
    window.page.check("#below")
    window.settle()
    assert window.tags("general") == ["1girl", "long_hair", "smile", "hat"]
    assert window.page.locator('.card[data-number="0"] .tag.below .name').all_text_contents() == [
        *("sensitive", "questionable", "explicit", "other", "guts_(berserk)", "hat")
    ]


def test_copied_prompts(window: Window) -> None:
    assert window.prompt("caption") == "1girl, long_hair, mika_(sample), name_(of_artist), ink\\well"
    assert window.prompt("tags") == "1girl, long_hair, mika_(sample)"
    window.slide("tags_threshold", 0.9)
    window.slide("caption_threshold", 0)
    assert window.prompt("tags") == "1girl"
    assert window.prompt("caption") == "1girl, long_hair, smile, mika_(sample), name_(of_artist), ink\\well"


def test_copying_where_the_browser_denies_its_clipboard(window: Window) -> None:
    window.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')) }")
    assert window.prompt("tags") == "1girl, long_hair, mika_(sample)"
    assert window.page.evaluate("document.activeElement.dataset.copy") == "tags"


def test_artist_strings(window: Window) -> None:
    # 0.5 + 0.625 lies in the middle between two weights.
    assert window.prompt("artists") == "1.20::artist:name (of artist)::, 1.13::artist:ink\\well::"
    window.page.check('[name="syntax"][value="sdxl"]')
    assert window.prompt("artists") == "(name \\(of artist\\):1.20), (ink\\\\well:1.13)"
    window.page.check('[name="syntax"][value="booru"]')
    assert window.prompt("artists") == "name_(of_artist), ink\\well"
    window.slide("artist_threshold", 0.95)
    assert window.page.locator('.card[data-number="0"] [data-copy="artists"]').is_disabled()
    assert window.page.locator('.card[data-number="0"]').get_by_text("no artist above 0.95").is_visible()


def test_the_closest_artists_are_shown_where_none_passes(browser: Any, tmp_path: Path) -> None:
    path, picture = tmp_path / "out.html", draw(tmp_path / "first.jpg")
    vocabulary = Vocabulary(("some",), (CATEGORY_NUMBERS["artist"],))
    rule, artists = SelectionRule(THRESHOLDS), ArtistSettings()
    with report.writing(path, [picture, picture], rule, vocabulary, PLAIN, artists) as page:
        page.add(picture, {0: 0.6}, similar={"mika_(sample)": 0.412, "<b>": -0.1})
        page.add(picture, {0: 0.6})
    opened = Window(browser, tmp_path / "out.html", locale="en-US")
    row = opened.page.locator('.prompt:has([data-copy="similar"])')
    assert row.count() == 1 and row.is_hidden()
    opened.slide("artist_threshold", 0.7)
    assert row.is_visible() and row.locator(".text").text_content() == "mika_(sample) 0.41, <b> -0.10"
    assert "no probability" in row.locator(".label").get_attribute("title")
    assert opened.prompt("similar") == "mika_(sample) 0.41, <b> -0.10"
    opened.context.close()
    assert not opened.complaints


# Rows in an order that is none of categories or probabilities, with names that a page could stumble over.
TAGS: dict[str, tuple[int, float, float]] = {  # category, and the probability in either image
    "general": (9, 0.9, 0.2),
    "sensitive": (9, 0.1, 0.8),
    "solo": (0, 0.55, 0.9),
    "x_x_(artist)": (1, 0.625, 0.1),
    "saber_(fate)": (4, 0.7, 0.2),
    "o_o": (0, 0.8, 0.5),
    "name_of\\artist": (1, 0.8, 0.9),
    "__proto__": (0, 0.65, 0.3),
    "1girl": (0, 0.99, 0.95),
    "third_artist": (1, 0.62, 0.3),
    "long_hair": (0, 0.65, 0.7),
    "constructor": (4, 0.9, 0.85),
    "@_@": (1, 0.61, 0.62),
}
STYLES = [
    ["--artist_string", "nai"],
    ["--artist_string", "sdxl", "--underscores", "space", "--escape_parentheses"],
    ["--artist_string", "booru", "--tag_order", "probability", "--top_artists", "2"],
    ["--artist_string", "nai", "--tag_order", "csv", "--exclude_tags", "solo,constructor", "--underscores", "space"],
    ["--artist_string", "sdxl", "--always_first", "long_hair,saber_(fate),not_there", "--escape_parentheses"],
    ["--artist_string", "nai", "--prepend", "My_Style (x), LONG HAIR", "--rating", "first", "--underscores", "space"],
    ["--artist_string", "nai", "--tag_order", "prompt", "--replace", "{folder}/new.csv"],
    ["--artist_string", "nai", "--prune", "implied"],
    ["--artist_string", "nai", "--expand", "implied", "--always_first", "person,@_@", "--underscores", "space"],
    ["--artist_string", "nai", "--prepend", "__proto__", "--rating", "last"],
]


@pytest.fixture
def tagger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a checkpoint whose model says TAGS of the images 0.jpg and 1.jpg."""

    def predict(paths: Sequence[Path], *_: object) -> Iterator[Result]:
        for path in paths:
            probabilities = [pair[int(path.stem) % len(pair)] for _, *pair in TAGS.values()]
            yield path, Logits.of([math.log(p / (1 - p)) for p in probabilities])

    monkeypatch.setattr("tagger.inference.taggers.predictions", predict)
    write_csv(tmp_path / "selected_tags.csv", [f"{name},{category}" for name, (category, *_) in TAGS.items()])
    config = make_config("eva02_tiny", 28, len(TAGS))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.pth").touch()
    (tmp_path / "threshold.json").write_text(json.dumps(THRESHOLDS))
    texts = ["1girl,a girl", "long_hair,a girl", "solo,", "__proto__,<b>constructor"]
    write_csv(tmp_path / "new.csv", texts, "old,new")
    pairs = [
        "1girl,solo",
        "solo,person",
        "long_hair,constructor",
        "third_artist,__proto__",
        "@_@,1girl",
        "person,long_eyes",
    ]
    write_csv(tmp_path / "tag_implications.csv", pairs, "antecedent,consequent")
    for number in range(2):
        draw(tmp_path / f"{number}.jpg", number)
    return tmp_path


@pytest.mark.parametrize("style", STYLES, ids=" ".join)
def test_the_page_copies_what_the_command_line_prints(
    browser: Any, tagger: Path, capsys: pytest.CaptureFixture[str], style: list[str]
) -> None:
    images = [str(tagger / f"{number}.jpg") for number in range(2)]
    usual = ["--model_path", str(tagger), "--threshold_json", str(tagger / "threshold.json"), "--image_file", *images]
    flags_of_style = [word.format(folder=tagger) for word in style]

    def printed(*flags: str) -> list[dict[str, Any]]:
        assert wdv3_pytorch.main([*usual, *flags_of_style, "--output_format", "jsonl", *flags]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def copied(window: Window) -> list[dict[str, str]]:
        return [{kind: window.prompt(kind, card) for kind in ("caption", "tags", "artists")} for card in range(2)]

    def expected(records: list[dict[str, Any]]) -> list[dict[str, str]]:
        return [
            {"caption": said["caption"], "tags": said["tags"], "artists": said["artist_string"]} for said in records
        ]

    said = expected(printed("--report", str(tagger / "out.html")))
    window = Window(browser, tagger / "out.html", locale="en-US")
    assert copied(window) == said
    moved = {"general_threshold": 0.6, "artist_threshold": 0.62, "tags_threshold": 0.5, "caption_threshold": 0.61}
    flags = [word for key, value in moved.items() for word in (f"--{key.replace('general', 'gen')}", str(value))]
    other = expected(printed(*flags))
    for key, value in moved.items():
        window.slide(key, value)
    assert copied(window) == other != said
    window.context.close()
    assert not window.complaints


@pytest.mark.parametrize("relation", ["--prune", "--expand"])
def test_the_page_leaves_out_what_is_constant(
    browser: Any, tagger: Path, capsys: pytest.CaptureFixture[str], relation: str
) -> None:
    images = [str(draw(tagger / f"{number}.jpg", number)) for number in range(10)]
    usual = ["--model_path", str(tagger), "--threshold_json", str(tagger / "threshold.json"), "--image_file", *images]
    flags = ["--drop_constant", "0.9", relation, "implied", "--always_first", "long_hair", "--output_format", "jsonl"]
    assert wdv3_pytorch.main([*usual, *flags, "--report", str(tagger / "out.html")]) == 0
    captured = capsys.readouterr()
    said = [json.loads(line) for line in captured.out.splitlines()]
    assert "left out of 10 captions, for 90% share them: " in captured.err and "1girl" not in said[0]["caption"]
    window = Window(browser, tagger / "out.html", locale="en-US")
    for card, answer in enumerate(said[:2]):
        assert window.prompt("caption", card) == answer["caption"]
        assert window.prompt("tags", card) == answer["tags"]
    window.context.close()
    assert not window.complaints


def test_the_page_weighs_artists_as_the_command_line_does(
    browser: Any, tagger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = ["--image_file", str(tagger / "0.jpg"), "--model_path", str(tagger), "--artist_threshold", "0.5"]
    usual += ["--weight_range", "0.6,1.4", "--embedded_prompt", "off", "--output_format", "json"]

    def printed(syntax: str, weights: str, *flags: str) -> str:
        assert wdv3_pytorch.main([*usual, "--artist_string", syntax, "--artist_weights", weights, *flags]) == 0
        said: str = json.loads(capsys.readouterr().out)[0]["artist_string"]
        return said

    chosen = printed("sdxl", "rank", "--report", str(tagger / "out.html"))
    window = Window(browser, tagger / "out.html", locale="en-US")
    assert window.prompt("artists") == chosen
    seen = set()
    for syntax in SYNTAXES:
        for weights in ARTIST_WEIGHTS:
            window.page.check(f'#syntax [value="{syntax}"]')
            window.page.check(f'#weights [value="{weights}"]')
            window.settle()
            assert window.prompt("artists") == printed(syntax, weights)
            seen.add(window.prompt("artists"))
    assert len(seen) >= 3 * len(ARTIST_WEIGHTS)  # two syntaxes have no weights
    window.page.screenshot(path=str(tagger / "report.png"), full_page=True)
    window.context.close()
    assert not window.complaints


@pytest.mark.parametrize("how", ["only", "first"])
def test_the_files_own_prompts_are_shown_and_copied(
    how: str, browser: Any, tagger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "<img src=x onerror=alert(1)>, {artist:mori}"
    prompts = ["1girl, 1.2::artist:aoi kumo ::, -1::artist:grau::", hostile, None]
    for number, prompt in enumerate(prompts):
        (tagger / f"{number}.png").write_bytes(novelai_png(prompt) if prompt else png())
    images = [str(tagger / f"{number}.png") for number in range(3)]
    model = ["--model_path", str(tagger), "--threshold_json", str(tagger / "threshold.json")]
    flags = ["--artist_string", "sdxl", "--embedded_prompt", how, "--output_format", "jsonl"]
    report_file = tagger / "out.html"
    assert wdv3_pytorch.main(["--image_file", *images, *model, *flags, "--report", str(report_file)]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    window = Window(browser, report_file, locale="en-US")
    for card, record in enumerate(said[:2]):
        assert window.prompt("prompt", card) == prompts[card] == record["prompt"]
        assert window.prompt("promptArtists", card) == record["prompt_artist_string"]
        assert window.page.locator(f'.card[data-number="{card}"] [data-copy="caption"]').count() == (how == "first")
    assert said[0]["prompt_artist_string"] == "(aoi kumo:1.20)" and said[1]["prompt_artist_string"] == "(mori:1.05)"
    assert "none in the file" in window.page.locator('.card[data-number="2"]').inner_text()
    window.page.screenshot(path=str(tagger / "report.png"), full_page=True)
    window.context.close()
    assert not window.complaints


def test_a_new_syntax_has_a_button(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shouted = Syntax("Loud <b>", lambda name, weight: name.upper())
    monkeypatch.setitem(SYNTAXES, "loud", shouted)
    write(tmp_path / "out.html", [entry(draw(tmp_path / "1.jpg"), artist={"wlop": 0.9})], syntax="loud")
    window = Window(browser, tmp_path / "out.html", locale="en-US")
    assert window.prompt("artists") == "WLOP"
    assert window.page.locator("#syntax label").all_text_contents() == [
        *("NovelAI", "NovelAI 3", "SDXL", "Anima", "Danbooru", "Loud <b>")
    ]
    window.context.close()
    assert not window.complaints


def test_the_filter(window: Window) -> None:
    everything = ["first.jpg", "<b>second.jpg", "third.png"]
    assert window.images() == everything
    for typed, left in [
        ("FIRST", ["first.jpg"]),
        ("long_h", ["first.jpg"]),
        ("hat", ["third.png"]),  # the first image's hat is below the threshold
        ("long smile", ["first.jpg"]),
        ("<o>", ["<b>second.jpg"]),
        ("nowhere", []),
        (" ", everything),
    ]:
        window.page.fill("#filter", typed)
        window.settle()
        assert window.images() == left, typed
        assert window.page.locator("#nothing").is_visible() == (not left)
    window.page.fill("#filter", "hat")
    window.slide("general_threshold", 0.2)
    assert window.images() == ["first.jpg", "third.png"]
    assert window.page.text_content("#count") == "2 of 3 images"
    window.page.locator("h1").click()
    window.page.keyboard.press("/")
    assert window.page.evaluate("document.activeElement.id") == "filter"


def test_translations_are_shown_and_found_and_never_copied(browser: Any, tmp_path: Path) -> None:
    names = {"long_hair": ("长发", "长头发"), "hat": ("<b>帽子</b>",), "general": ("全年龄",), "smile": ("İLK",)}
    entries = [
        entry(draw(tmp_path / "1.jpg"), general={"long_hair": 0.9, "hat": 0.3}, character={"miku": 0.9}),
        entry(draw(tmp_path / "2.jpg", 1), general={"hat": 0.9, "smile": 0.8}),
    ]
    write(tmp_path / "out.html", entries, translations=Translations(tmp_path / "zh.csv", names))
    window = Window(browser, tmp_path / "out.html", locale="en-US")
    assert window.tags("general") == ["long_hair 长发 / 长头发"] and window.tags("rating") == ["general 全年龄"]
    assert window.tags("general", 1) == ["hat <b>帽子</b>", "smile İLK"] and window.tags("character") == ["miku"]
    assert window.prompt("caption") == "long_hair, miku" and window.prompt("tags", 1) == "hat, smile"
    for typed, left in [
        ("长头", ["1.jpg"]),
        ("帽", ["2.jpg"]),
        ("HAIR 长发", ["1.jpg"]),
        ("全年龄", ["1.jpg", "2.jpg"]),
    ]:
        window.page.fill("#filter", typed)
        window.settle()
        assert window.images() == left, typed  # the first image's hat is below the threshold
    assert window.page.locator('.card[data-number="0"] .tag.found .name').all_text_contents() == ["general 全年龄"]
    window.context.close()
    assert not window.complaints


def test_names_are_text(window: Window) -> None:
    window.page.locator('.card[data-number="1"]').scroll_into_view_if_needed()
    window.page.wait_for_selector('.card[data-number="1"] h2')
    assert window.tags("general", card=1) == HOSTILE
    assert window.prompt("caption", card=1) == ", ".join([*HOSTILE, "<i>"])
    assert window.page.locator('.card[data-number="1"] h2').text_content() == "<b>second.jpg"
    assert window.page.locator("main script, main b, main i").count() == 0


def test_an_image_that_cannot_be_decoded_has_a_place(window: Window) -> None:
    card = window.page.locator('.card[data-number="2"]')
    card.scroll_into_view_if_needed()
    assert card.get_by_text("This image cannot be shown").is_visible()
    assert window.tags("general", card=2) == ["hat"]


def test_saved_thresholds(window: Window, tmp_path: Path) -> None:
    window.slide("artist_threshold", 0.33)
    with window.page.expect_download() as download:
        window.page.click("#save")
    assert download.value.suggested_filename == "threshold.json"
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert text == json.dumps(THRESHOLDS | {"artist_threshold": 0.33}, indent=2) + "\n"


@pytest.mark.parametrize(("locale", "title"), [("en-GB", "Tag report"), ("zh-CN", "标签报告"), ("fr-FR", "Tag report")])
def test_languages(browser: Any, tmp_path: Path, locale: str, title: str) -> None:
    write(tmp_path / "out.html", [entry(draw(tmp_path / "1.jpg"))])
    window = Window(browser, tmp_path / "out.html", locale=locale)
    assert window.page.title() == window.page.text_content("h1") == title
    words = window.page.evaluate("[ENGLISH, CHINESE].map(words => Object.keys(words).sort())")
    assert words[0] == words[1]
    window.context.close()
    assert not window.complaints


@pytest.mark.usefixtures("small_pages")
def test_pages_link_to_each_other_and_take_the_thresholds_along(browser: Any, tmp_path: Path) -> None:
    out = tmp_path / "my report #1 50%.html"
    write(out, [entry(tmp_path / f"{number}.jpg", general={"solo": 0.5}) for number in range(7)])
    window = Window(browser, out, locale="en-US")
    assert window.page.locator("#pages").all_text_contents() == ["123"]
    assert window.page.text_content("#count") == "3 images on this page"
    assert window.tags("general") == ["solo"]
    window.page.fill('input[type="number"][data-key="general_threshold"]', "0.615")
    window.settle()
    window.page.click('#pages a:text("3")')
    window.page.wait_for_selector(".card h2")
    assert window.page.text_content("#count") == "1 image on this page"
    assert window.page.text_content("#pages [aria-current]") == "3"
    assert window.page.input_value('input[type="number"][data-key="general_threshold"]') == "0.615"
    assert window.tags("general") == []
    window.page.click("#reset")
    window.settle()
    assert window.tags("general") == ["solo"]
    window.context.close()
    assert not window.complaints


def test_one_page_has_no_navigation(window: Window) -> None:
    assert window.page.locator("#pages").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 820, 1000, 1440])
def test_nothing_is_wider_than_the_window(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    long = entry(draw(tmp_path / f"{'x' * 120}.jpg"), general={"y" * 150: 0.9, "z_" * 60: 0.8})
    write(tmp_path / "out.html", [long])
    window = Window(browser, tmp_path / "out.html", viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert window.page.evaluate("document.documentElement.scrollWidth") <= width
    window.context.close()
    assert not window.complaints


def test_500_images_stay_fluid(browser: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Frames are measured and printed; what is asserted is what makes them short: far cards are not touched."""
    images = [draw(tmp_path / f"{number}.jpg", number) for number in range(10)]
    general = [{f"tag_{tag}_of_{image}": 0.05 + tag * 0.012 for tag in range(75)} for image in range(500)]
    entries = [entry(images[number % 10], general=tags) for number, tags in enumerate(general)]
    write(tmp_path / "out.html", entries)
    window = Window(browser, tmp_path / "out.html")
    timings = window.page.evaluate(
        """async () => {
            const slider = document.getElementById("general_threshold");
            const frame = () => new Promise(requestAnimationFrame);
            const [frames, work] = [[], []];
            for (let step = 0; step < 40; step++) {
                slider.value = 0.2 + step * 0.01;
                const start = performance.now();
                slider.dispatchEvent(new Event("input", { bubbles: true }));
                render();
                document.body.offsetHeight; // the layout too
                work.push(performance.now() - start);
                await frame();
                frames.push(performance.now() - start);
            }
            const middle = numbers => numbers.sort((a, b) => a - b)[20];
            return { work: middle(work), worst: Math.max(...work), frame: middle(frames),
                     opened: performance.timing.loadEventEnd - performance.timing.navigationStart };
        }"""
    )
    size = (tmp_path / "out.html").stat().st_size / 1e6
    with capsys.disabled():
        print(
            f"\nreport of 500 images, {size:.1f} MB: opened in {timings['opened']} ms; a slider's move takes "
            f"{timings['work']:.1f} ms (worst {timings['worst']:.1f}), until its frame {timings['frame']:.1f} ms"
        )
    assert window.page.locator(".card h2").count() < 50
    window.page.evaluate("scrollTo(0, document.body.scrollHeight)")
    window.page.wait_for_selector('.card[data-number="499"] h2')
    shown = window.page.locator('.card[data-number="499"] .group[data-category="general"] .tag:visible')
    assert shown.count() == sum(p > 0.59 for p in general[499].values())
    window.context.close()
    assert not window.complaints
