"""CHAIR: which things of a caption are not in the picture (arXiv 1809.02156).

    CHAIR_S = captions with a hallucinated thing / captions
    CHAIR_I = hallucinated mentions / mentions          recall = things there that are mentioned / things there

The measurement is CHAIR_S, of which less is better; CHAIR_I and recall stand beside it as `chair[instances]` and `chair[recall]`.

In the procedural world a thing is a colour and a shape in one phrase ("a small red plain circle"); it is there if one of the
scene's facts names it. With `synonyms`, a file with a line of words per class, the first of them its name, a thing is a class:
the longest words win, plurals count. It is there if the sample's metadata `objects` names it, or its target or `references` do.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from pydantic import Field

from argus.core.errors import DataError
from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.captions import singular
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, Score
from argus.world.domain import COLOURS, SHAPES


class ChairOptions(Options):
    """Options of the metric."""

    synonyms: Path | None = Field(
        None, description="a class of things per line, its name and synonyms separated by commas; the world's things without it"
    )


class Chair(AnswerMetric):
    """Hallucinated things of captions."""

    Options = ChairOptions
    options: ChairOptions
    better = "lower"

    def applies(self, sample: Sample) -> bool:
        """Captions whose things are known."""
        known = "facts" if self.options.synonyms is None else "objects"
        return sample.target is not None and not sample.options and bool(sample.metadata.get(known))

    @cached_property
    def classes(self) -> dict[str, str]:
        """Word or words of a thing -> its class."""
        assert self.options.synonyms is not None  # asked for only where it is given
        if not self.options.synonyms.exists():
            raise DataError("there is no such list of synonyms", where=str(self.options.synonyms))
        lines = self.options.synonyms.read_text(encoding="utf-8").lower().splitlines()
        rows = [[word.strip() for word in line.split(",") if word.strip()] for line in lines]
        return {word: row[0] for row in rows if row for word in row}

    def score(self, sample: Sample, answer: Answer) -> Score:
        there = self.there(sample)
        said = self.mentions(answer.text)
        made_up = [thing for thing in said if thing not in there]
        ratios = {
            "instances": (float(len(made_up)), float(len(said))),
            "recall": (float(len(there & set(said))), float(len(there))),
        }
        return Score(float(bool(made_up)), "; ".join(dict.fromkeys(made_up)), ratios)

    def there(self, sample: Sample) -> set[str]:
        """The things in the picture."""
        if self.options.synonyms is None:
            return {thing for fact in sample.metadata["facts"] for thing in things(fact)}
        texts = [sample.target or "", *sample.metadata.get("references", [])]
        named = {self.classes.get(name.lower(), name.lower()) for name in sample.metadata["objects"]}
        return named | {thing for text in texts for thing in self.mentions(text)}

    def mentions(self, text: str) -> list[str]:
        """Every mention of a thing, in the text's order."""
        if self.options.synonyms is None:
            return things(text)
        words = re.findall(r"[a-z0-9'-]+", text.lower())
        found, at, longest = [], 0, max((len(w.split()) for w in self.classes), default=0)
        while at < len(words):
            for size in range(min(longest, len(words) - at), 0, -1):
                phrase = words[at : at + size]
                alike = (" ".join(phrase), " ".join([*phrase[:-1], singular(phrase[-1])]))
                known = next((self.classes[p] for p in alike if p in self.classes), None)
                if known:
                    found.append(known)
                    at += size - 1
                    break
            at += 1
        return found


def things(text: str) -> list[str]:
    """Colour and shape of each thing that a caption of the world mentions.

    >>> things("a small red plain circle at the top left; two blue stars")
    ['red circle', 'blue star']
    """
    found = []
    for phrase in re.split(r"[.;,!?\n]+|\band\b", text.lower()):
        words = [singular(word) for word in re.findall(r"[a-z]+", phrase)]
        colour = next((word for word in words if word in COLOURS), None)
        shape = next((word for word in words if word in SHAPES), None)
        if colour and shape:
            found.append(f"{colour} {shape}")
    return found
