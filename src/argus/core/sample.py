"""A sample: a conversation with typed parts, its target, and where it came from.

The parts follow the chat format of transformers, `[{"role": ..., "content": [{"type": "image"}, {"type": "text",
"text": ...}]}]`, so `Sample.chat()` goes straight into `processor.apply_chat_template`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL.Image import Image

Role = Literal["system", "user", "assistant"]


@dataclass(slots=True)
class TextPart:
    """Plain text."""

    text: str
    type: Literal["text"] = "text"


@dataclass(slots=True)
class ImagePart:
    """A picture: a path, encoded bytes (PNG, JPEG, WebP) or a decoded `PIL.Image.Image`."""

    image: Path | bytes | Image
    type: Literal["image"] = "image"


@dataclass(slots=True)
class VideoPart:
    """A video: a path, or its decoded frames with their times in seconds."""

    video: Path | list[Image]
    times: list[float] | None = None
    type: Literal["video"] = "video"


@dataclass(slots=True)
class BoxPart:
    """A box (x1, y1, x2, y2) in relative coordinates 0..1 of picture number `image` of the sample."""

    box: tuple[float, float, float, float]
    label: str = ""
    image: int = 0
    type: Literal["box"] = "box"


@dataclass(slots=True)
class PointPart:
    """A point (x, y) in relative coordinates 0..1 of picture number `image` of the sample."""

    point: tuple[float, float]
    label: str = ""
    image: int = 0
    type: Literal["point"] = "point"


Part = TextPart | ImagePart | VideoPart | BoxPart | PointPart


@dataclass(slots=True)
class Message:
    """One turn."""

    role: Role
    content: list[Part]

    def text(self) -> str:
        """The turn's text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(slots=True)
class Sample:
    """One training or evaluation item.

    Args:
        id: unique within its source.
        messages: the turns. For training the last is the assistant's; for evaluation it is the user's.
        target: the right answer, for evaluation.
        options: the candidate answers of a multiple-choice item, the right one among them.
        metadata: whatever else the source knows: family, boxes, facts, seed, file and line.
    """

    id: str
    messages: list[Message]
    target: str | None = None
    options: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def images(self) -> list[Path | bytes | Image]:
        """The pictures, in the order in which the conversation shows them."""
        return [part.image for m in self.messages for part in m.content if isinstance(part, ImagePart)]

    def instruction(self) -> str:
        """What is asked first, as far as its first line: what comes behind is how to answer."""
        asked = (m.text().strip() for m in self.messages if m.role == "user")
        return next((text.splitlines()[0].strip() for text in asked if text), "")

    def chat(self) -> list[dict[str, Any]]:
        """The conversation in transformers' chat format; pictures are placeholders, boxes and points are written out."""
        return [{"role": m.role, "content": [_chat_part(p) for p in m.content]} for m in self.messages]


def in_words(message: Message, text: str) -> Message:
    """A turn with a line of text in front of it in the place of its pictures."""
    rest = [part for part in message.content if not isinstance(part, ImagePart)]
    return Message(message.role, [TextPart(f"{text}\n"), *rest])


def box_text(box: tuple[float, float, float, float]) -> str:
    """A box as models write it: four integers 0..99 of a 100 x 100 grid, `[x1, y1, x2, y2]`."""
    return "[" + ", ".join(str(min(99, max(0, int(v * 100)))) for v in box) + "]"


def _chat_part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            return {"type": "image"}
        case VideoPart():
            return {"type": "video"}
        case BoxPart():
            return {"type": "text", "text": box_text(part.box)}
        case PointPart():
            x, y = (min(99, max(0, int(v * 100))) for v in part.point)
            return {"type": "text", "text": f"[{x}, {y}]"}
