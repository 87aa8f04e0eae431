"""Stories: a picture per step, a hero who changes and someone who does not.

    a large red star at the top left; a small blue ring at the bottom right
    The red star moves to the top right.     The red star turns green.     The green star becomes a heart.

Everything that happens is drawn: one picture for the beginning and one for each step, all on one ground. What changes from
picture to picture - place, colour, shape or size - is equally often each of the four. Questions ask what happens in a step,
where and what the hero is, and whether something has stayed as it was; all of them need more than the last picture. Words are
those of `argus.world.telling`.

With `judged` a drawing is one step of a story as somebody went on with it, well or badly: the picture before, a picture
after, and questions that tell what happens in words and ask for the points that an oracle gives (`score`, 0 to 6). How bad an
author is differs from drawing to drawing, and each of the six points can be lost: what a judge of continuations learns from,
and is tried on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, Domain, Question
from argus.world.object_scene import PLACES, ObjectsScene
from argus.world.objects import Objects, ObjectsOptions
from argus.world.telling import KINDS, POINTS, SIZES, Figure, State, after, oracle, picture, state_text, told_text

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
SCORES = tuple(map(str, range(POINTS + 1)))


class StoriesOptions(Options):
    """How long stories are."""

    steps: int = Field(2, ge=1, le=len(ORDINALS) - 1, description="steps behind the beginning")
    ground: str = Field("plain", pattern="^(plain|varied)$", description="plain, or with gradients, stripes and noise")
    judged: bool = Field(False, description="draw one step as somebody told it, and ask for the oracle's score")


@dataclass(frozen=True, slots=True)
class StoriesScene:
    """A story.

    Args:
        states: the beginning and the state after each step; where judged, what the last picture shows, right or wrong.
        events: (kind, new value) of each step.
        ground: what the pictures lie on.
        faults: per mille of what the author gets wrong; 0 where nothing is judged.
    """

    states: tuple[State, ...]
    events: tuple[tuple[str, str], ...]
    ground: ObjectsScene
    faults: int = 0


class Stories(Domain):
    """A hero who changes."""

    Options = StoriesOptions
    options: StoriesOptions
    name = "stories"
    families = ("event", "now", "same")
    more_families = ("score",)

    def __init__(self, options: StoriesOptions) -> None:
        super().__init__(options)
        self.objects = Objects(ObjectsOptions.model_validate({"max_objects": 1, "ground": options.ground}))

    def scene(self, rng: np.random.Generator) -> StoriesScene:
        ground, dice = self.objects.scene(rng), Dice(rng, 128)
        states, events = [beginning(dice)], []
        for _ in range(1 if self.options.judged else self.options.steps):
            kind = dice.pick(list(KINDS))
            value = changed(states[-1], kind, dice)
            events.append((kind, value))
            states.append(after(states[-1], kind, value))
        faults = 0
        if self.options.judged:
            faults = dice(1000)
            states[-1] = misdrawn(states[-1], faults, dice)
        return StoriesScene(tuple(states), tuple(events), ground, faults)

    def render(self, scene: StoriesScene, size: int) -> np.ndarray:
        """The last picture."""
        return self.objects.render(picture(scene.states[-1], scene.ground), size)

    def frames(self, scene: StoriesScene, size: int) -> tuple[np.ndarray, ...]:
        return tuple(self.objects.render(picture(state, scene.ground), size) for state in scene.states)

    def boxes(self, scene: StoriesScene) -> tuple[tuple[float, float, float, float], ...]:
        return self.objects.boxes(picture(scene.states[-1], scene.ground))

    def maps(self, scene: StoriesScene, size: int) -> dict[str, np.ndarray]:
        return self.objects.maps(picture(scene.states[-1], scene.ground), size)

    def dense(self, scene: StoriesScene, grid: int) -> dict[str, np.ndarray]:
        return self.objects.dense(picture(scene.states[-1], scene.ground), grid)

    def describe(self, scene: StoriesScene) -> str:
        return ". ".join(map(state_text, scene.states))

    def narrated(self, scene: StoriesScene) -> tuple[str, ...]:
        """What is told with each picture."""
        told = (told_text(state[0], *event) for state, event in zip(scene.states, scene.events, strict=False))
        return (f"There is {state_text(scene.states[0]).replace('; ', ' and ')}.", *told)

    def questions(
        self, scene: StoriesScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()
    ) -> list[Question]:
        dice = Dice(rng, 64 * (count + 2))
        return self.collect(dice, count, families, lambda family: ASK[family](scene, dice))


def beginning(dice: Dice) -> State:
    """Two figures, alike in nothing."""
    colours, shapes, places = (dice.shuffled(names)[:2] for names in (COLOURS, SHAPES, PLACES))
    return tuple(Figure(dice.pick(SIZES), *one) for one in zip(colours, shapes, places, strict=True))


def changed(state: State, kind: str, dice: Dice) -> str:
    """A new value of the hero's that nobody has yet."""
    taken = {getattr(one, kind) for one in (state[:1] if kind == "size" else state)}
    return dice.pick([value for value in KINDS[kind] if value not in taken])


def misdrawn(state: State, faults: int, dice: Dice) -> State:
    """What an author shows who gets so many things per mille wrong."""
    hero, *others = state
    if dice(1000) < faults:
        kind = dice.pick(list(KINDS))
        hero = after(state, kind, changed(state, kind, dice))[0]
    if dice(1000) < faults:
        kind = dice.pick(["colour", "shape"])
        others = [after((others[0], hero), kind, changed((others[0], hero), kind, dice))[0]]
    return (hero, *others) if 2 * dice(1000) >= faults else (hero,)


def mistold(scene: StoriesScene, dice: Dice) -> str:
    """What such an author tells: of somebody else, what is no news, something else than is shown, or nothing that can be read."""
    before, (kind, value) = scene.states[0], scene.events[0]
    teller = before[0]
    if dice(1000) < scene.faults:
        teller = Figure(teller.size, dice.pick(COLOURS), dice.pick(SHAPES), teller.place)
    if 2 * dice(1000) < scene.faults:
        kind = dice.pick(list(KINDS))
        value = changed(before, kind, dice)
    if dice(1000) < scene.faults:
        value = getattr(before[0], kind)
    sentence = told_text(teller, kind, value)
    return sentence if 2 * dice(1000) >= scene.faults else " ".join(reversed(sentence.strip(".").split())) + "."


def _event(scene: StoriesScene, dice: Dice) -> Question:
    step = dice(len(scene.events))
    kinds = tuple(dice.shuffled(list(KINDS)))
    text = dice.pick(("What changes from the {} picture to the next?", "What is new behind the {} picture?"))
    return Question("event", text.format(ORDINALS[step]), scene.events[step][0], kinds)


def _now(scene: StoriesScene, dice: Dice) -> Question:
    kind = dice.pick(list(KINDS))
    value = getattr(scene.states[-1][0], kind)
    rest = [other for other in KINDS[kind] if other != value]
    options = tuple(dice.shuffled([value, *dice.shuffled(rest)[:3]]))
    return Question("now", f"Which {kind} has the thing that changes in the last picture?", value, options)


def _same(scene: StoriesScene, dice: Dice) -> Question | None:
    yes = dice(2) == 1
    first, last = scene.states[0][0], scene.states[-1][0]
    fitting = [kind for kind in KINDS if (getattr(first, kind) == getattr(last, kind)) == yes]
    if not fitting:
        return None
    text = f"Has the thing that changes the same {dice.pick(fitting)} in the last picture as in the first?"
    return Question("same", text, "yes" if yes else "no", ("yes", "no"), trap=not yes)


def _score(scene: StoriesScene, dice: Dice) -> Question:
    before, sentence = scene.states[0], mistold(scene, dice)
    named = " and a ".join(one.name for one in before)
    text = f"Picture 1: a {named}. Picture 2: {sentence} Score 0 to {POINTS}?"
    return Question("score", text, str(oracle(before, sentence, scene.states[-1])), SCORES)


ASK: dict[str, Callable[[StoriesScene, Dice], Question | None]] = {
    "event": _event,
    "now": _now,
    "same": _same,
    "score": _score,
}
