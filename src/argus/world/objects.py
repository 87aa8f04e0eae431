"""Objects: one to six coloured shapes on varied grounds.

A scene is a list of things (colour, shape, texture, size, place) and a ground, in integer units of 1/960 of the side, so that
the same scene renders at any size and nothing hinges on the last bit of a float. Things may overlap lightly: the boxes of two
share at most an eighth of the smaller one. With `piled`, every second thing is moved onto the one before it, so that what lies in
front of what can be asked (`order`). With `companions`, shapes go together: circle and square, triangle and star, cross and
diamond, ring and heart of one colour; what is left of the scene stays as it is drawn without the option.

Questions choose the answer first, uniformly among the options, and then what to ask, so that no answer is likelier than
another and a model that sees no picture stays at chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations

import numpy as np
from PIL import Image, ImageChops
from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.core.sample import box_text
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, SIZES, TEXTURES, Domain, Question
from argus.world.raster import coverage, ground_pattern, noise_tile, paint, pile, stamp

UNIT = 960  # relative units per side
DIAMETERS = {"small": (120, 150), "medium": (190, 230), "large": (280, 340)}  # 12-15, 19-23, 28-34 px of 96
PALETTE = {
    "red": (215, 35, 35),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (240, 215, 40),
    "orange": (245, 135, 25),
    "purple": (130, 45, 165),
    "pink": (250, 145, 190),
    "brown": (120, 75, 35),
    "cyan": (50, 205, 215),
    "gray": (128, 128, 128),
}
JITTER = 10  # a colour varies by at most this per channel; named colours are at least four times further apart
CONTACT = 24  # pixels of 96 x 96 in which one thing hides another, so that it can be seen which is in front
PLACES = ("top left", "top right", "bottom left", "bottom right")
COMPANIONS = dict(zip(SHAPES[::2], SHAPES[1::2], strict=True))  # leading shape -> its companion's


class ObjectsOptions(Options):
    """How full and how varied the scenes are."""

    min_objects: int = Field(1, ge=1, le=6, description="fewest things in a scene")
    max_objects: int = Field(6, ge=1, le=6, description="most things in a scene")
    ground: str = Field("varied", pattern="^(plain|varied)$", description="plain, or with gradients, stripes and noise")
    companions: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the scenes in which every leading shape has its companion of the same colour; in the others none "
        "has. By lot when not given",
    )
    scale: float = Field(1.0, ge=0.1, le=1, description="share of their usual size that things have; small ones need zooming")
    piled: float = Field(
        0.0, ge=0, le=0.75, description="share of the smaller of two boxes by which every second thing lies on the one before it"
    )

    @model_validator(mode="after")
    def _ordered(self) -> ObjectsOptions:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} exceeds max_objects {self.max_objects}")
        return self


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing; x, y are its box's top left corner and d its side, in 1/960 of the picture's."""

    colour: str
    shape: str
    texture: str
    size: str
    x: int
    y: int
    d: int
    rotation: int
    jitter: tuple[int, int, int]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x + self.d / 2) / UNIT, (self.y + self.d / 2) / UNIT

    @property
    def box(self) -> tuple[float, float, float, float]:
        return self.x / UNIT, self.y / UNIT, (self.x + self.d) / UNIT, (self.y + self.d) / UNIT


@dataclass(frozen=True, slots=True)
class ObjectsScene:
    """Things from back to front, and the ground (base colour, pattern kind and variant, noise)."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]
    pattern: int
    variant: int
    noise: int


class Objects(Domain):
    """Coloured shapes on varied grounds."""

    Options = ObjectsOptions
    options: ObjectsOptions
    name = "objects"
    families = (
        "existence", "colour", "shape", "size", "texture", "count", "position", "relation", "nearest", "comparison",
        "odd_one_out", "locate", "caption",
    )  # fmt: skip
    more_families = ("order",)

    def scene(self, rng: np.random.Generator) -> ObjectsScene:
        dice = Dice(rng, 160)
        low, high = self.options.min_objects, self.options.max_objects
        wanted = low + dice(high - low + 1)
        # A third of the scenes repeats a colour, a third a shape, so that counts above one are frequent; in one scene
        # of six all things but one share it, so that there is an odd one out.
        repeat, shared_colour, shared_shape = dice(6), dice(len(COLOURS)), dice(len(SHAPES))
        odd = dice(wanted) if dice(2) else -1
        things: list[Thing] = []
        for _ in range(12 * wanted):
            if len(things) == wanted:
                break
            colour, shape = dice(len(COLOURS)), dice(len(SHAPES))
            same = len(things) != odd if odd >= 0 else dice(2)
            if repeat in (0, 1) and same:
                colour = shared_colour
            if repeat in (2, 3) and same:
                shape = shared_shape
            size = SIZES[dice(3)]
            small, large = DIAMETERS[size]
            d = round(self.options.scale * (small + dice(large - small + 1)))
            thing = Thing(
                COLOURS[colour], SHAPES[shape], TEXTURES[dice(4)], size, dice(UNIT - d), dice(UNIT - d), d,
                5 * (dice(5) - 2), (dice(2 * JITTER + 1) - JITTER, dice(2 * JITTER + 1) - JITTER, dice(2 * JITTER + 1) - JITTER),
            )  # fmt: skip
            if all(_clear(thing, other) for other in things):
                things.append(thing)
        base = 205 + dice(45) if dice(2) else 12 + dice(55)
        ground = tuple(min(255, max(0, base + dice(21) - 10)) for _ in range(3))
        varied = self.options.ground == "varied"
        scene = ObjectsScene(
            tuple(things),
            ground,  # type: ignore[arg-type]
            pattern=dice(4) if varied else 0,
            variant=dice(16),
            noise=dice(16) if varied else 0,
        )
        if self.options.piled:
            scene = replace(scene, things=_piled(scene.things, self.options.piled))
        share = self.options.companions
        if share is None:
            return scene
        return replace(scene, things=(_together if dice(1000) < 1000 * share else _apart)(scene.things))

    def render(self, scene: ObjectsScene, size: int) -> np.ndarray:
        picture = Image.new("RGB", (size, size), scene.ground)
        if scene.pattern:
            picture = ImageChops.add(picture, ground_pattern(scene.pattern, scene.variant, size), 1, -32)
        for thing in scene.things:
            shape, rotation, place, d = _body(thing, size)
            body, marks = stamp(shape, thing.texture, d, rotation)
            paint(picture, place, body, marks, _rgb(thing))
        if scene.noise >= 8:
            picture = ImageChops.add(picture, noise_tile(scene.noise - 8, size), 1, -9)
        return np.asarray(picture)

    def maps(self, scene: ObjectsScene, size: int) -> dict[str, np.ndarray]:
        owner, layer = pile([_body(t, size) for t in scene.things], size)
        classes = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": SIZES}
        tables = {head: [0, *(1 + names.index(getattr(t, head)) for t in scene.things)] for head, names in classes.items()}
        return {"segmentation": owner, "depth": layer, **{head: np.array(ids)[owner] for head, ids in tables.items()}}

    def boxes(self, scene: ObjectsScene) -> tuple[tuple[float, float, float, float], ...]:
        return tuple(t.box for t in scene.things)

    def dense(self, scene: ObjectsScene, grid: int) -> dict[str, np.ndarray]:
        boxes = [(t.shape, t.rotation, t.x / UNIT, t.y / UNIT, t.d / UNIT) for t in scene.things]
        top = coverage(boxes, grid)  # (grid, grid): 1 + index of the thing that covers most of the cell, 0 for ground

        def ids(names: Sequence[str], attribute: str) -> np.ndarray:
            table = [0] + [1 + names.index(getattr(t, attribute)) for t in scene.things]
            return np.array(table, dtype=np.int64)[top]

        return {
            "colour": ids(COLOURS, "colour"),
            "shape": ids(SHAPES, "shape"),
            "texture": ids(TEXTURES, "texture"),
            "size": ids(SIZES, "size"),
            "character": np.zeros((grid, grid), dtype=np.int64),
        }

    def describe(self, scene: ObjectsScene) -> str:
        parts = []
        for t in sorted(scene.things, key=lambda t: (t.centre[1], t.centre[0])):
            x, y = (int(100 * v) for v in t.centre)
            parts.append(f"{t.size} {t.colour} {t.texture} {t.shape} at {x} {y}")
        return "; ".join(parts)

    def questions(
        self, scene: ObjectsScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 2))
        return self.collect(dice, count, families, lambda family: ASK[family](self, scene, dice))


def _together(things: Sequence[Thing]) -> tuple[Thing, ...]:
    """The things, each leading shape with its companion: other things take its colour and shape and keep their place.

    A leading shape for which no other thing is left becomes its companion itself.
    """
    out = list(things)
    settled: set[int] = set()
    for i, thing in enumerate(out):
        if i in settled or thing.shape not in COMPANIONS:
            continue
        kind = thing.colour, COMPANIONS[thing.shape]
        free = [j for j in range(len(out)) if j != i and j not in settled]
        partner = next((j for j in free if (out[j].colour, out[j].shape) == kind), free[0] if free else i)
        out[partner] = replace(out[partner], colour=kind[0], shape=kind[1])
        settled |= {i, partner}
    return tuple(out)


def _apart(things: Sequence[Thing]) -> tuple[Thing, ...]:
    """The things, no leading shape with its companion: companions of what is there take the next colour that leads to nothing."""
    leads = {(t.colour, COMPANIONS[t.shape]) for t in things if t.shape in COMPANIONS}
    out = []
    for thing in things:
        start = COLOURS.index(thing.colour)
        free = (c for c in (*COLOURS[start:], *COLOURS[:start]) if (c, thing.shape) not in leads)
        out.append(replace(thing, colour=next(free)))
    return tuple(out)


def _body(thing: Thing, size: int) -> tuple[str, int, tuple[int, int], int]:
    """Shape, rotation, place and side of a thing in a picture of this size, in pixels."""
    place = round(thing.x * size / UNIT), round(thing.y * size / UNIT)
    return thing.shape, thing.rotation, place, max(6, round(thing.d * size / UNIT))


def _piled(things: Sequence[Thing], share: float) -> tuple[Thing, ...]:
    """The things, every second one moved straight towards the one before it until their boxes share enough.

    It stays where it is if it would then cover more than an eighth of a third one.
    """
    out = list(things)
    for i in range(1, len(out), 2):
        below, thing = out[i - 1], out[i]
        x, y = (old + (below.d - thing.d) // 2 for old in (below.x, below.y))  # where it would lie in the middle
        ways = ((x + step * (thing.x - x) // 100, y + step * (thing.y - y) // 100) for step in range(100, -1, -1))
        inside = (replace(thing, x=min(max(a, 0), UNIT - thing.d), y=min(max(b, 0), UNIT - thing.d)) for a, b in ways)
        moved = next(one for one in inside if _shared(one, below) >= share * min(one.d, below.d) ** 2)
        if all(_clear(moved, other) for j, other in enumerate(out) if j not in (i - 1, i)):
            out[i] = moved
    return tuple(out)


def _shared(a: Thing, b: Thing) -> int:
    """Area that two boxes share."""
    width = min(a.x + a.d, b.x + b.d) - max(a.x, b.x)
    height = min(a.y + a.d, b.y + b.d) - max(a.y, b.y)
    return max(width, 0) * max(height, 0)


def _clear(a: Thing, b: Thing) -> bool:
    """Whether two boxes share at most an eighth of the smaller one."""
    return 8 * _shared(a, b) <= min(a.d, b.d) ** 2


@lru_cache(4096)
def _shade(colour: str, jitter: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(min(255, max(0, v + j)) for v, j in zip(PALETTE[colour], jitter, strict=True))  # type: ignore[return-value]


def _rgb(thing: Thing) -> tuple[int, int, int]:
    return _shade(thing.colour, thing.jitter)


# -- questions: each returns None where the scene has nothing to ask of its kind


def _reference(scene: ObjectsScene, thing: Thing, hide: str = "") -> str | None:
    """The shortest phrase that only this thing fits, without naming the attribute `hide`."""
    for used in (("colour", "shape"), ("size", "colour", "shape"), ("texture", "colour", "shape")):
        names = [a for a in used if a != hide]
        key = [getattr(thing, a) for a in names]
        if sum([getattr(t, a) for a in names] == key for t in scene.things) == 1:
            words = " ".join(key)
            return words if "shape" in names else f"{words} thing"
    return None


def _referable(scene: ObjectsScene, dice: Dice, hide: str = "") -> tuple[Thing, str] | None:
    """A random thing that can be referred to, with its phrase."""
    for thing in dice.shuffled(scene.things):
        phrase = _reference(scene, thing, hide)
        if phrase:
            return thing, phrase
    return None


def _choices(answer: str, names: Sequence[str], dice: Dice, count: int = 4) -> tuple[str, ...]:
    """The answer among `count` names, in random order."""
    others = dice.shuffled([n for n in names if n != answer])[: count - 1]
    return tuple(dice.shuffled([answer, *others]))


def _existence(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    here = {(t.colour, t.shape) for t in scene.things}
    yes = dice(2) == 1
    trap = False
    if yes:
        colour, shape = dice.pick(sorted(here))
    else:
        # Half of the absent ones are traps: colour and shape are both in the scene, but not on one thing.
        crossed = sorted({(a[0], b[1]) for a in here for b in here} - here)
        trap = bool(crossed) and dice(2) == 1
        if trap:
            colour, shape = dice.pick(crossed)
        else:
            colour, shape = dice.pick(COLOURS), dice.pick(SHAPES)
            while (colour, shape) in here:
                colour, shape = dice.pick(COLOURS), dice.pick(SHAPES)
    article = "an" if colour[0] in "aeiou" else "a"
    text = dice.pick(
        (
            f"Is there {article} {colour} {shape}?",
            f"Can you see {article} {colour} {shape}?",
            f"Does the picture show {article} {colour} {shape}?",
        )
    )
    boxes = tuple(t.box for t in scene.things if (t.colour, t.shape) == (colour, shape))
    return Question("existence", text, "yes" if yes else "no", ("yes", "no"), boxes, trap=trap, cues=(f"{colour} {shape}",))


def _attribute(attribute: str, names: Sequence[str], templates: Sequence[str]) -> Callable[..., Question | None]:
    def ask(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
        found = _referable(scene, dice, hide=attribute)
        if found is None:
            return None
        thing, phrase = found
        answer = getattr(thing, attribute)
        options = _choices(answer, names, dice)
        return Question(attribute, dice.pick(templates).format(phrase), answer, options, (thing.box,), cues=(phrase,))

    return ask


def _count(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    kind = dice(3)
    if kind == 0:
        low, high = domain.options.min_objects, domain.options.max_objects
        options = tuple(str(n) for n in range(low, high + 1))
        text = dice.pick(("How many things are there?", "Count the things in the picture.", "What is the number of things?"))
        return Question("count", text, str(len(scene.things)), options, tuple(t.box for t in scene.things))
    attribute, names = ("colour", COLOURS) if kind == 1 else ("shape", SHAPES)
    counts = Counter(getattr(t, attribute) for t in scene.things)
    by_count: dict[int, list[str]] = {}
    for name in names:
        by_count.setdefault(counts[name], []).append(name)
    if len(by_count) < 3:
        return None  # two possible answers would be too easy to guess
    answer = dice.pick(sorted(by_count))
    name = dice.pick(by_count[answer])
    noun = f"{name} things" if attribute == "colour" else ("crosses" if name == "cross" else f"{name}s")
    text = dice.pick((f"How many {noun} are there?", f"Count the {noun}.", f"What is the number of {noun}?"))
    boxes = tuple(t.box for t in scene.things if getattr(t, attribute) == name)
    return Question("count", text, str(answer), tuple(str(n) for n in sorted(by_count)), boxes)


def _position(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    found = _referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    x, y = thing.centre
    if min(abs(x - 0.5), abs(y - 0.5)) < 0.05:
        return None  # on a border between quarters
    answer = PLACES[2 * (y > 0.5) + (x > 0.5)]
    text = dice.pick(
        (f"In which quarter is the {phrase}?", f"Where is the {phrase}?", f"Which corner is the {phrase} nearest to?")
    )
    return Question("position", text, answer, tuple(dice.shuffled(PLACES)), (thing.box,), cues=(phrase,))


def _pair(scene: ObjectsScene, dice: Dice) -> tuple[Thing, str, Thing, str] | None:
    named = [(t, p) for t in dice.shuffled(scene.things) if (p := _reference(scene, t))]
    return (*named[0], *named[1]) if len(named) > 1 else None


def _relation(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    pair = _pair(scene, dice)
    if pair is None:
        return None
    a, first, b, second = pair
    axis = dice(2)
    if abs(a.centre[axis] - b.centre[axis]) < 0.1:
        return None
    words = (("left of", "right of"), ("above", "below"))[axis]
    holds = words[0] if a.centre[axis] < b.centre[axis] else words[1]
    yes = dice(2) == 1
    word = holds if yes else words[1 - words.index(holds)]
    text = dice.pick((f"Is the {first} {word} the {second}?", f"Is it true that the {first} is {word} the {second}?"))
    return Question("relation", text, "yes" if yes else "no", ("yes", "no"), (a.box, b.box), trap=not yes, cues=(first, second))


def _nearest(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    found = _referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    others = sorted(
        ((t.centre[0] - thing.centre[0]) ** 2 + (t.centre[1] - thing.centre[1]) ** 2, t.colour, t.box)
        for t in scene.things
        if t is not thing
    )
    colours = sorted({c for _, c, _ in others})
    # The runner-up of another colour must be clearly further: 1.2 times the distance.
    rivals = [d for d, c, _ in others if c != others[0][1]] if others else []
    if not rivals or min(rivals) < 1.44 * others[0][0]:
        return None
    options = tuple(dice.shuffled(colours))
    text = dice.pick(
        (
            f"What colour is the thing nearest to the {phrase}?",
            f"Which colour has the closest neighbour of the {phrase}?",
        )
    )
    return Question("nearest", text, others[0][1], options, (thing.box, others[0][2]))


def _comparison(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    yes = dice(2) == 1
    if dice(2):
        pair = _pair(scene, dice)
        if pair is None or pair[0].size == pair[2].size:
            return None
        a, first, b, second = pair
        if SIZES.index(a.size) < SIZES.index(b.size):
            a, first, b, second = b, second, a, first
        if not yes:
            first, second = second, first
        text = dice.pick((f"Is the {first} larger than the {second}?", f"Is the {first} bigger than the {second}?"))
        return Question("comparison", text, "yes" if yes else "no", ("yes", "no"), (a.box, b.box))
    counts = Counter(t.colour for t in scene.things)
    pairs = [(m, n) for m in sorted(counts) for n in sorted(counts) if counts[m] > counts[n]]
    if not pairs:
        return None
    more, fewer = dice.pick(pairs)
    if not yes:
        more, fewer = fewer, more
    text = dice.pick(
        (f"Are there more {more} things than {fewer} things?", f"Are {more} things more frequent than {fewer} things?")
    )
    boxes = tuple(t.box for t in scene.things if t.colour in (more, fewer))
    return Question("comparison", text, "yes" if yes else "no", ("yes", "no"), boxes)


def _odd_one_out(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    attribute, names = (("colour", COLOURS), ("shape", SHAPES))[dice(2)]
    counts = Counter(getattr(t, attribute) for t in scene.things)
    if len(scene.things) < 3 or sorted(counts.values()) != [1, len(scene.things) - 1]:
        return None
    odd = next(t for t in scene.things if counts[getattr(t, attribute)] == 1)
    answer = getattr(odd, attribute)
    text = dice.pick(
        (
            f"One thing has another {attribute} than all others. Which {attribute}?",
            f"What {attribute} is the odd one out?",
        )
    )
    return Question("odd_one_out", text, answer, _choices(answer, names, dice), (odd.box,))


def _order(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    """Which of two things lies on the other, where that can be seen."""
    for a, b in dice.shuffled(_hiding(scene)):
        first, second = _reference(scene, a), _reference(scene, b)
        if first is None or second is None:
            continue
        yes, word = dice(2) == 1, ("in front of", "behind")[dice(2)]
        if yes == (word == "behind"):
            first, second = second, first
        text = dice.pick((f"Is the {first} {word} the {second}?", f"Does the {first} lie {word} the {second}?"))
        return Question("order", text, "yes" if yes else "no", ("yes", "no"), (a.box, b.box), cues=(first, second))
    return None


@lru_cache(16)
def _hiding(scene: ObjectsScene) -> tuple[tuple[Thing, Thing], ...]:
    """Pairs of things, front one first, of which the one hides at least `CONTACT` pixels of the other at 96 x 96."""
    owner, _ = pile([_body(t, 96) for t in scene.things], 96)
    alone = [pile([_body(t, 96)], 96)[0] > 0 for t in scene.things]
    pairs = combinations(range(len(scene.things)), 2)
    return tuple((scene.things[j], scene.things[i]) for i, j in pairs if ((owner == 1 + j) & alone[i]).sum() >= CONTACT)


def _locate(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    found = _referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    text = dice.pick(
        (
            f"Give the box of the {phrase}.",
            f"Locate the {phrase} with a box.",
            f"Where exactly is the {phrase}? Answer with a box.",
        )
    )
    return Question("locate", text, box_text(thing.box), (), (thing.box,))


def _caption(domain: Objects, scene: ObjectsScene, dice: Dice) -> Question | None:
    things = sorted(scene.things, key=lambda t: (t.centre[1], t.centre[0]))
    facts = tuple(
        f"a {t.size} {t.colour} {t.texture} {t.shape} at the {PLACES[2 * (t.centre[1] > 0.5) + (t.centre[0] > 0.5)]}"
        for t in things
    )
    text = dice.pick(("Describe the picture in detail.", "What does the picture show? List everything."))
    return Question("caption", text, "; ".join(facts), (), tuple(t.box for t in things), facts=facts)


ASK: dict[str, Callable[[Objects, ObjectsScene, Dice], Question | None]] = {
    "existence": _existence,
    "colour": _attribute("colour", COLOURS, ("What colour is the {}?", "Which colour has the {}?", "Name the colour of the {}.")),
    "shape": _attribute("shape", SHAPES, ("What shape is the {}?", "Which shape has the {}?", "Name the shape of the {}.")),
    "size": _attribute("size", SIZES, ("How large is the {}?", "What size is the {}?")),
    "texture": _attribute(
        "texture", TEXTURES, ("What pattern does the {} have?", "Is the {} plain, striped, dotted or checkered?")
    ),
    "count": _count,
    "position": _position,
    "relation": _relation,
    "nearest": _nearest,
    "comparison": _comparison,
    "odd_one_out": _odd_one_out,
    "order": _order,
    "locate": _locate,
    "caption": _caption,
}
