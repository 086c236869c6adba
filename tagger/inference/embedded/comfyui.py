"""ComfyUI: the prompt is text in a graph of nodes, found by following links back from what samples.

    python -m pytest tests/inference/embedded/test_comfyui.py

The graph is the one that ran (`prompt`), an object of `{class_type, inputs}` by node number, where an input is a value
or a link `[node, output]`. There are thousands of kinds of nodes, so this knows the names of inputs rather than nodes.
A negative prompt stands in the same kind of node as a positive one: only the way from the sampler tells them apart.
"""

from collections.abc import Mapping
from typing import Any

from tagger.inference.embedded.fields import Fields
from tagger.inference.embedded.prompt import Prompt

ENDS = ("sampler", "guider", "detailer")  # in the name of a class: where a prompt is used
TEXTS = (
    *("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "prompt", "Text", "string", "value", "string_a"),
    *("string_b", "prompt_text", "text1", "text2", "text_a", "text_b", "text_c", "text_d", "source", "wildcard_text"),
)
FINAL_TEXTS = ("populated_text", "text_0")  # what came out when the graph ran: wildcards resolved, texts as shown
PIPES = ("pipe", "basic_pipe", "context", "ctx", "base_ctx")  # bundles of links that carry both prompts
PASSED_ON = ("conditioning", "cond", "any", "input", *PIPES)
PASSED_ON_PREFIXES = ("conditioning", "cond_", "text_", "string_", "any_", "on_")
JOINERS = ("delimiter", "separator")
MADE_WHEN_RUN = ("llm", "ollama", "gpt", "florence", "joycaption", "interrogat", "wd14", "llava", "qwen", "gemini")
MAX_DEPTH = 100  # links from the sampler to a text

Graph = Mapping[str, Mapping[str, Any]]


def read_comfyui(fields: Fields) -> Prompt | None:
    """The prompt of a graph, or None where there is no graph.

    Several samplers with several prompts give all of them, a line each.
    """
    graph = {
        str(number): node
        for number, node in fields.object("prompt").items()
        if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
    }
    if not graph:
        return None
    texts = {direction: _Search(graph, direction).run() for direction in ("positive", "negative")}
    positive, problem = texts["positive"]
    if not positive and problem is None:
        problem = "ComfyUI's graph has no sampler whose prompt can be followed"
    return Prompt("comfyui", "comfy", "prompt", positive, texts["negative"][0], problem=problem)


class _Search:
    """Follows one direction, "positive" or "negative", back through a graph; each node once."""

    def __init__(self, graph: Graph, direction: str) -> None:
        self.graph, self.direction = graph, direction
        self.seen: set[str] = set()
        self.problem: str | None = None

    def run(self) -> tuple[str, str | None]:
        """The texts, a line each, and what could not be followed."""
        found: list[str] = []
        for node in self.graph.values():
            kind, inputs = _kind(node), node["inputs"]
            if not any(end in kind for end in ENDS):
                continue
            starts = [self.direction, *PIPES]
            if self.direction == "positive" and "guider" in kind:
                starts.append("conditioning")  # of a guider that has no negative prompt
            for key in starts:
                if key in inputs and (_is_link(inputs[key]) or key == self.direction):
                    found += self.texts(inputs[key], 0)
        return "\n".join(dict.fromkeys(text for text in found if text.strip())), self.problem

    def texts(self, value: Any, depth: int) -> list[str]:
        """The texts that an input has, or to which it is linked."""
        if isinstance(value, str):
            return [value]
        if not _is_link(value):
            return []
        number = str(value[0])
        node = self.graph.get(number)
        if node is None or number in self.seen:
            return []
        if depth >= MAX_DEPTH:
            self.problem = f"ComfyUI's graph is deeper than {MAX_DEPTH} links"
            return []
        self.seen.add(number)
        return self.texts_of(node, depth + 1)

    def texts_of(self, node: Mapping[str, Any], depth: int) -> list[str]:
        kind, inputs = _kind(node), node["inputs"]
        if "zeroout" in kind:
            return []
        if any(word in kind for word in MADE_WHEN_RUN):
            self.problem = "a part of ComfyUI's prompt was made when the graph ran and is not in the file"
            return []
        for key in FINAL_TEXTS:
            if isinstance(inputs.get(key), str) and inputs[key].strip():
                return [inputs[key]]
        if self.direction in inputs:  # a node that both prompts pass through, such as a ControlNet's
            return self.texts(inputs[self.direction], depth)
        if isinstance(inputs.get("switch"), bool):
            return self.texts(inputs.get("on_true" if inputs["switch"] else "on_false"), depth)
        found: list[str] = []
        for key, value in inputs.items():
            if key in TEXTS or (_is_link(value) and (key in PASSED_ON or key.startswith(PASSED_ON_PREFIXES))):
                found += self.texts(value, depth)
        for key in JOINERS:
            if isinstance(inputs.get(key), str):
                return [inputs[key].join(found)]
        return found


def _kind(node: Mapping[str, Any]) -> str:
    kind = node.get("class_type")
    return kind.lower() if isinstance(kind, str) else ""


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int))
