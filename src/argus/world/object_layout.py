"""Things of a scene, moved and repainted: one laid on another, shapes with their companions, or none with its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from argus.world.domain import COLOURS, SHAPES
from argus.world.object_scene import UNIT, Thing

COMPANIONS = dict(zip(SHAPES[::2], SHAPES[1::2], strict=True))  # leading shape -> its companion's


def together(things: Sequence[Thing]) -> tuple[Thing, ...]:
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


def apart(things: Sequence[Thing]) -> tuple[Thing, ...]:
    """The things, no leading shape with its companion: companions of what is there take the next colour that leads to nothing."""
    leads = {(t.colour, COMPANIONS[t.shape]) for t in things if t.shape in COMPANIONS}
    out = []
    for thing in things:
        start = COLOURS.index(thing.colour)
        free = (c for c in (*COLOURS[start:], *COLOURS[:start]) if (c, thing.shape) not in leads)
        out.append(replace(thing, colour=next(free)))
    return tuple(out)


def piled(things: Sequence[Thing], share: float) -> tuple[Thing, ...]:
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
        if all(clear(moved, other) for j, other in enumerate(out) if j not in (i - 1, i)):
            out[i] = moved
    return tuple(out)


def _shared(a: Thing, b: Thing) -> int:
    """Area that two boxes share."""
    width = min(a.x + a.d, b.x + b.d) - max(a.x, b.x)
    height = min(a.y + a.d, b.y + b.d) - max(a.y, b.y)
    return max(width, 0) * max(height, 0)


def clear(a: Thing, b: Thing) -> bool:
    """Whether two boxes share at most an eighth of the smaller one."""
    return 8 * _shared(a, b) <= min(a.d, b.d) ** 2
