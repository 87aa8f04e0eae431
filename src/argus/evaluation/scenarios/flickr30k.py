"""Flickr30k as ChEF asks it (arXiv 2311.02692): which of four captions is this picture's, or: write one.

    meta_file/Caption_flickr30k.json     {"image": ..., "sentences": ["Two dogs ...", ...]}

`wrong: random` takes three captions of other pictures by lot, `wrong: similar` the three of the twenty most similar to the
right one by MiniLM that are not its picture's own (chance 25 %; the right one is drawn from the picture's sentences). The
inferencer `ppl` chooses by likelihood. `wrong: none` gives no options: written captions are scored by `bleu`, `rouge_l` and
`cider` against all sentences, the metadata `answers`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from argus.core.errors import DataError
from argus.core.formats import field_of
from argus.core.sample import Sample
from argus.evaluation.scenarios.meta_file import MetaFile, MetaFileOptions
from argus.evaluation.taxonomy import Dimension

WRONG, NEAREST = 3, 20


class Flickr30kOptions(MetaFileOptions):
    """The download, and which captions are wrong."""

    wrong: Literal["random", "similar", "none"] = Field(
        "random", description="by lot, the most similar (extra `captions`), or no options at all"
    )


class Flickr30k(MetaFile):
    """Reads Caption_flickr30k.json."""

    Options = Flickr30kOptions
    options: Flickr30kOptions
    file_name = "meta_file/Caption_flickr30k.json"
    benchmark = "flickr30k"
    dimensions = (Dimension(1, "caption", ()),)

    @cached_property
    def captions(self) -> list[str]:
        """All sentences of the set."""
        rows = (found[0] for found in self.records() if not isinstance(found, DataError))
        lists = (row.get("sentences") for row in rows if isinstance(row, dict))
        # other rows are set aside where they are asked
        return [s for of in lists if isinstance(of, list) for s in of if isinstance(s, str)]

    @cached_property
    def embedded(self) -> np.ndarray:
        """(sentences, E) of length 1."""
        from argus.evaluation.sentences import SentenceEncoder

        return np.asarray(SentenceEncoder()(self.captions))

    def sample(self, record: dict[str, Any], dimension: Dimension, where: str) -> Sample:
        own = field_of(record, "sentences", list, f"{where}, field 'sentences'")
        if not own or not all(isinstance(s, str) and s.strip() for s in own):
            raise DataError("expected a list of sentences", where=f"{where}, field 'sentences'")
        lot = self.lot(record)
        right = lot.choice(own)
        options: list[str] = []
        if self.options.wrong != "none":
            others = self.similar(right, own) if self.options.wrong == "similar" else [s for s in self.captions if s not in own]
            if len(others) < WRONG:
                raise DataError(f"there are only {len(others)} captions of other pictures", where=where)
            options = [*(others[:WRONG] if self.options.wrong == "similar" else lot.sample(others, WRONG)), right]
            lot.shuffle(options)
        text = "Describe the picture in one sentence."
        return self.asked_about(record, where, text, right, options, answers=[s for s in own if s != right])

    def similar(self, right: str, own: list[str]) -> list[str]:
        """Captions of other pictures among the most similar ones."""
        near = np.argsort(-(self.embedded @ self.embedded[self.captions.index(right)]), kind="stable")[:NEAREST]
        return list(dict.fromkeys(self.captions[i] for i in near if self.captions[i] not in own))
