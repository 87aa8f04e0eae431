"""Languages: one grammar, disjoint words, frequencies that hold, and an unseen language that is new every time."""

from __future__ import annotations

from collections import Counter

import pytest

from argus.core.registry import build
from argus.model.load import load
from argus.world.languages import FIRST, FREQUENCIES, MODIFIERS, NAMES, NOUNS, SECOND, TOPICS, UNSEEN, cipher
from argus.world.object_scene import PLACES

ALL = ("s2i", "i2s", "s2t", "t2s")


def topic_of(sentence: str, words: tuple[str, ...]) -> str:
    """Read a sentence with the dictionary, checking its grammar."""
    modifier, first, verb, second = (words.index(word) for word in sentence.strip(".").split())
    shared = NOUNS * len(NAMES)
    assert shared <= modifier < shared + MODIFIERS <= verb < len(words) - 1
    assert first != second
    assert first // NOUNS == second // NOUNS
    return NAMES[first // NOUNS]


def test_languages_are_ciphers_of_one_vocabulary() -> None:
    words = [cipher(language) for language in range(len(FREQUENCIES))]
    assert {len(one) for one in words} == {len(set(one)) for one in words} == {48}
    assert len({word for one in words for word in one}) == 5 * 48


def test_words_are_two_tokens() -> None:
    tokenizer = load("argus/tiny-vlm")[1].tokenizer
    firsts = [syllable for row in FIRST for syllable in row.split()]
    assert {len(tokenizer.tokenize(f" {a}{b}")) for a in firsts for b in SECOND} == {2}


def test_languages_are_met_by_their_frequencies() -> None:
    domain = build("domain", "languages")
    met = Counter(domain.scene(domain.rng("train", i)).language for i in range(4000))
    for language, frequency in enumerate(FREQUENCIES):
        share = frequency / sum(FREQUENCIES)
        assert met[language] == pytest.approx(4000 * share, abs=4 * (4000 * share + 1) ** 0.5)
    assert met[UNSEEN] == 0


def test_the_unseen_language_is_another_in_every_scene() -> None:
    domain = build("domain", "languages", {"language": UNSEEN})
    dealt = {domain.scene(domain.rng("test", i)).words for i in range(20)}
    assert len(dealt) == 20
    assert {frozenset(words) for words in dealt} == {frozenset(cipher(UNSEEN))}


@pytest.mark.parametrize("language", range(5))
def test_answers_can_be_read_with_the_dictionary(language: int) -> None:
    domain = build("domain", "languages", {"language": language, "sentences": 3, "icons": 3})
    for index in range(30):
        drawing = domain.draw("test", index, 64, 8, ALL)
        scene = drawing.scene
        at = dict(zip(PLACES, (NAMES[t] for t in scene.topics), strict=True))
        for q in drawing.questions:
            if q.family in ("s2i", "s2t"):
                said = {topic_of(s, scene.words) for s in q.text.split(". ")[:3]}
                assert said == {at[q.answer] if q.family == "s2i" else q.answer}
            else:
                wanted = next(at[p] for p in PLACES if p in q.text) if q.family == "i2s" else q.text.split()[1]
                assert topic_of(q.answer, scene.words) == wanted
                assert len({topic_of(option, scene.words) for option in q.options}) == 4


def test_a_picture_shows_k_icons_of_the_topics_shape() -> None:
    domain = build("domain", "languages", {"icons": 2})
    for index in range(10):
        drawing = domain.draw("test", index, 96, 0)
        assert len(drawing.boxes) == 8
        assert all(len(set(icons)) == 2 for icons in drawing.scene.icons)
        seen = domain.dense(drawing.scene, 24)["shape"]
        from argus.world.domain import SHAPES

        for place, topic in enumerate(drawing.scene.topics):
            quarter = seen[12 * (place // 2) :, 12 * (place % 2) :][:12, :12]
            assert set(quarter.flat) == {0, 1 + SHAPES.index(TOPICS[NAMES[topic]])}
