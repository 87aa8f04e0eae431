"""The prefix-based score of LVLM-eHub (arXiv 2306.09265): shares of inverse losses, the mean over pictures."""

from __future__ import annotations

import numpy as np
import pytest

from argus.core.registry import build
from argus.core.sample import ImagePart
from argus.evaluation.inferencers.base import Question
from argus.evaluation.inferencers.prefix import shares

from .conftest import picture, question


def test_shares_of_inverse_losses() -> None:
    """Losses 1, 2, 4: softmax of 1, 0.5, 0.25."""
    found = shares([1.0, 2.0, 4.0])
    assert found == pytest.approx([0.4810, 0.2918, 0.2272], abs=5e-5)
    more = shares([1.0, 2.0, 4.0, 0.5])
    assert (np.diff(more[:3]) < 0).all()  # another candidate changes the shares, not the order of the others
    assert more[0] < found[0]
    assert np.isfinite(shares([0.0, 1.0])).all()


class Scored:
    """A model that says for each picture which losses it gives; remembers what it was shown."""

    def __init__(self, losses: dict[bytes, list[float]]) -> None:
        self.losses, self.asked = losses, []

    def score(self, questions, mean, end):
        self.asked += [(mean, end, len(q.images), len(q.sample.images())) for q in questions]
        return [[-loss for loss in self.losses[q.images[0].tobytes()]] for q in questions]


def test_every_picture_is_asked_about_by_itself_and_the_mean_decides() -> None:
    pictures = [picture(n) for n in range(3)]
    one = question(0, 0, "What colour is a fire engine?", ("red", "blue"))
    one.sample.messages[0].content[:1] = [ImagePart(p) for p in pictures]
    asked = Question("g", one.sample, pictures)
    losses = dict(zip((p.tobytes() for p in pictures), ([1.0, 2.0], [1.0, 2.0], [2.0, 1.5]), strict=True))
    model = Scored(losses)
    alone = Question("h", question(0, 1, "?", ("red", "blue")).sample, [pictures[2]])
    found, single = build("inferencer", "prefix").answer(model, [asked, alone])
    assert model.asked == [(True, False, 1, 1)] * 4
    assert found.text == "red"
    assert found.scores == pytest.approx(np.mean([shares(row) for row in losses.values()], axis=0))
    assert single.text == "blue"  # one picture: the least loss


def test_prefix_is_the_likeliest_per_token_for_one_picture(model, processor, questions) -> None:
    from argus.evaluation.local import LocalModel

    local = LocalModel(model, processor)
    plain = build("inferencer", "likelihood", {"normalise": "mean", "end": False})
    given = [a.text for a in build("inferencer", "prefix").answer(local, questions)]
    assert given == [a.text for a in plain.answer(local, questions)]
