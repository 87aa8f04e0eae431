"""Clips: short videos of coloured shapes in which a few things happen, one after the other.

The frames of a clip share their ground. Its events stand in slots of equal length, each with a thing and a kind of its own:
something appears, vanishes, changes its colour, or moves left, right, up or down, at an even speed through its slot.

    frame    0   1   2   3 | 4   5   6   7      slots of two events in eight frames
             ring: vanishes  star: moves left

What is known of a clip is exact: every frame is a scene of `objects`, and the frame behind the last one is known, too, so that
the next picture can be asked for (`next_frame`). Its wrong options are the ones that a careless eye takes: nothing went on,
everything went back, or it began again. Two frames and one event make a pair of pictures with one difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from argus.core.registry import Options
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, Domain, Question
from argus.world.object_scene import UNIT, ObjectsScene, Thing
from argus.world.objects import Objects, ObjectsOptions

TRAVEL = 300  # in 1/960 of the side: how far a thing moves within its slot
LETTERS = ("A", "B", "C", "D")
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
MOVES = {f"moves {way}": step for way, step in WAYS.items()}
KINDS = ("appears", "vanishes", "changes its colour", *MOVES)
STAYS = "stays as it is"
TRIES = 40  # places that are tried for a thing before the clip is begun anew


class ClipsOptions(Options):
    """How long and how eventful clips are."""

    length: int = Field(8, ge=2, le=32, description="frames of a clip")
    events: int = Field(2, ge=1, le=3, description="things that something happens to, one after the other")
    max_objects: int = Field(3, ge=2, le=4, description="most things in a clip; there are at least two")
    last: Literal["any", "movement"] = Field("any", description="what the last event may be; a movement can be continued")
    ground: Literal["plain", "varied"] = Field("varied", description="plain, or with gradients, stripes and noise")

    @model_validator(mode="after")
    def _room(self) -> ClipsOptions:
        if self.events > self.max_objects:
            raise ValueError(f"events {self.events} exceeds max_objects {self.max_objects}: each event has a thing of its own")
        if self.events >= self.length:
            raise ValueError(f"{self.events} events need more than {self.length} frames")
        return self


@dataclass(frozen=True, slots=True)
class Event:
    """What happens to a thing between two frames; `colour` is the one that it turns."""

    thing: Thing
    kind: str
    start: int
    end: int
    colour: str = ""

    @property
    def text(self) -> str:
        return f"the {self.thing.shape} {self.kind}"

    def at(self, frame: int) -> Thing | None:
        """The thing in a frame; a movement goes on behind its end."""
        done = frame >= self.start + (self.end - self.start + 1) // 2
        if self.kind in MOVES:
            x, y = MOVES[self.kind]
            way = TRAVEL * max(0, frame - self.start) // (self.end - self.start)
            return replace(self.thing, x=self.thing.x + x * way, y=self.thing.y + y * way)
        if self.kind == "changes its colour":
            return replace(self.thing, colour=self.colour) if done else self.thing
        return self.thing if done == (self.kind == "appears") else None


@dataclass(frozen=True, slots=True)
class ClipScene:
    """Frames in their order, what happens, and to which things nothing does."""

    frames: tuple[ObjectsScene, ...]
    events: tuple[Event, ...] = ()
    idle: tuple[Thing, ...] = ()

    @property
    def things(self) -> tuple[Thing, ...]:
        return (*(event.thing for event in self.events), *self.idle)

    def frame(self, number: int) -> ObjectsScene:
        """A frame; those behind the last one, too, in which the last movement goes on."""
        moved = [event.at(min(number, event.end) if event is not self.events[-1] else number) for event in self.events]
        return replace(self.frames[0], things=tuple(thing for thing in (*self.idle, *moved) if thing is not None))


class Clips(Domain):
    """Short videos with exact events."""

    Options = ClipsOptions
    options: ClipsOptions
    name = "clips"
    families = ("action", "which", "happens", "first", "procedure", "turns", "prediction")
    more_families = ("next_frame",)

    def __init__(self, options: ClipsOptions) -> None:
        super().__init__(options)
        self.objects = Objects(ObjectsOptions.model_validate({"ground": options.ground}))

    def scene(self, rng: np.random.Generator) -> ClipScene:
        dice, o = Dice(rng, 128), self.options
        base = replace(self.objects.scene(rng), things=())
        low = max(2, o.events)
        while True:
            count = low + dice(o.max_objects - low + 1)
            kinds = [*dice.shuffled(KINDS)[: o.events], *[STAYS] * (count - o.events)]
            if o.last == "movement" and kinds[o.events - 1] not in MOVES:
                continue
            shapes, colours = dice.shuffled(SHAPES), dice.shuffled(COLOURS)
            placed: list[tuple[Thing, str]] = []
            for kind, shape, colour in zip(kinds, shapes, colours, strict=False):
                for _ in range(TRIES):
                    thing = replace(_thing(dice), shape=shape, colour=colour)
                    if _inside(thing, kind, o) and all(_apart(_swept(thing, kind, o), _swept(*other, o)) for other in placed):
                        placed.append((thing, kind))
                        break
            if len(placed) == count:
                break
        slots = [round(k * (o.length - 1) / o.events) for k in range(o.events + 1)]
        events = tuple(
            Event(thing, kind, slots[k], slots[k + 1], colours[count + k]) for k, (thing, kind) in enumerate(placed[: o.events])
        )
        clip = ClipScene((base,), events, tuple(thing for thing, _ in placed[o.events :]))
        return replace(clip, frames=tuple(clip.frame(number) for number in range(o.length)))

    def render(self, scene: ClipScene, size: int) -> np.ndarray:
        """The last frame."""
        return self.objects.render(scene.frames[-1], size)

    def frames(self, scene: ClipScene, size: int) -> tuple[np.ndarray, ...]:
        return tuple(self.objects.render(frame, size) for frame in scene.frames)

    def boxes(self, scene: ClipScene) -> tuple[tuple[float, float, float, float], ...]:
        return self.objects.boxes(scene.frames[-1])

    def dense(self, scene: ClipScene, grid: int) -> dict[str, np.ndarray]:
        return self.objects.dense(scene.frames[-1], grid)

    def maps(self, scene: ClipScene, size: int) -> dict[str, np.ndarray]:
        return self.objects.maps(scene.frames[-1], size)

    def describe(self, scene: ClipScene) -> str:
        turns = {event: f" ({event.thing.colour} to {event.colour})" for event in scene.events if "colour" in event.kind}
        happens = ", then ".join(event.text + turns.get(event, "") for event in scene.events)
        return f"{self.objects.describe(scene.frames[0])}; {happens}"

    def questions(self, scene: ClipScene, rng: np.random.Generator, count: int, families: tuple[str, ...] = ()) -> list[Question]:
        dice = Dice(rng, 64 * (count + 1))
        return self.collect(dice, count, families, lambda family: ASK[family](scene, dice))


def _thing(dice: Dice) -> Thing:
    """A thing of medium size anywhere; what happens to it decides whether it may stand there."""
    d = 170 + dice(41)
    return Thing("", "", "plain", "medium", dice(UNIT - d), dice(UNIT - d), d, 5 * (dice(5) - 2), (0, 0, 0))


def _swept(thing: Thing, kind: str, options: ClipsOptions) -> tuple[int, int, int, int]:
    """The box that a thing passes through, the frame behind the last one included."""
    x, y = MOVES.get(kind, (0, 0))
    way = TRAVEL + TRAVEL // max(1, (options.length - 1) // options.events)
    left, top = thing.x + min(0, x * way), thing.y + min(0, y * way)
    return left, top, left + thing.d + abs(x * way), top + thing.d + abs(y * way)


def _inside(thing: Thing, kind: str, options: ClipsOptions) -> bool:
    left, top, right, bottom = _swept(thing, kind, options)
    return min(left, top) >= 0 and max(right, bottom) <= UNIT


def _apart(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


# -- questions: each returns None where the clip has nothing to ask of its kind


def _action(scene: ClipScene, dice: Dice) -> Question | None:
    event = dice.pick(scene.events)
    thing, answer = event.thing, event.kind
    if scene.idle and dice(len(KINDS) + 1) == 0:
        thing, answer = dice.pick(scene.idle), STAYS
    others = dice.shuffled([kind for kind in (*KINDS, STAYS) if kind != answer])[:3]
    text = dice.pick((f"What happens to the {thing.shape}?", f"What does the {thing.shape} do?"))
    return Question("action", text, answer, tuple(dice.shuffled([answer, *others])))


def _which(scene: ClipScene, dice: Dice) -> Question | None:
    event = dice.pick(scene.events)
    here = [thing.shape for thing in scene.things if thing is not event.thing]  # they are there, too
    absent = dice.shuffled([shape for shape in SHAPES if shape not in (*here, event.thing.shape)])
    options = dice.shuffled([event.thing.shape, *[*here, *absent][:3]])
    return Question("which", f"Which thing {event.kind}?", event.thing.shape, tuple(options))


def _happens(scene: ClipScene, dice: Dice) -> Question | None:
    event, yes, trap = dice.pick(scene.events), dice(2) == 1, False
    kind = event.kind
    if not yes:
        seen = [other.kind for other in scene.events if other is not event]
        trap = bool(seen) and dice(2) == 1  # it happens, but to another thing
        kind = dice.pick(seen) if trap else dice.pick([k for k in KINDS if k not in (*seen, event.kind)])
    text = dice.pick(("Is it true that the {} {}?", "Can you see that the {} {}?")).format(event.thing.shape, kind)
    return Question("happens", text, "yes" if yes else "no", ("yes", "no"), trap=trap)


def _first(scene: ClipScene, dice: Dice) -> Question | None:
    if len(scene.events) < 2:
        return None
    pair = sorted(dice.shuffled(range(len(scene.events)))[:2])
    options = dice.shuffled([scene.events[i].text for i in pair])
    early = dice(2) == 1
    text = dice.pick(("Which of the two happens {}?", "What happens {}?")).format("earlier" if early else "later")
    return Question("first", text, scene.events[pair[0 if early else 1]].text, tuple(options))


def _procedure(scene: ClipScene, dice: Dice) -> Question | None:
    """The right order, the wrong one, and both with the events of the wrong things."""
    if len(scene.events) < 2:
        return None
    a, b = (scene.events[i] for i in sorted(dice.shuffled(range(len(scene.events)))[:2]))
    c, d = f"the {a.thing.shape} {b.kind}", f"the {b.thing.shape} {a.kind}"
    pairs = ((a.text, b.text), (b.text, a.text), (c, d), (d, c))
    options = [f"{first}, then {second}" for first, second in pairs]
    text = dice.pick(("What happens, in this order?", "What is the order of events?"))
    return Question("procedure", text, options[0], tuple(dice.shuffled(options)))


def _turns(scene: ClipScene, dice: Dice) -> Question | None:
    event = next((event for event in scene.events if event.kind == "changes its colour"), None)
    if event is None:
        return None
    others = dice.shuffled([c for c in COLOURS if c not in (event.colour, event.thing.colour)])[:2]  # and the one it had
    options = dice.shuffled([event.colour, event.thing.colour, *others])
    text = dice.pick(("What colour does the {} turn?", "Which colour does the {} have at the end?"))
    return Question("turns", text.format(event.thing.shape), event.colour, tuple(options))


def _prediction(scene: ClipScene, dice: Dice) -> Question | None:
    event = scene.events[-1]
    if event.kind not in MOVES:
        return None
    text = dice.pick(("The clip goes on. Where will the {} move?", "Where does the {} go next?")).format(event.thing.shape)
    return Question("prediction", text, event.kind.removeprefix("moves "), tuple(dice.shuffled(list(WAYS))))


def _next_frame(scene: ClipScene, dice: Dice) -> Question | None:
    """The frame behind the last one, among the last one itself, the one before it, and the first one."""
    if scene.events[-1].kind not in MOVES or len(scene.frames) < 3:
        return None
    count = len(scene.frames)
    drawn = [ClipScene((scene.frame(number),)) for number in (count, count - 1, count - 2, 0)]
    order = dice.shuffled(range(len(LETTERS)))
    options = tuple(drawn[place] for place in order)
    text = dice.pick(("Which picture comes next?", "What does the next frame look like?"))
    return Question("next_frame", text, LETTERS[order.index(0)], LETTERS, drawn=options)


ASK: dict[str, Callable[[ClipScene, Dice], Question | None]] = {
    "action": _action,
    "which": _which,
    "happens": _happens,
    "first": _first,
    "procedure": _procedure,
    "turns": _turns,
    "prediction": _prediction,
    "next_frame": _next_frame,
}
