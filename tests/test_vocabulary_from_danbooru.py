"""generate_selected_tags.py --from-danbooru: the tag list of a booru as a vocabulary.

python -m pytest tests/test_vocabulary_from_danbooru.py
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import generate_selected_tags as script
from examples.sample_booru.server import SampleBooru, start
from tagger.crawl import client, danbooru
from tagger.formats.vocabulary import CHARACTER, read_vocabulary

CATEGORY = {"general": 0, "artist": 1, "character": 4}


@pytest.fixture(scope="module")
def server_booru() -> Iterator[SampleBooru]:
    server, booru = start(posts=60)
    yield booru
    server.shutdown()


@pytest.fixture
def booru(server_booru: SampleBooru, monkeypatch: pytest.MonkeyPatch) -> Iterator[SampleBooru]:
    """A booru that lists 7 tags a page, whatever is asked for."""
    monkeypatch.setattr(danbooru, "TAGS_PER_PAGE", 7)
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    monkeypatch.delenv("DANBOORU_LOGIN", raising=False)
    monkeypatch.delenv("DANBOORU_API_KEY", raising=False)
    server_booru.log.clear()
    listing = list(server_booru.tags)
    yield server_booru
    server_booru.tags[:] = listing
    server_booru.__dict__.pop("intercept", None)


def generate(booru: SampleBooru, *options: object) -> int:
    return script.main(["--from-danbooru", "--base-url", booru.base_url, "--rate", "1000", *map(str, options)])


def expected(booru: SampleBooru, *categories: str, min_posts: int = 1) -> list[tuple[str, int, int]]:
    """(name, category, count) by falling count, ties by name."""
    numbers = [CATEGORY[name] for name in categories]
    rows = [t for t in booru.tags if t["category"] in numbers and t["post_count"] >= min_posts]
    return [
        (t["name"], t["category"], t["post_count"]) for t in sorted(rows, key=lambda t: (-t["post_count"], t["name"]))
    ]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_whole_list_over_many_pages(booru: SampleBooru, tmp_path: Path) -> None:
    output = tmp_path / "tags.csv"
    assert generate(booru, "--output-csv", output, "--min-posts", 1, "--with-count") == 0
    rows = [(row["name"], int(row["category"]), int(row["count"])) for row in rows_of(output)]
    assert [name for name, _, _ in rows[:4]] == ["general", "sensitive", "questionable", "explicit"]
    assert rows[4:] == expected(booru, "general", "artist", "character")
    assert len(booru.log) > 5 and all(params.get("page", "b0")[0] == "b" for _, _, params, _ in booru.log)
    assert list(tmp_path.iterdir()) == [output]


def test_only_some_categories_and_only_frequent_tags(booru: SampleBooru, tmp_path: Path) -> None:
    output = tmp_path / "tags.csv"
    options = ("--output-csv", output, "--tag-categories", "artist,character", "--min-posts", 5)
    assert generate(booru, *options) == 0
    assert [(row["name"], int(row["category"])) for row in rows_of(output)[4:]] == [
        row[:2] for row in expected(booru, "artist", "character", min_posts=5)
    ]


def test_wd_layout_keeps_danboorus_ids_and_leaves_artists_out(booru: SampleBooru, tmp_path: Path) -> None:
    output = tmp_path / "wd.csv"
    assert generate(booru, "--output-csv", output, "--min-posts", 1, "--format", "wd") == 0
    assert output.read_text(encoding="utf-8").startswith("tag_id,name,category,count\n9999999,general,9,0\n")
    rows = rows_of(output)
    assert [int(row["category"]) for row in rows] == sorted((int(row["category"]) for row in rows), key=[9, 0, 4].index)
    ids = {tag["name"]: tag["id"] for tag in booru.tags}
    assert all(int(row["tag_id"]) == ids[row["name"]] for row in rows[4:])


def test_append_moves_no_row(booru: SampleBooru, tmp_path: Path) -> None:
    output = tmp_path / "selected_tags.csv"
    artists = [name for name, _, _ in expected(booru, "artist")]
    before = f"tag_id,name,category,count\r\n9999999,general,9,5\r\n1,{artists[1]},4,7\r\n2,1girl,0,3"
    output.write_bytes(before.encode())
    assert generate(booru, "--append-to", output, "--tag-categories", "artist", "--min-posts", 1) == 0
    text = output.read_bytes().decode()
    assert text.startswith(before + "\n")
    vocabulary = read_vocabulary(output)
    rest = [name for name in artists if name != artists[1]]
    # 1girl stays where it was, the artist that a person had made a character stays one
    assert vocabulary.names == ("general", artists[1], "1girl", "sensitive", "questionable", "explicit", *rest)
    assert vocabulary.categories[1] == CHARACTER
    assert generate(booru, "--append-to", output, "--tag-categories", "artist", "--min-posts", 1) == 0
    assert output.read_bytes().decode() == text


def test_goes_on_where_it_was_interrupted(
    booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tags.csv"
    seen: list[str] = []

    def fail_at_the_fourth_page(handler: Any, path: str, params: dict[str, str]) -> bool:
        seen.append(params.get("page", ""))
        if len(seen) == 4:
            handler.send_body(403, b"<html>", "text/html", {"cf-mitigated": "challenge"})
            return True
        return False

    booru.intercept = fail_at_the_fourth_page  # type: ignore[method-assign]
    assert generate(booru, "--output-csv", output, "--min-posts", 1) == 2
    assert "403" in capsys.readouterr().err and not output.exists()
    booru.__dict__.pop("intercept")
    booru.log.clear()
    assert generate(booru, "--output-csv", output, "--min-posts", 1) == 0
    assert booru.log[0][2]["page"] == seen[3]
    assert len(rows_of(output)) == 4 + len(expected(booru, "general", "artist", "character"))


def test_another_question_begins_anew(booru: SampleBooru, tmp_path: Path) -> None:
    output = tmp_path / "tags.csv"
    kept = {"base_url": booru.base_url, "query": {"search[category]": "1"}, "position": "b1", "rows": []}
    (tmp_path / ".tags.csv.danbooru.json").write_text(json.dumps(kept), encoding="utf-8")
    assert generate(booru, "--output-csv", output, "--min-posts", 1) == 0
    assert len(rows_of(output)) == 4 + len(expected(booru, "general", "artist", "character"))


@pytest.mark.parametrize(
    "damage",
    [
        {"name": None},
        {"name": "a b"},
        {"name": "a,b"},
        {"name": "a\nb"},
        {"name": ""},
        {"post_count": None},
        {"post_count": "many"},
        {"category": 7},
        {"category": [1]},
        {"is_deprecated": True},
    ],
)
def test_rows_that_are_no_tags_are_left_out(booru: SampleBooru, tmp_path: Path, damage: dict[str, Any]) -> None:
    before = len(expected(booru, "general", "artist", "character"))
    number = next(i for i, tag in enumerate(booru.tags) if tag["category"] == 0)
    booru.tags[number] = {**booru.tags[number], **damage}

    def answer_all(handler: Any, path: str, params: dict[str, str]) -> bool:
        handler.send_json(200, booru.tags if "page" not in params else [])
        return True

    booru.intercept = answer_all  # type: ignore[method-assign]
    output = tmp_path / "tags.csv"
    assert generate(booru, "--output-csv", output, "--min-posts", 1) == 0
    assert len(rows_of(output)) == 4 + before - 1


@pytest.mark.parametrize(
    "options",
    [
        ["--tag-categories", "artists"],
        ["--tag-categories", ""],
        ["--min-posts", "0"],
        ["--append-to", "missing.csv"],
        ["--append-to", "x.csv", "--format", "wd"],
    ],
)
def test_wrong_arguments(
    booru: SampleBooru,
    tmp_path: Path,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = generate(booru, *options)
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2 and not booru.log
    assert capsys.readouterr().err.count("error:") == 1


def implication(number: int, antecedent: Any, consequent: Any, **more: Any) -> dict[str, Any]:
    names = {"antecedent_name": antecedent, "consequent_name": consequent}
    return {"id": number, "status": "active", **names, **more}


IMPLICATIONS = [
    implication(9, "very_long_hair", "long_hair", antecedent_tag={"is_deprecated": False}, consequent_tag=None),
    implication(8, "old", "older", status="deleted"),
    implication(7, "cat_girl", "animal_ears"),
    implication(6, "cat_girl", "gone", consequent_tag={"is_deprecated": True}),
    implication(5, "gone", "cat_girl", antecedent_tag={"is_deprecated": True}),
    implication(4, "a,b", "c d"),
    implication(3, None, 7),
    implication(2, "self", "self"),
    implication(1, "=_=", "closed_eyes"),
]


def test_implications(booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three a page; the third request of the first run is refused, and the second run goes on there."""
    asked: list[str] = []

    def answer(handler: Any, path: str, params: dict[str, str]) -> bool:
        assert path == "/tag_implications.json" and params["search[status]"] == "active"
        asked.append(params.get("page", ""))
        if len(asked) == 3:
            handler.send_body(403, b"<html>", "text/html", {"cf-mitigated": "challenge"})
            return True
        below = int(params.get("page", "b99")[1:])
        handler.send_json(200, [row for row in IMPLICATIONS if row["id"] < below][:3])
        return True

    booru.intercept = answer  # type: ignore[method-assign]
    output = tmp_path / "tag_implications.csv"
    options = ("--output-csv", tmp_path / "tags.csv", "--implications")
    assert generate(booru, *options) == 2
    assert "403" in capsys.readouterr().err and not output.exists()
    assert generate(booru, *options) == 0
    assert asked == ["", "b7", "b4", "b4", "b1"]
    assert output.read_text().splitlines() == [
        *("antecedent,consequent", "=_=,closed_eyes", "cat_girl,animal_ears", "very_long_hair,long_hair")
    ]
    assert list(tmp_path.iterdir()) == [output]
    assert generate(booru, *options) == 0  # an earlier one is replaced
    output.write_text("mine,too\n")
    assert generate(booru, *options) == 2
    assert "no column antecedent" in capsys.readouterr().err and output.read_text() == "mine,too\n"


def test_aliases(booru: SampleBooru, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside the implications. The old name may be deprecated, today's may not."""
    asked: list[tuple[str, str]] = []

    def answer(handler: Any, path: str, params: dict[str, str]) -> bool:
        assert params["search[status]"] == "active"
        asked.append((path, params.get("page", "")))
        if len(asked) == 4:
            handler.send_body(403, b"<html>", "text/html", {"cf-mitigated": "challenge"})
            return True
        rows = IMPLICATIONS if path == "/tag_aliases.json" else IMPLICATIONS[:1]
        below = int(params.get("page", "b99")[1:])
        handler.send_json(200, [row for row in rows if row["id"] < below][:4])
        return True

    booru.intercept = answer  # type: ignore[method-assign]
    options = ("--output-csv", tmp_path / "tags.csv", "--aliases", "--implications")
    assert generate(booru, *options) == 2
    assert "403" in capsys.readouterr().err and not (tmp_path / "tag_aliases.csv").exists()
    assert (tmp_path / "tag_implications.csv").exists()
    assert generate(booru, "--output-csv", tmp_path / "tags.csv", "--aliases") == 0
    assert asked[2:] == [("/tag_aliases.json", page) for page in ("", "b6", "b6", "b2", "b1")]
    assert (tmp_path / "tag_aliases.csv").read_text().splitlines() == [
        *("alias,name", "=_=,closed_eyes", "cat_girl,animal_ears", "gone,cat_girl", "very_long_hair,long_hair")
    ]
    assert f"{tmp_path / 'tag_aliases.csv'}: 4 old names" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*.json"))
    (tmp_path / "tag_aliases.csv").write_text("mine,too\n")
    assert generate(booru, "--output-csv", tmp_path / "tags.csv", "--aliases") == 2
    assert "it is no file of old names" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--implications", "--aliases"])
def test_relations_are_danboorus(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    with pytest.raises(SystemExit):
        script.main([flag])
    assert f"{flag} are Danbooru's" in capsys.readouterr().err
