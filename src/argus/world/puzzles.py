"""Puzzles: questions that take one to four steps, each of which is known (in the manner of CORE-MM, arXiv 2311.11567).

A scene has a thing in each quarter, of four shapes with a value each. Values go round:

    circle 0, square 1, triangle 2, star 3; after 3 comes 0        3 and 2 make 1

    family  steps  kind                                              answer
    shape     1    deductive    which shape is at a place              a shape
    count     1    deductive    how many things of a shape             0, 1, 2
    value     2    deductive    what the thing at a place is worth     0 ... 3
    where     2    abductive    where the one thing of a value is      a place
    next      2    analogical   circle is to square as ... to what     a shape
    sum       3    deductive    what two things make                   0 ... 3
    hidden    3    abductive    what with a thing makes a value        a shape
    total     4    deductive    what all things make                   0 ... 3
    turn      4    analogical   as one place to another, so a third    0 ... 3

A question's `facts` are its steps, in order. With `rationales` its answer states them in front of the answer itself, "the top
left is 3; the top right is 2; 3 and 2 make 1; answer 1", and there are no options: what a model that is to reason is taught.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, Domain, Question
from argus.world.object_scene import PLACES, UNIT, ObjectsScene, Thing
from argus.world.objects import Objects, ObjectsOptions

WORTH = ("circle", "square", "triangle", "star")  # a shape's place here is its value
VALUES = tuple(map(str, range(len(WORTH))))
RULE = "Circle 0, square 1, triangle 2, star 3; after 3 comes 0. "
KINDS = {
    **dict.fromkeys(("shape", "count", "value", "sum", "total"), "Deductive"),
    **dict.fromkeys(("where", "hidden"), "Abductive"),
    **dict.fromkeys(("next", "turn"), "Analogical"),
}
HALF = UNIT // 2


class PuzzlesOptions(Options):
    """How answers are written, and how pictures look."""

    rationales: bool = Field(False, description="answers state their steps first")
    told: bool = Field(True, description="every question tells the values; a model that was taught the puzzles knows them")
    ground: str = Field("plain", pattern="^(plain|varied)$", description="plain, or with gradients, stripes and noise")


@dataclass(frozen=True, slots=True)
class PuzzlesScene:
    """A thing at each of `PLACES`, in that order."""

    picture: ObjectsScene

    @property
    def values(self) -> tuple[int, ...]:
        """What the things are worth."""
        return tuple(WORTH.index(thing.shape) for thing in self.picture.things)


Puzzle = tuple[str, str, tuple[str, ...], list[str], tuple[int, ...]]  # question, answer, options, steps, places that it names


class Puzzles(Domain):
    """Questions of one to four steps."""

    Options = PuzzlesOptions
    options: PuzzlesOptions
    name = "puzzles"
    families = tuple(KINDS)

    def __init__(self, options: PuzzlesOptions) -> None:
        super().__init__(options)
        self.objects = Objects(ObjectsOptions.model_validate({"max_objects": 1, "ground": options.ground}))

    def scene(self, rng: np.random.Generator) -> PuzzlesScene:
        blank, dice = self.objects.scene(rng), Dice(rng, 48)
        return PuzzlesScene(replace(blank, things=tuple(self._thing(place, dice) for place in range(len(PLACES)))))

    def _thing(self, place: int, dice: Dice) -> Thing:
        """A large thing somewhere inside its quarter."""
        d = 280 + dice(61)
        x, y = (HALF * side + 40 + dice(HALF - d - 79) for side in (place % 2, place // 2))
        return Thing(dice.pick(COLOURS), dice.pick(WORTH), "plain", "large", x, y, d, 5 * (dice(5) - 2), (0, 0, 0))

    def render(self, scene: PuzzlesScene, size: int) -> np.ndarray:
        return self.objects.render(scene.picture, size)

    def boxes(self, scene: PuzzlesScene) -> tuple[tuple[float, float, float, float], ...]:
        return self.objects.boxes(scene.picture)

    def maps(self, scene: PuzzlesScene, size: int) -> dict[str, np.ndarray]:
        return self.objects.maps(scene.picture, size)

    def dense(self, scene: PuzzlesScene, grid: int) -> dict[str, np.ndarray]:
        return self.objects.dense(scene.picture, grid)

    def describe(self, scene: PuzzlesScene) -> str:
        return "; ".join(f"{t.colour} {t.shape} at the {place}" for t, place in zip(scene.picture.things, PLACES, strict=True))

    def questions(
        self, scene: PuzzlesScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice, boxes = Dice(rng, 32 * (count + 2)), self.boxes(scene)

        def ask(family: str) -> Question | None:
            found = PUZZLES[family](scene.values, dice)
            if found is None:
                return None
            text, answer, options, steps, places = found
            offered, shown = tuple(dice.shuffled(options)), tuple(boxes[place] for place in places)
            if self.options.rationales:
                answer, offered = "; ".join([*steps, f"answer {answer}"]), ()
            return Question(family, RULE * self.options.told + text, answer, offered, shown, facts=tuple(steps))

        return self.collect(dice, count, families, ask)


def together(a: int, b: int) -> int:
    """What two values make.

    >>> together(3, 2)
    1
    """
    return (a + b) % len(WORTH)


def _is(place: int, values: tuple[int, ...]) -> str:
    return f"the {PLACES[place]} is {values[place]}"


def _shape(values: tuple[int, ...], dice: Dice) -> Puzzle:
    place = dice(4)
    shape = WORTH[values[place]]
    return f"Which shape is at the {PLACES[place]}?", shape, WORTH, [f"the {PLACES[place]} is {shape}"], (place,)


def _count(values: tuple[int, ...], dice: Dice) -> Puzzle | None:
    counts, wanted = Counter(values), dice(3)
    fitting = [v for v in range(4) if counts[v] == wanted]
    if not fitting:
        return None
    value = dice.pick(fitting)
    places = tuple(place for place in range(4) if values[place] == value)
    kind = f"{WORTH[value]}s"
    return f"How many {kind} are there?", str(wanted), VALUES[:3], [f"the {kind} are {wanted}"], places


def _value(values: tuple[int, ...], dice: Dice) -> Puzzle:
    place = dice(4)
    shape, value = WORTH[values[place]], values[place]
    steps = [f"the {PLACES[place]} is {shape}", f"{shape} is {value}"]
    return f"What is the value at the {PLACES[place]}?", str(value), VALUES, steps, (place,)


def _where(values: tuple[int, ...], dice: Dice) -> Puzzle | None:
    alone = [p for p in range(4) if values.count(values[p]) == 1]
    if not alone:
        return None
    place = dice.pick(alone)
    value, shape = values[place], WORTH[values[place]]
    steps = [f"{value} is {shape}", f"{shape} is at the {PLACES[place]}"]
    return f"One place alone has the value {value}. Which is it?", PLACES[place], PLACES, steps, (place,)


def _next(values: tuple[int, ...], dice: Dice) -> Puzzle:
    place = dice(4)
    shape, following = WORTH[values[place]], WORTH[together(values[place], 1)]
    steps = [f"the {PLACES[place]} is {shape}", f"after {shape} comes {following}"]
    return f"Circle is to square as the {PLACES[place]} is to what?", following, WORTH, steps, (place,)


def _sum(values: tuple[int, ...], dice: Dice) -> Puzzle:
    a, b = dice.shuffled(range(4))[:2]
    made = together(values[a], values[b])
    steps = [_is(a, values), _is(b, values), f"{values[a]} and {values[b]} make {made}"]
    return f"What do the {PLACES[a]} and the {PLACES[b]} make?", str(made), VALUES, steps, (a, b)


def _hidden(values: tuple[int, ...], dice: Dice) -> Puzzle:
    place, hidden = dice(4), dice(4)
    made = together(values[place], hidden)
    steps = [_is(place, values), f"{values[place]} and {hidden} make {made}", f"{hidden} is {WORTH[hidden]}"]
    return f"The {PLACES[place]} and a hidden shape make {made}. Which is hidden?", WORTH[hidden], WORTH, steps, (place,)


def _total(values: tuple[int, ...], dice: Dice) -> Puzzle:
    order = dice.shuffled(range(4))
    made, steps = values[order[0]], [_is(order[0], values)]
    for place in order[1:]:
        made = together(made, values[place])
        steps.append(f"{_is(place, values)} makes {made}")
    names = [f"the {PLACES[place]}" for place in order]
    return f"What do {', '.join(names[:-1])} and {names[-1]} make?", str(made), VALUES, steps, tuple(order)


def _turn(values: tuple[int, ...], dice: Dice) -> Puzzle:
    a, b, c = dice.shuffled(range(4))[:3]
    turn = together(values[b], -values[a])
    made = together(values[c], turn)
    steps = [_is(a, values), f"{_is(b, values)} turned by {turn}", _is(c, values), f"{values[c]} turned by {turn} makes {made}"]
    text = f"As the {PLACES[a]} turns to the {PLACES[b]}, so the {PLACES[c]} turns to which value?"
    return text, str(made), VALUES, steps, (a, b, c)


PUZZLES: dict[str, Callable[[tuple[int, ...], Dice], Puzzle | None]] = {
    "shape": _shape,
    "count": _count,
    "value": _value,
    "where": _where,
    "next": _next,
    "sum": _sum,
    "hidden": _hidden,
    "total": _total,
    "turn": _turn,
}
