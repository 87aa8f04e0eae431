"""How a question about a scene of objects names a thing so that no other is meant, and what it offers as answers."""

from __future__ import annotations

from collections.abc import Sequence

from argus.world.dice import Dice
from argus.world.object_scene import ObjectsScene, Thing


def reference(scene: ObjectsScene, thing: Thing, hide: str = "") -> str | None:
    """The shortest phrase that only this thing fits, without naming the attribute `hide`."""
    for used in (("colour", "shape"), ("size", "colour", "shape"), ("texture", "colour", "shape")):
        names = [a for a in used if a != hide]
        key = [getattr(thing, a) for a in names]
        if sum([getattr(t, a) for a in names] == key for t in scene.things) == 1:
            words = " ".join(key)
            return words if "shape" in names else f"{words} thing"
    return None


def referable(scene: ObjectsScene, dice: Dice, hide: str = "") -> tuple[Thing, str] | None:
    """A random thing that can be referred to, with its phrase."""
    for thing in dice.shuffled(scene.things):
        phrase = reference(scene, thing, hide)
        if phrase:
            return thing, phrase
    return None


def choices(answer: str, names: Sequence[str], dice: Dice, count: int = 4) -> tuple[str, ...]:
    """The answer among `count` names, in random order."""
    others = dice.shuffled([n for n in names if n != answer])[: count - 1]
    return tuple(dice.shuffled([answer, *others]))


def two_named(scene: ObjectsScene, dice: Dice) -> tuple[Thing, str, Thing, str] | None:
    """Two random things that can be referred to, each with its phrase."""
    named = [(t, p) for t in dice.shuffled(scene.things) if (p := reference(scene, t))]
    return (*named[0], *named[1]) if len(named) > 1 else None
