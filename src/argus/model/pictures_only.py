"""Processors of models that also take videos, read without torchvision.

transformers reads a video processor with every processor that can have one, and video processors need torchvision; image
processors come in a version on PIL. So without torchvision, such a processor is read without its video processor: pictures and
text pass as ever, and videos are refused.
"""

from __future__ import annotations

from typing import Any

from transformers import PROCESSOR_MAPPING, AutoProcessor, PretrainedConfig
from transformers.utils import is_torchvision_available

from argus.core.errors import UnsupportedError

VIDEOS = "video_processor"


def read_processor(place: str, config: PretrainedConfig, **options: Any) -> Any:
    """The processor that is stored beside a model with this config."""
    kind: Any = PROCESSOR_MAPPING.get(type(config), None)
    if is_torchvision_available() or kind is None or VIDEOS not in kind.get_attributes():
        return AutoProcessor.from_pretrained(place, **options)
    return pictures_only(kind).from_pretrained(place, **options)


def pictures_only(kind: type) -> Any:
    """A processor's class without its video processor; saved and shown under its own name."""
    return type(kind.__name__, (_PicturesOnly, kind), {})


class _PicturesOnly:
    """Leaves out the video processor."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return [name for name in super().get_attributes() if name != VIDEOS]  # type: ignore[misc]

    def __call__(self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **options: Any) -> Any:
        if videos is not None:
            raise UnsupportedError(
                "this processor was read without its video processor, which needs torchvision.", hint="pip install torchvision"
            )
        return super().__call__(images=images, text=text, audio=audio, **options)  # type: ignore[misc]
