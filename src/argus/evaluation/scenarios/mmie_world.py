"""MMIE (arXiv 2410.10139) on the procedural world: stories that are to be gone on with, in words and pictures.

    There is a large red star ... [picture] The red star moves to the top right. [picture] What happens next?

An item shows all but the last step of a story of the domain `stories`. `facts` say what its last picture shows, so that
`scripted:continued` scores a continuation exactly, 0 to 6; the target is one that gets 6: the step itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from argus.core.errors import RecipeError
from argus.core.registry import Options, build
from argus.core.sample import ImagePart, Message, Part, Sample, TextPart
from argus.evaluation.scenarios.base import Group, Scenario
from argus.evaluation.scenarios.world import SEED_STRIDE
from argus.world.telling import state_text


class MMIEWorldOptions(Options):
    """Options of the scenario."""

    split: Literal["train", "validation", "test"] = Field("test", description="whose stories are told")
    size: int = Field(96, ge=32, le=2048, description="side of the pictures in pixels")
    ask: str = Field("Tell in one sentence what happens next, with its picture.", description="what is asked at the end")
    settings: dict[str, Any] = Field(default_factory=dict, description="options of the domain `stories`")


class MMIEWorld(Scenario):
    """Tells as many stories as there are questions."""

    Options = MMIEWorldOptions
    options: MMIEWorldOptions

    def __init__(self, options: MMIEWorldOptions) -> None:
        super().__init__(options)
        self.domain = build("domain", "stories", {**options.settings, "judged": False})

    def groups(self, samples: int | None, seed: int) -> Iterator[Group]:
        if samples is None:
            raise RecipeError("the world has no end; say how many samples", where="scenario 'mmie_world'")
        for index in range(seed * SEED_STRIDE, seed * SEED_STRIDE + samples):
            sample = self.item(index)
            yield Group(sample.id, [sample])

    def item(self, index: int) -> Sample:
        """The story of an index, without its end."""
        o = self.options
        drawing = self.domain.draw(o.split, index, o.size, 0)
        told, states = self.domain.narrated(drawing.scene), drawing.scene.states
        parts: list[Part] = []
        for sentence, pixels in zip(told[:-1], drawing.shown, strict=False):
            parts += [TextPart(f"{sentence} "), ImagePart(Image.fromarray(pixels))]
        parts.append(TextPart(o.ask))
        name = f"SA/{drawing.id}"
        known = {"family": "situational analysis", "domain": "stories", "picture": name, "facts": (state_text(states[-2]),)}
        return Sample(name, [Message("user", parts)], f"{told[-1]} <image>{state_text(states[-1])}</image>", [], known)
