"""Stories with pictures as MMIE asks them (arXiv 2410.10139)."""

from __future__ import annotations

from argus.core.sample import ImagePart, Message, Sample, TextPart

from ..conftest import picture

BEFORE = "a large red star at the top left; a small blue ring at the bottom right"


def parts(*texts):
    """Parts of texts; one that ends with `+` has a picture."""
    found = []
    for number, text in enumerate(texts):
        found += [TextPart(text.strip("+")), *([ImagePart(picture(number))] if text.endswith("+") else [])]
    return found


def story(number: int = 0, prefix: str = "SA", asked=("Q1+", "Q2"), **known) -> Sample:
    return Sample(f"{prefix}{number}", [Message("user", parts(*asked))], None, [], {"family": prefix, **known})
