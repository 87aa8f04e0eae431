"""What a scene of objects is: things on a ground, their places, colours and what of them can be seen.

Lengths are integers, in units of 1/960 of the picture's side, so that nothing hinges on the last bit of a float.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from argus.world.raster import pile

UNIT = 960  # relative units per side
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


def in_pixels(thing: Thing, size: int) -> tuple[str, int, tuple[int, int], int]:
    """Shape, rotation, place and side of a thing in a picture of this size, in pixels."""
    place = round(thing.x * size / UNIT), round(thing.y * size / UNIT)
    return thing.shape, thing.rotation, place, max(6, round(thing.d * size / UNIT))


@lru_cache(4096)
def _shade(colour: str, jitter: tuple[int, int, int]) -> tuple[int, int, int]:
    return tuple(min(255, max(0, v + j)) for v, j in zip(PALETTE[colour], jitter, strict=True))  # type: ignore[return-value]


def rgb(thing: Thing) -> tuple[int, int, int]:
    """Its colour, varied a little."""
    return _shade(thing.colour, thing.jitter)


@lru_cache(16)
def hiding(scene: ObjectsScene) -> tuple[tuple[Thing, Thing], ...]:
    """Pairs of things, front one first, of which the one hides at least `CONTACT` pixels of the other at 96 x 96."""
    owner, _ = pile([in_pixels(t, 96) for t in scene.things], 96)
    alone = [pile([in_pixels(t, 96)], 96)[0] > 0 for t in scene.things]
    pairs = combinations(range(len(scene.things)), 2)
    return tuple((scene.things[j], scene.things[i]) for i, j in pairs if ((owner == 1 + j) & alone[i]).sum() >= CONTACT)
