"""The readers of each generator: NovelAI, the web UIs, ComfyUI, and those that write JSON.

python -m pytest tests/inference/embedded/test_generators.py
"""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tagger.inference.embedded.artists import Lookup
from tagger.inference.embedded.generators import GENERATORS
from tagger.inference.embedded.infotext import split_infotext
from tagger.inference.embedded.reading import Embedded, read_embedded
from tests.inference.embedded.files import (
    INFOTEXT,
    SETTINGS,
    comfy_png,
    encoded,
    exif,
    graph,
    jpeg,
    node,
    novelai_chunks,
    novelai_png,
    png,
    saved,
    user_comment,
)


def read(folder: Path, data: bytes, name: str = "a.png") -> Embedded:
    return read_embedded(saved(folder, data, name), Lookup())


# --- NovelAI --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 3, 4])
def test_novelai_of_each_version(version: int, tmp_path: Path) -> None:
    prompt = "1girl, {artist:mori}"
    found = read(tmp_path, novelai_png(prompt if version > 1 else None, description=prompt, version=version))
    assert (found.generator, found.prompt, found.wanted) == ("novelai", prompt, {"mori": 1.05})
    assert found.negative_prompt == "lowres, artist:never wanted"
    assert found.source == ("png:Description" if version == 1 else "png:Comment")


def test_characters_of_novelai_stand_in_captions_of_their_own(tmp_path: Path) -> None:
    found = read(
        tmp_path, novelai_png("2girls, -1::artist:grau::", ["girl, 0.8::artist:mori::", "", "boy, artist:sabi"])
    )
    assert found.character_prompts == ("girl, 0.8::artist:mori::", "boy, artist:sabi")
    assert (found.wanted, found.unwanted) == ({"mori": 0.8, "sabi": 1}, {"grau": -1})


def test_novelais_webp_repeats_the_chunks_as_json_under_a_mark_that_lies(tmp_path: Path) -> None:
    chunks = novelai_chunks("1.2::artist:mori::, 猫")
    comment = b"ASCII\0\0\0" + json.dumps(chunks, ensure_ascii=False).encode()
    tags = {0x010E: b"\0\0\0\0" + chunks["Description"].encode(), 0x0131: b"NovelAI Diffusion V5"}
    data = encoded("WEBP", lossless=True, exif=exif(tags, ">", {0x9286: comment}))
    found = read(tmp_path, data, "a.webp")
    assert (found.generator, found.source, found.prompt) == ("novelai", "exif:UserComment", "1.2::artist:mori::, 猫")


def test_a_damaged_comment_leaves_the_description(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        png(("tEXt", "Software", "NovelAI"), ("tEXt", "Description", "artist:mori"), ("tEXt", "Comment", '{"pro')),
    )
    assert found.wanted == {"mori": 1} and found.problems == (
        "NovelAI's Comment is damaged, so its Description is taken",
    )


@pytest.mark.parametrize(
    "comment",
    [
        {
            "prompt": ["artist:mori"],
            "v4_prompt": {"caption": {"base_caption": 7, "char_captions": [None, 3]}},
            "uc": None,
        },
        {"v4_prompt": None},
        {"v4_prompt": {"caption": [1]}},
        {"v4_prompt": {"caption": {"char_captions": {"a": 1}}}},
    ],
)
def test_wrong_types_are_no_prompt(comment: dict[str, Any], tmp_path: Path) -> None:
    data = png(("tEXt", "Software", "NovelAI"), ("tEXt", "Comment", json.dumps(comment)))
    assert read(tmp_path, data).prompt is None


# --- the web UIs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "positive", "negative"),
    [
        (INFOTEXT, "1girl, (artist:aoi kumo:1.2)", "lowres, artist:never wanted"),
        (f"a,\nb\nNegative prompt: c,\nd\n{SETTINGS}", "a,\nb", "c,\nd"),
        (f"a\n{SETTINGS}", "a", ""),
        ("a\nNegative prompt: c", "a", "c"),
        ("a, b", "a, b", ""),
        ("a: b, c", "a: b, c", ""),
        (f'a\n{SETTINGS}, Hires prompt: "artist:x, y", Lora hashes: "a: 1, b: 2"', "a", ""),
        (f"a\nNegative prompt: c\n{SETTINGS}\nTemplate: artist:x\nNegative Template: y", "a", "c"),
        (f"Negative prompt: c\n{SETTINGS}", "", "c"),
    ],
)
def test_parts_of_an_infotext(text: str, positive: str, negative: str) -> None:
    assert split_infotext(text)[:2] == (positive, negative)


def test_an_infotext_in_every_container(tmp_path: Path) -> None:
    gif = encoded("GIF", comment=INFOTEXT.encode())
    files = {"a.png": png(("tEXt", "parameters", INFOTEXT)), "a.jpg": jpeg(user_comment(INFOTEXT)), "a.gif": gif}
    files |= {f"a.{kind}": encoded(kind, exif=b"Exif\0\0" + user_comment(INFOTEXT)) for kind in ("webp", "avif")}
    for name, data in files.items():
        found = read(tmp_path, data, name)
        assert (found.generator, found.wanted, found.unwanted) == ("a1111", {"aoi_kumo": 1.2}, {}), name


def test_comments_of_cameras_and_editors_are_no_prompts(tmp_path: Path) -> None:
    assert read(tmp_path, jpeg(user_comment("by the sea, 2019")), "a.jpg") == Embedded()
    assert read(tmp_path, png(("tEXt", "Comment", "Created with GIMP"), ("tEXt", "Software", "gimp"))) == Embedded()
    assert (
        read(tmp_path, png(("tEXt", "Description", "a girl --ar 2:3 Job ID: 0"), ("tEXt", "Author", "x"))) == Embedded()
    )
    assert read(tmp_path, encoded("GIF", comment=b"Created with GIMP"), "a.gif") == Embedded()


def test_a_prompt_that_says_nothing_gives_way_to_the_graph(tmp_path: Path) -> None:
    texts = [("tEXt", "parameters", f"unknown\n{SETTINGS}"), ("tEXt", "prompt", json.dumps(graph("artist:mori")))]
    assert read(tmp_path, png(*texts)).generator == "comfyui"
    alone = read(tmp_path, png(texts[0]))
    assert (alone.generator, alone.prompt, alone.wanted) == ("a1111", "", {})


BAD = "bad, artist:never wanted"  # the negative prompt of `graph`

# --- ComfyUI --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "positive", "negative"),
    [
        (graph("a"), "a", BAD),
        (graph(["8", 0], n8=node("String Literal", string="a")), "a", BAD),
        (
            graph(
                ["8", 0],
                n8=node("StringConcatenate", string_a="a", string_b=["9", 0], delimiter=", "),
                n9=node("PrimitiveString", value="b"),
            ),
            "a, b",
            BAD,
        ),
        (graph(["8", 0], n8=node("ImpactWildcardProcessor", wildcard_text="__x__", populated_text="a")), "a", BAD),
        (
            graph(
                ["8", 0],
                n8=node("ShowText|pysssss", text=["9", 0], text_0="a"),
                n9=node("OllamaGenerate", prompt="describe"),
            ),
            "a",
            BAD,
        ),
        (graph(["8", 0], n8=node("ComfySwitchNode", switch=False, on_true="x", on_false="a")), "a", BAD),
        (
            {
                "1": node("KSamplerAdvanced", positive=["2", 0], negative=["2", 1]),
                "2": node("ControlNetApplyAdvanced", positive=["3", 0], negative=["4", 0]),
                "3": node("ConditioningCombine", conditioning_1=["5", 0], conditioning_2=["6", 0]),
                "4": node("ConditioningZeroOut", conditioning=["5", 0]),
                "5": node("CLIPTextEncode", text="a"),
                "6": node("CLIPTextEncodeSDXL", text_g="b", text_l="b"),
            },
            "a\nb",
            "",
        ),
        (
            {
                "1": node("SamplerCustomAdvanced", guider=["2", 0]),
                "2": node("BasicGuider", conditioning=["3", 0]),
                "3": node("FluxGuidance", conditioning=["30:28", 0]),
                "30:28": node("CLIPTextEncodeFlux", clip_l="a", t5xxl="a"),
            },
            "a",
            "",
        ),
        (
            {
                "1": node("KSampler (Efficient)", positive=["2", 1], negative=["2", 2]),
                "2": node("Efficient Loader", positive="a", negative="b"),
            },
            "a",
            "b",
        ),
        (
            {"1": node("easy kSampler", pipe=["2", 0]), "2": node("easy fullLoader", positive="a", negative="b")},
            "a",
            "b",
        ),
    ],
)
def test_prompts_of_graphs(content: Any, positive: str, negative: str, tmp_path: Path) -> None:
    found = read(tmp_path, comfy_png(content))
    assert (found.generator, found.prompt, found.negative_prompt) == ("comfyui", positive, negative)


def test_where_a_graph_may_stand(tmp_path: Path) -> None:
    text = json.dumps(graph("(artist:mori:1.2)")).replace('"seed": 1', '"seed": NaN')
    both = json.dumps({"prompt": json.loads(text), "workflow": {}})
    files = {
        "a.png": png(("comf", "prompt", text), at_the_end=True),
        "a.webp": encoded("WEBP", exif=exif({0x0110: f"prompt:{text}".encode(), 0x010F: b"workflow:{}"})),
        "a.jpg": jpeg(exif({0x010F: f"Prompt: {text}".encode(), 0x010E: b"Workflow: {}"})),
        "b.jpg": jpeg(exif({0x9286: b"UNICODE\0" + both.encode("utf-16-le")}, "<")),
        "c.webp": encoded("WEBP", exif=exif({0x010E: f"prompt:{text}".encode()})),
    }
    for name, data in files.items():
        assert read(tmp_path, data, name).wanted == {"mori": 1.2}, name


def test_what_a_graph_does_not_say_is_told(tmp_path: Path) -> None:
    loop = graph(["8", 0], n8=node("String", text=["9", 0]), n9=node("String", text=["8", 0]))
    found = read(tmp_path, comfy_png(loop))
    assert found.prompt is None and found.problems == ("ComfyUI's graph has no sampler whose prompt can be followed",)
    found = read(tmp_path, comfy_png(graph(["8", 0], n8=node("OllamaGenerate", prompt="describe"))))
    assert found.prompt is None and "made when the graph ran" in found.problems[0]
    deep = {f"n{i}": node("String", text=[str(i + 1), 0]) for i in range(8, 300)}
    assert "deeper than" in read(tmp_path, comfy_png(graph(["8", 0], **deep))).problems[0]


def test_a_graph_of_thousands_of_samplers_takes_no_time(tmp_path: Path) -> None:
    chain = {str(i): node("String", text=[str(i + 1), 0]) for i in range(2000)}
    samplers = {f"s{i}": node("KSampler", positive=[str(i % 2000), 0]) for i in range(4000)}
    begin = time.process_time()
    read(tmp_path, comfy_png(chain | samplers))
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, "{}", "[]", "null", '{"1": {"inputs": 3}}', "9" * 9000]
)
def test_json_that_is_none_or_endless(text: str, tmp_path: Path) -> None:
    found = read(tmp_path, png(("tEXt", "prompt", text)))
    assert found.prompt is None and found.problems == ("its text png:prompt is no prompt that is understood here",)


# --- JSON -----------------------------------------------------------------------------------------------------------

PROMPT = "1girl, (artist:mori:1.2)"


def as_json(**members: Any) -> str:
    return json.dumps(members)


XMP = '<exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></exif:UserComment>'
SWARM = as_json(sui_image_params={"prompt": PROMPT, "negativeprompt": "bad"})
WRITTEN = {
    "swarmui": [
        png(("tEXt", "parameters", SWARM)),
        jpeg(user_comment(SWARM, "utf-16-le", order="<")),
        jpeg(exif({0x0110: SWARM.encode()})),
    ],
    "fooocus": [
        png(
            ("tEXt", "parameters", as_json(prompt=PROMPT, negative_prompt="bad")), ("tEXt", "fooocus_scheme", "fooocus")
        ),
        jpeg(
            exif(
                {},
                ">",
                {0x9286: b"ASCII\0\0\0" + as_json(prompt=PROMPT, negative_prompt="bad").encode(), 0x927C: b"fooocus"},
            )
        ),
        png(("tEXt", "parameters", as_json(Prompt=PROMPT, Negative="bad", software="RuinedFooocus"))),
    ],
    "civitai": [jpeg(user_comment(as_json(extraMetadata=as_json(prompt=PROMPT, negativePrompt="bad"))))],
    "tensorart": [png(("tEXt", "generation_data", as_json(prompt=PROMPT, negativePrompt="bad") + "\0"))],
    "drawthings": [png(("iTXt", "XML:com.adobe.xmp", XMP.format(as_json(c=PROMPT, uc="bad").replace('"', "&quot;"))))],
    "easydiffusion": [
        png(
            *(
                ("tEXt", key, text)
                for key, text in {"prompt": PROMPT, "negative_prompt": "bad", "use_stable_diffusion_model": "x"}.items()
            )
        ),
        jpeg(user_comment(as_json(prompt=PROMPT, negative_prompt="bad", use_stable_diffusion_model="x"))),
    ],
    None: [png(("tEXt", "parameters", as_json(prompt=PROMPT, negative_prompt="bad")))],
}


@pytest.mark.parametrize(
    ("generator", "number"), [(key, i) for key, files in WRITTEN.items() for i in range(len(files))]
)
def test_generators_that_write_json(generator: str | None, number: int, tmp_path: Path) -> None:
    assert WRITTEN[generator]
    found = read(tmp_path, WRITTEN[generator][number])
    assert (found.generator, found.prompt, found.negative_prompt, found.wanted) == (
        generator,
        PROMPT,
        "bad",
        {"mori": 1.2},
    )


@pytest.mark.parametrize(
    ("key", "text", "negative"),
    [
        ("invokeai_metadata", as_json(positive_prompt="1girl, (artist:mori)1.2", negative_prompt="bad"), "bad"),
        ("sd-metadata", as_json(image={"prompt": "1girl, (artist:mori)1.2 [bad]"}), "bad"),
        ("sd-metadata", as_json(image={"prompt": [{"prompt": "1girl, (artist:mori)1.2 [bad]", "weight": 1}]}), "bad"),
        ("Dream", '"1girl, (artist:mori)1.2 [bad]" -s 50 -S 1', "bad"),
    ],
)
def test_invokeai_of_each_version(key: str, text: str, negative: str, tmp_path: Path) -> None:
    found = read(tmp_path, png(("tEXt", key, text)))
    assert (found.generator, found.negative_prompt, found.wanted) == ("invokeai", negative, {"mori": 1.2})


def test_a_generator_with_keys_of_its_own_goes_before_the_graph_that_it_also_writes(tmp_path: Path) -> None:
    found = read(tmp_path, png(("tEXt", "parameters", SWARM), ("tEXt", "prompt", json.dumps(graph("artist:other")))))
    assert (found.generator, found.wanted) == ("swarmui", {"mori": 1.2})


def test_every_generator_is_tested() -> None:
    assert set(GENERATORS) - {"novelai", "a1111", "comfyui", "invokeai"} == set(WRITTEN) - {None}


def test_prompts_are_cleaned_of_what_a_terminal_would_obey(tmp_path: Path) -> None:
    found = read(tmp_path, png(("tEXt", "parameters", "a\x1b[31m, \u202eb\r\nc\x07")))
    assert found.prompt == "a[31m, b\nc"
