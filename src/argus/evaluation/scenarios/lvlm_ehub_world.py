"""LVLM-eHub's six capabilities (arXiv 2306.09265) on the procedural world, with an exact answer to everything.

    visual perception             shapes, colours, counts
    visual knowledge acquisition  rendered words, tables read as forms
    visual reasoning              relations, comparisons, attributes of one thing together ("Is there a red star?")
    visual commonsense            typical colours: what holds for most of several pictures of a kind (ImageNetVC)
    object hallucination          existence, half of what is absent made of a colour and a shape that are there
    embodied intelligence         plans: the steps by which one thing reaches another

Numbers come per set, `accuracy[colours]`, per capability pooled, `accuracy[visual perception]`, and as its mean over sets,
`accuracy[mean visual perception]`. Every set gets as many questions as the next, about pictures of its own. Sets of the
domains are asked as the world asks them; in the others, too, no answer is likelier than another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal

from PIL import Image
from pydantic import Field, field_validator

from argus.core.errors import RecipeError, nearest
from argus.core.registry import Options, build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.base import Group, Scenario
from argus.evaluation.scenarios.world import SEED_STRIDE
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES
from argus.world.object_scene import UNIT, ObjectsScene, Thing
from argus.world.objects import Objects

FEW = {"max_objects": 3}
DOMAINS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {  # set -> domain, families, settings
    "shapes": ("objects", ("shape",), FEW),
    "colours": ("objects", ("colour",), FEW),
    "counts": ("objects", ("count",), FEW),
    "words": ("documents", ("read", "read_place"), {}),
    "forms": ("tables", ("lookup", "inverse"), {}),
    "relations": ("objects", ("relation",), FEW),
    "comparisons": ("objects", ("comparison",), FEW),
    "existence": ("objects", ("existence",), FEW),
}
CAPABILITIES: dict[str, tuple[str, ...]] = {
    "visual perception": ("shapes", "colours", "counts"),
    "visual knowledge acquisition": ("words", "forms"),
    "visual reasoning": ("relations", "comparisons", "attributes"),
    "visual commonsense": ("typical colours",),
    "object hallucination": ("existence",),
    "embodied intelligence": ("plans",),
}
CAPABILITY = {name: capability for capability, names in CAPABILITIES.items() for name in names}
STEPS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}  # columns, rows
CELL = UNIT // 3  # of the grid that plans are made on


class LVLMEHubWorldOptions(Options):
    """Options of the scenario."""

    sets: list[str] = Field(list(CAPABILITY), min_length=1, description="what is asked; all sets when not given")
    split: Literal["train", "validation", "test"] = Field("test", description="whose scenes are drawn")
    size: int = Field(96, ge=32, le=2048, description="side of the pictures in pixels")
    questions: int = Field(4, ge=1, le=64, description="questions per picture, in the sets that ask several")
    pictures: int = Field(10, ge=1, le=50, description="pictures of a kind whose typical colour is asked for (the paper's ten)")
    typical: float = Field(0.7, ge=0, le=1, description="share of these that have the typical colour; always most")

    @field_validator("sets")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in CAPABILITY:
                raise ValueError(f"there is no set '{name}'. {nearest(name, CAPABILITY)}")
        return value


class LVLMEHubWorld(Scenario):
    """Asks one set after the other."""

    Options = LVLMEHubWorldOptions
    options: LVLMEHubWorldOptions

    def __init__(self, options: LVLMEHubWorldOptions) -> None:
        super().__init__(options)
        o = options
        self.objects: Objects = build("domain", "objects", FEW)
        self.drawn: dict[str, Callable[[str, int, Dice], Sample]] = {
            "attributes": self.attributes,
            "typical colours": self.typical_colour,
            "plans": self.plan,
        }
        shared = {"split": o.split, "size": o.size, "questions": o.questions}
        self.worlds: dict[str, Scenario] = {
            name: build("scenario", "world", {"domain": domain, "families": list(families), "settings": settings, **shared})
            for name, (domain, families, settings) in DOMAINS.items()
            if name in o.sets
        }

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        sets = self.options.sets
        if samples is None:
            raise RecipeError("the world has no end; say how many samples", where="scenario 'lvlm_ehub_world'")
        if samples < len(sets):
            raise RecipeError(f"{samples} questions cannot be shared by {len(sets)} sets")
        every = list(CAPABILITY)
        for number, name in enumerate(sets):
            share = (samples + number) // len(sets)  # they add up to `samples`
            own = seed * len(every) + every.index(name)
            for group in self.worlds[name].groups(share, own) if name in self.worlds else self._drawn(name, share, own):
                yield Group(f"{name}/{group.id}", [_placed(sample, name) for sample in group.samples])

    def _drawn(self, name: str, samples: int, seed: int) -> Iterator[Group]:
        for index in range(seed * SEED_STRIDE, seed * SEED_STRIDE + samples):
            id_ = f"{self.options.split}/{index}"
            dice = Dice(self.objects.rng(self.options.split, index, 3), 32 * (self.options.pictures + 4))
            yield Group(id_, [self.drawn[name](id_, index, dice)])

    def attributes(self, id_: str, index: int, dice: Dice) -> Sample:
        """Whether the one thing in the picture has two attributes; where not, it has one of them."""
        scene = self.objects.scene(self.objects.rng(self.options.split, index))
        thing = scene.things[0]
        colour, shape = thing.colour, thing.shape
        yes = dice(2) == 1
        if not yes and dice(2):
            colour = dice.pick([c for c in COLOURS if c != thing.colour])
        elif not yes:
            shape = dice.pick([s for s in SHAPES if s != thing.shape])
        text = f"Is there {'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape}?"
        return self.sample(id_, [replace(scene, things=(thing,))], text, "yes" if yes else "no", ["yes", "no"])

    def typical_colour(self, id_: str, index: int, dice: Dice) -> Sample:
        """The colour that most pictures of a kind have; the others have any but that one."""
        kind, colour = dice.pick(SHAPES), dice.pick(COLOURS)
        rest = [c for c in COLOURS if c != colour]
        o = self.options
        many = max(o.pictures // 2 + 1, round(o.typical * o.pictures))
        scenes = []
        for k, has in enumerate(dice.shuffled([True] * many + [False] * (o.pictures - many))):
            shown = colour if has else dice.pick(rest)
            scene = self.objects.scene(self.objects.rng(o.split, index * o.pictures + k, 4))
            scenes.append(replace(scene, things=(replace(scene.things[0], colour=shown, shape=kind),)))
        options = dice.shuffled([colour, *dice.shuffled(rest)[:3]])
        return self.sample(id_, scenes, f"What colour is the {kind}?", colour, options)

    def plan(self, id_: str, index: int, dice: Dice) -> Sample:
        """Two steps on a grid of three by three, that lead from one thing to the other."""
        across, along = dice.pick(("left", "right")), dice.pick(("up", "down"))
        steps = STEPS[across], STEPS[along]
        start = tuple((0, 1)[dice(2)] + (sum(s[axis] for s in steps) < 0) for axis in (0, 1))  # such that the goal is on the grid
        goal = reached(start, f"{across} then {along}")
        mover, target = dice.shuffled(SHAPES)[:2]
        blank = self.objects.scene(self.objects.rng(self.options.split, index))
        things = tuple(
            Thing(dice.pick(COLOURS), shape, "plain", "medium", CELL * x + 60, CELL * y + 60, CELL - 120, 0, (0, 0, 0))
            for shape, (x, y) in ((mover, start), (target, goal))
        )
        plans = dice.shuffled([f"{a} then {b}" for a in ("left", "right") for b in ("up", "down")])
        text = f"Which steps lead the {mover} to the {target}?"
        return self.sample(id_, [replace(blank, things=things)], text, f"{across} then {along}", plans)

    def sample(self, id_: str, scenes: list[ObjectsScene], text: str, answer: str, options: list[str]) -> Sample:
        """A question about drawn scenes."""
        pictures = [ImagePart(Image.fromarray(self.objects.render(scene, self.options.size))) for scene in scenes]
        return Sample(id_, [Message("user", [*pictures, TextPart(text)])], answer, options, {"picture": id_, "scenes": scenes})


def reached(start: tuple[int, ...], plan: str) -> tuple[int, int]:
    """Where a plan leads, in columns and rows."""
    steps = [STEPS[step] for step in plan.split(" then ")]
    return start[0] + sum(x for x, _ in steps), start[1] + sum(y for _, y in steps)


def _placed(sample: Sample, name: str) -> Sample:
    known = {
        "family": name,
        "branches": [CAPABILITY[name]],
        "domain": "lvlm-ehub",
        "picture": f"{name}/{sample.metadata['picture']}",
    }
    return replace(sample, id=f"{name}/{sample.id}", metadata={**sample.metadata, **known})
