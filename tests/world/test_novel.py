"""Episodes of made-up words: demonstrations tell what a word means, and nothing else does."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from argus.core.registry import build
from argus.world.data import conversation
from argus.world.domain import COLOURS, Drawing
from argus.world.novel import WORDINGS, WORDS


def drawn(index: int, count: int = 5, **options: Any) -> Drawing:
    return build("domain", "novel", options).draw("test", index, 64, count)


def test_demonstrations_share_the_words_of_their_episode() -> None:
    """Each shows one colour with its word; the asked colour is one of them, and every question has its word for an answer."""
    for index in range(30):
        drawing = drawn(index)
        scene, words = drawing.scene, dict(drawing.scene.words)
        assert len(words) == len(set(words.values())) == len(drawing.demonstrations) == 4
        for shown, picture, (colour, word) in zip(drawing.demonstrations, scene.shown, scene.words, strict=True):
            assert {thing.colour for thing in picture.things} == {colour}
            assert shown.answer == word
            assert shown.pixels is not None
        assert {thing.colour for thing in scene.picture.things} == {scene.colour}
        assert {q.answer for q in drawing.questions} == {f"{scene.colour} {words[scene.colour]}"}
        assert all(set(q.options) == {f"{scene.colour} {word}" for word in words.values()} for q in drawing.questions)


def test_pixels_have_the_colour_that_the_word_means() -> None:
    """One plain thing on a plain ground: the query's colour is that of one demonstration's picture, and only of that one."""
    from argus.world.object_scene import PALETTE

    domain = build("domain", "novel", {"max_objects": 1, "ground": "plain"})
    checked = 0
    for index in range(60):
        drawing = domain.draw("test", index, 96, 1)
        pictures = [*drawing.scene.shown, drawing.scene.picture]
        pixels = [*(d.pixels for d in drawing.demonstrations), drawing.pixels]
        for picture, image in zip(pictures, pixels, strict=True):
            thing = picture.things[0]
            if thing.texture == "plain":
                expected = [v + j for v, j in zip(PALETTE[thing.colour], thing.jitter, strict=True)]
                inside = (abs(image.astype(int) - [min(255, max(0, v)) for v in expected]).sum(-1) == 0).sum()
                assert inside > 15
                checked += 1
    assert checked > 40


def test_words_mean_nothing_by_themselves() -> None:
    """Over episodes a colour has every word about equally often, and so has the place of the asked demonstration."""
    pairs, places = Counter[str](), Counter[int]()
    for index in range(800):
        domain = build("domain", "novel")
        scene = domain.scene(domain.rng("test", index))
        pairs.update(word for colour, word in scene.words if colour == "red")
        places[[colour for colour, _ in scene.words].index(scene.colour)] += 1
    assert max(places.values()) < 1.3 * 200
    assert max(pairs.values()) < 3 * sum(pairs.values()) / len(WORDS)


@pytest.mark.parametrize("told", ["demonstrations", "all"])
def test_told_in_words(told: str) -> None:
    """Who is told names the colour and shows no picture; questions that are told ask about any colour of the episode."""
    asked = set()
    for index in range(20):
        drawing = drawn(index, told=told)
        words = dict(drawing.scene.words)
        for shown, (colour, word) in zip(drawing.demonstrations, drawing.scene.words, strict=True):
            assert shown.answer == f"{colour} {word}"
            assert shown.pixels is None
            assert shown.text in {wording.format(colour) for wording in WORDINGS}
        for question in drawing.questions:
            named = [colour for colour in COLOURS if colour in question.text.strip("?.").split()]
            assert named == ([question.answer.split()[0]] if told == "all" else [])
            assert question.answer in {f"{colour} {word}" for colour, word in words.items()}
        asked.add(len({q.answer for q in drawing.questions}))
    assert max(asked) == (1 if told == "demonstrations" else 4)
    again = drawn(3, told=told)
    assert drawn(3).scene == again.scene  # the same episode, told otherwise


def test_a_conversation_shows_demonstrations_first() -> None:
    drawing = drawn(5, count=1)
    sample = conversation(drawing)
    assert [m.role for m in sample.messages] == ["user", "assistant"] * 5
    assert len(sample.images()) == 5
    assert [m.text() for m in sample.messages[1:-1:2]] == [d.answer for d in drawing.demonstrations]
    assert len(conversation(drawn(5, count=1, told="demonstrations")).images()) == 1
