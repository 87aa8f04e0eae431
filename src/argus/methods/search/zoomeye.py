"""ZoomEye: Enhancing Multimodal LLMs with Human-Like Zooming Capabilities through Tree-Based Image Exploration (2411.16044).

A picture is a tree of ever smaller parts (`tree`), and the model itself says by its yes and no which part is worth a look: a
best-first search zooms in and out until the model says that it can answer. Nothing is trained. Confidence and priority:

    c = 2 (softmax(z_yes, z_no)[yes] - 1/2) = tanh((z_yes - z_no) / 2)
    R(n) = w c_existence(n) + (1 - w) c_latent(n)        w = (1 - b) (depth / max depth)^2 + b

Existence asks for the cue in this view, latent whether zooming may show it; the deeper, the more existence is trusted. A node is
popped and asked whether the question can be answered from it. At c >= upper it is the result; else its parts are pushed. After
3 min(max depth, 5) pops, and then after every second, `upper` falls by the next of `decay` (the last repeats) and the best
visited node above it is the result; below `lower` the search gives up and the whole picture answers. A cue "all X" (type 2) is
looked for in every node down to depth 2, from below: what is found with at least the confidence of anything inside it, is kept.

Defaults are the published code's for LLaVA. It has upper 0.2, lower -0.2 for InternVL, 0.95, 0 and decay [0.05, 0.1, 0.2] for
Qwen2.5-VL, and b 0.6 for views of two pictures: thresholds are a model's own. It asks existence and latent one by one, here all
that a step wants are asked together. The prompts say what the published ones say, in other words, and are options, because a
small model understands only the questions it was trained on. `order: random` pops by lot, as a control.
"""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

from PIL import Image
from pydantic import Field, field_validator

from argus.core.registry import Options
from argus.methods.search.base import Asked, Found, Look, Search, Searching
from argus.methods.search.cues import conversation, parse
from argus.methods.search.tree import Node, grow
from argus.methods.search.views import Kind, Views

DEEPEST = 5  # levels that a search of type 1 goes down
POPS = 3  # pops per level before the threshold falls
AGAIN = 2  # further pops before it falls again
ALL, ALL_DEPTH = "all ", 2  # how a cue of type 2 begins, and how deep it is looked for
CUE_TOKENS = 64

Confidences = Generator[list[Look], list[float], list[float]]


class ZoomEyeOptions(Options):
    """Options of ZoomEye. Prompts may use {cue}, {a} (its article) and {question}."""

    smallest: int = Field(336, ge=16, le=4096, description="side of the encoder's input; smaller nodes are not cut")
    split: Literal[4, 9, 16] = Field(4, description="parts per cut")
    views: Kind = Field("local", description="local: a part alone; global_local: the framed whole and the part")
    scale: float | None = Field(
        None, ge=1, le=4, description="a crop's side over its node's; by default 1 for local views and 1.2 for global_local"
    )
    bias: float | None = Field(None, ge=0, le=1, description="b of the weight; by default 0.2 for local, 0.6 for global_local")
    upper: float = Field(0.6, ge=-1, le=1, description="confidence at which a node answers the question")
    lower: float = Field(0.0, ge=-1, le=1, description="threshold below which the search gives up")
    decay: list[float] = Field([0.1, 0.1, 0.2], min_length=1, description="by how much the threshold falls, time by time")
    cue_threshold: float = Field(0.6, ge=-1, le=1, description="least confidence of a thing when all of a kind are sought")
    cues: Literal["model", "given"] = Field(
        "model", description="who names what to look for: the model, in context, or the question (procedural world)"
    )
    order: Literal["best", "random"] = Field("best", description="which node is popped: the best, or by lot (control)")
    existence: str = Field("Is there {a} {cue} in this view? Answer Yes or No.", description="is the cue here")
    latent: str = Field(
        "By common sense and by what this view shows, could {a} {cue} come to light when zooming in further? "
        "Answer Yes or No, and say why.",
        description="may the cue be found further down",
    )
    answering: str = Field(
        "Question: {question} Does this view show what is needed to answer it? Answer Yes or No.",
        description="can the question be answered from here",
    )
    appearance: str = Field("What does the {cue} look like?", description="the question asked for each of several cues")
    prefix: str = Field(
        "The first picture is the whole scene with a frame round one part. The second picture is the view: that part, enlarged. ",
        description="what the two pictures of global_local are",
    )
    words: tuple[str, str] = Field(("Yes", "No"), description="the model's words for yes and for no")
    fill: tuple[int, int, int] = Field((122, 116, 104), description="colour of padding; the default is CLIP's mean pixel")

    @field_validator("words", mode="before")
    @classmethod
    def _words(cls, given: Any) -> Any:
        return [{True: "yes", False: "no"}.get(word, word) for word in given]  # YAML reads bare yes and no as truth values

    @field_validator("existence", "latent", "answering", "appearance")
    @classmethod
    def _known_places(cls, text: str) -> str:
        try:
            text.format(cue="", a="", question="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"only {{cue}}, {{a}} and {{question}} can be filled in ({error})") from None
        return text


class ZoomEye(Search):
    """Best-first search for single things, all nodes of two levels for things of a kind."""

    Options = ZoomEyeOptions
    options: ZoomEyeOptions

    def refusal(self, cues: Sequence[str] | None) -> str | None:
        named = self.options.cues == "model" or cues is not None
        return None if named else "comes with no cues; let the model name them (cues: model)"

    def cues(self, asked: Asked, questions: Sequence[str], given: Sequence[Sequence[str] | None]) -> list[list[str]]:
        if self.options.cues == "given":
            return [list(cues or ()) for cues in given]
        return [parse(text) for text in asked.write([conversation(q) for q in questions], CUE_TOKENS)]

    def eye(self, picture: Image.Image, question: str, name: str) -> Eye:
        """One question in front of its picture."""
        return Eye(self.options, picture.convert("RGB"), question, name)

    def search(self, picture: Image.Image, question: str, cues: Sequence[str], name: str) -> Searching:
        eye = self.eye(picture, question, name)
        found, several = Found(eye.views.of([]), list(cues)), len(cues) > 1
        if several and self.options.views == "global_local":
            about = [(eye.root, eye.prompt(self.options.answering, cue, several)) for cue in cues]
            if max((yield from eye.confidences(about))) >= self.options.upper:
                cues = []  # the whole picture shows one of them well enough
        nodes: list[Node] = []
        for cue in cues:
            if cue.startswith(ALL):
                nodes += yield from eye.every(cue.removeprefix(ALL).removesuffix("s"), found)
            else:
                nodes += yield from eye.one(cue, several, found)
        found.view, found.boxes, found.looks = eye.views.of(nodes), [node.box for node in nodes], len(eye.known)
        return found


class Eye:
    """One question in front of one picture: its tree, and what the model said so far."""

    def __init__(self, options: ZoomEyeOptions, picture: Image.Image, question: str, name: str) -> None:
        self.options, self.question, self.local = options, question, options.views == "local"
        self.root = grow((0, 0, *picture.size), options.smallest, options.split)
        self.depth = max(node.depth for node in self.root.nodes())
        scale = options.scale or (1.0 if self.local else 1.2)
        frame = "blue" if "red rectangle" in question.lower() else "red"  # HR-Bench asks about red rectangles
        self.views = Views(picture, name, options.views, options.smallest, scale, options.fill, frame, options.prefix)
        self.known: dict[tuple[Node, str], float] = {}
        self.lots = random.Random(f"{name} {question}")

    def prompt(self, template: str, cue: str, several: bool = False) -> str:
        """A template filled in; each of several cues has a question of its own."""
        question = self.options.appearance.format(cue=cue, a=_article(cue), question="") if several else self.question
        return template.format(cue=cue, a=_article(cue), question=question)

    def confidences(self, wanted: Sequence[tuple[Node, str]]) -> Confidences:
        """Confidences of prompts about nodes; what is known is not asked again."""
        new = [key for key in dict.fromkeys(wanted) if key not in self.known]
        if new:
            answers = yield [Look(self.views.of([node]), prompt, self.options.words) for node, prompt in new]
            self.known.update(zip(new, answers, strict=True))
        return [self.known[key] for key in wanted]

    def one(self, cue: str, several: bool, found: Found) -> Generator[list[Look], list[float], list[Node]]:
        """Type 1: the best node for a single thing, or none."""
        options, answering = self.options, self.prompt(self.options.answering, cue, several)
        deepest = min(self.depth, DEEPEST)
        limit, upper, decay = POPS * deepest, options.upper, iter(options.decay[:-1])
        thorough = several and self.local  # of several things: never the whole picture, and not before a leaf was seen
        queue = [(0.0, self.root)]  # priority and node
        trace: list[tuple[float, Node]] = []  # answering confidence and node, as popped
        candidates: list[tuple[float, Node]] = []
        bottom = False
        while queue:
            _, node = queue.pop(0)
            skipped = thorough and node is self.root
            (sure,) = [-math.inf] if skipped else (yield from self.confidences([(node, answering)]))
            trace.append((sure, node))
            if sure >= upper:
                candidates.append((sure, node))
                if bottom or not thorough:
                    break
            elif len(trace) >= limit:
                upper -= next(decay, options.decay[-1])
                limit += AGAIN
                candidates += [seen for seen in trace if seen[0] >= upper and seen not in candidates]
                candidates = sorted(candidates, key=lambda seen: -seen[0])[:1]
                if candidates or upper < options.lower:
                    break
            if not node.children or node.depth == deepest:
                bottom = True
                if thorough and candidates:
                    break
            else:
                queue += zip((yield from self.priorities(node.children, cue)), node.children, strict=True)
            queue.sort(key=lambda item: -item[0])
        boxes, depths = [node.box for _, node in trace], [node.depth for _, node in trace]
        found.visited += boxes
        found.pops.append(len(boxes))
        found.zoom_ins.append(sum(b > a for a, b in pairwise(depths)))
        found.zoom_outs.append(sum(b < a for a, b in pairwise(depths)))
        return [max((node for _, node in candidates), key=lambda node: node.depth)] if candidates else []

    def priorities(self, nodes: Sequence[Node], cue: str) -> Confidences:
        """How much each node is worth a visit: R, or a lot."""
        if self.options.order == "random":
            return [self.lots.random() for _ in nodes]
        existence, latent = (self.prompt(t, cue) for t in (self.options.existence, self.options.latent))
        answers = yield from self.confidences([(node, prompt) for node in nodes for prompt in (existence, latent)])
        weights = [self.weight(node.depth) for node in nodes]
        return [w * e + (1 - w) * z for w, e, z in zip(weights, answers[::2], answers[1::2], strict=True)]

    def weight(self, depth: int) -> float:
        """w: how far existence is trusted at a depth."""
        bias = self.options.bias if self.options.bias is not None else 0.2 if self.local else 0.6
        return (1 - bias) * depth**2 / self.depth**2 + bias

    def every(self, cue: str, found: Found) -> Generator[list[Look], list[float], list[Node]]:
        """Type 2: all nodes down to depth 2 that show the thing as well as anything inside them."""
        nodes = list(_from_below(self.root))
        existence = self.prompt(self.options.existence, cue)
        sure = dict(zip(nodes, (yield from self.confidences([(node, existence) for node in nodes])), strict=True))
        best: dict[Node, float] = {}  # of a node and all inside it
        kept = []
        for node in nodes:
            inside = max((best[child] for child in node.children if child in best), default=-1.0)
            best[node] = max(inside, sure[node])
            if sure[node] >= max(inside, self.options.cue_threshold):
                kept.append(node)
        found.visited += [node.box for node in nodes]
        return kept


def _from_below(node: Node) -> Iterator[Node]:
    """A node's parts down to depth 2, then itself."""
    if node.depth < ALL_DEPTH:
        for child in node.children:
            yield from _from_below(child)
    yield node


def _article(cue: str) -> str:
    return "an" if cue[:1].lower() in tuple("aeiou") else "a"
