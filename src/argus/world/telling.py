"""What a story says, in words and back: what a picture shows, what happens next, and how well a continuation goes on.

    shown     a large red star at the top left; a small blue ring at the bottom right            the first one is the hero
    told      The red star moves to the top right.  turns green.  becomes a heart.  becomes small.

An oracle gives a continuation - a sentence and a picture - a point for each of:

    1 told       the sentence says what happens            4 picture    there is one, of as many things as before
    2 hero       to the hero, as it was known              5 coherence  its hero is what the sentence makes of it
    3 news       and something changes by it               6 context    and everything else is as it was

It knows pictures by their descriptions; `drawn` draws a description, which stands in for a model that makes pictures from text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from argus.world.domain import COLOURS, SHAPES
from argus.world.object_scene import PLACES, UNIT, ObjectsScene, Thing
from argus.world.objects import Objects, ObjectsOptions

SIZES = ("small", "large")
POINTS = 6
KINDS: dict[str, tuple[str, ...]] = {"place": PLACES, "colour": COLOURS, "shape": SHAPES, "size": SIZES}
_SAYS = {"place": "moves to the {}", "colour": "turns {}", "shape": "becomes a {}", "size": "becomes {}"}
_ALL = {kind: "|".join(values) for kind, values in KINDS.items()}
_FIGURE = re.compile(rf"an? ({_ALL['size']}) ({_ALL['colour']}) ({_ALL['shape']}) at the ({_ALL['place']})")
_TOLD = re.compile(
    rf"^the ({_ALL['colour']}) ({_ALL['shape']}) "
    rf"(?:moves to the (?P<place>{_ALL['place']})|turns (?P<colour>{_ALL['colour']})"
    rf"|becomes an? (?P<shape>{_ALL['shape']})|becomes (?P<size>{_ALL['size']}))\.?$"
)


@dataclass(frozen=True, slots=True)
class Figure:
    """Someone in a story."""

    size: str
    colour: str
    shape: str
    place: str

    @property
    def name(self) -> str:
        """How it is called."""
        return f"{self.colour} {self.shape}"


State = tuple[Figure, ...]  # who is there, the hero first


def state_text(state: State) -> str:
    """What a picture shows."""
    return "; ".join(f"a {one.size} {one.name} at the {one.place}" for one in state)


def read_state(text: str) -> State | None:
    """Who is in a description; None where it describes nobody, or two at one place."""
    found = tuple(Figure(size, colour, shape, place) for size, colour, shape, place in _FIGURE.findall(text.lower()))
    return found if found and len({one.place for one in found}) == len(found) else None


def told_text(hero: Figure, kind: str, value: str) -> str:
    """A sentence that says what happens."""
    return f"The {hero.name} {_SAYS[kind].format(value)}."


def read_told(text: str) -> tuple[str, str, str] | None:
    """(who, kind of change, new value) of a sentence; None where it says nothing of the kind.

    >>> read_told("The red star turns blue.")
    ('red star', 'colour', 'blue')
    """
    found = _TOLD.match(" ".join(text.lower().split()))
    if not found:
        return None
    ((kind, value),) = ((k, v) for k, v in found.groupdict().items() if v)
    return f"{found[1]} {found[2]}", kind, value


def after(state: State, kind: str, value: str) -> State:
    """A state in which something has happened to the hero."""
    return (replace(state[0], **{kind: value}), *state[1:])


def points(before: State, sentence: str, shown: State | None) -> dict[str, bool]:
    """Which points a continuation gets.

    Args:
        before: the last state of the story.
        sentence: what is told.
        shown: who is in the picture; None where there is no picture, or none that shows anybody.
    """
    told = read_told(sentence)
    hero = told is not None and told[0] == before[0].name
    changed = told is not None and after(before, *told[1:]) != before and told[2] not in {one.place for one in before}
    return {
        "told": told is not None,
        "hero": hero,
        "news": changed,
        "picture": shown is not None and len(shown) == len(before),
        "coherence": told is not None and shown is not None and shown[0] == after(before, *told[1:])[0],
        "context": shown is not None and shown[1:] == before[1:],
    }


def oracle(before: State, sentence: str, shown: State | None) -> int:
    """How well a continuation goes on, 0 to 6."""
    return sum(points(before, sentence, shown).values())


def picture(state: Sequence[Figure], ground: ObjectsScene) -> ObjectsScene:
    """A state as a scene: everyone plain, in the middle of their quarter."""
    return replace(ground, things=tuple(map(_thing, state)))


def _thing(one: Figure) -> Thing:
    d, quarter = (150 if one.size == "small" else 320), PLACES.index(one.place)
    x, y = (UNIT // 4 + UNIT // 2 * side - d // 2 for side in (quarter % 2, quarter // 2))
    return Thing(one.colour, one.shape, "plain", one.size, x, y, d, 0, (0, 0, 0))


def drawn(description: str, size: int = 96) -> np.ndarray | None:
    """What a description describes, (size, size, 3) uint8; None where it describes nothing that can be drawn."""
    state = read_state(description)
    blank = ObjectsScene((), (225, 225, 225), 0, 0, 0)
    return None if state is None else Objects(ObjectsOptions.model_validate({})).render(picture(state, blank), size)
