"""Stories: what happens is what is told, what is told is what is drawn, and an oracle knows how well somebody went on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from argus.core.registry import build
from argus.world.data import conversation
from argus.world.object_scene import PALETTE, PLACES
from argus.world.telling import after, drawn, oracle, points, read_state, read_told, state_text


def test_each_step_changes_one_thing_of_the_hero_and_nothing_else() -> None:
    domain, kinds = build("domain", "stories", {"steps": 4}), Counter[str]()
    for index in range(200):
        scene = domain.scene(domain.rng("test", index))
        assert len(scene.states) == 5
        for before, now, (kind, value) in zip(scene.states, scene.states[1:], scene.events, strict=False):
            kinds[kind] += 1
            assert now == after(before, kind, value) != before
            assert now[1:] == before[1:]
            assert len({one.place for one in now}) == 2
    assert max(kinds.values()) < 1.2 * 200


def test_pictures_show_the_states_on_one_ground() -> None:
    """Every figure's colour is found in its quarter, and a change of the hero changes no pixel of the other one's quarter."""
    domain = build("domain", "stories")
    for index in range(20):
        drawing = domain.draw("test", index)
        assert len(drawing.shown) == 3
        assert np.array_equal(drawing.shown[-1], drawing.pixels)
        quarters = [
            {place: frame[48 * (n // 2) :, 48 * (n % 2) :][:48, :48] for n, place in enumerate(PLACES)} for frame in drawing.shown
        ]
        for state, quarter in zip(drawing.scene.states, quarters, strict=True):
            for one in state:
                assert (quarter[one.place] == PALETTE[one.colour]).all(-1).sum() > 20
        other = drawing.scene.states[0][1]
        assert all(np.array_equal(quarter[other.place], quarters[0][other.place]) for quarter in quarters)


def test_what_is_told_is_read_back() -> None:
    domain = build("domain", "stories", {"steps": 3})
    for index in range(50):
        scene = domain.scene(domain.rng("train", index))
        told = domain.narrated(scene)
        for state, sentence, (kind, value) in zip(scene.states, told[1:], scene.events, strict=False):
            assert read_told(sentence) == (state[0].name, kind, value)
        for state in scene.states:
            assert read_state(state_text(state)) == state
    assert read_told("The red star moves.") is None
    assert read_state("a large red star at the top left; a small blue ring at the top left") is None  # one upon the other


def test_a_step_as_it_happened_gets_all_points() -> None:
    domain = build("domain", "stories")
    for index in range(50):
        scene = domain.scene(domain.rng("validation", index))
        for before, now, sentence in zip(scene.states, scene.states[1:], domain.narrated(scene)[1:], strict=False):
            assert oracle(before, sentence, now) == 6


def test_judged_continuations_lose_every_point_and_get_every_score() -> None:
    domain = build("domain", "stories", {"judged": True})
    scores, lost = Counter[str](), Counter[str]()
    for index in range(400):
        drawing = domain.draw("train", index, 32, 2, ("score",))
        assert len(drawing.shown) == 2
        before, shown = drawing.scene.states
        for question in drawing.questions:
            sentence = question.text.partition("Picture 2: ")[2].partition(" Score")[0]
            found = points(before, sentence, shown)
            assert question.answer == str(sum(found.values()))
            scores[question.answer] += 1
            lost.update(name for name, got in found.items() if not got)
    assert set(scores) == set(map(str, range(7)))
    assert min(scores.values()) > 30
    assert len(lost) == 6
    assert min(lost.values()) > 100


def test_a_conversation_about_several_pictures_shows_all_of_them_at_once() -> None:
    sample = conversation(build("domain", "stories", {"judged": True}).draw("train", 3, 64, 3, ("score",)))
    assert len(sample.images()) == 2
    assert [len([p for p in m.content if p.type == "image"]) for m in sample.messages[::2]] == [2, 0, 0]


@pytest.mark.parametrize("size", [64, 200])
def test_a_description_is_drawn_at_any_size(size: int) -> None:
    pixels = drawn("There is a large red star at the bottom right, they say.", size)
    assert pixels is not None
    assert pixels.shape == (size, size, 3)
    red = (pixels == PALETTE["red"]).all(-1)
    assert red[size // 2 :, size // 2 :].sum() == red.sum() > 60
    assert drawn("a sunset") is None
