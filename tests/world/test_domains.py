"""What every domain promises: the same bytes everywhere, disjoint splits, exact truth, answers that cannot be guessed."""

import hashlib
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from argus.core.registry import build, components
from argus.world.data import priors
from argus.world.domain import DENSE_CLASSES, Domain

NAMES = [row.name for row in components("domain")]


@pytest.fixture(params=NAMES)
def domain(request: pytest.FixtureRequest) -> Domain:
    return build("domain", request.param)


def test_the_same_index_gives_the_same_bytes(domain: Domain) -> None:
    again = build("domain", domain.name)
    for index in range(5):
        a, b = domain.draw("test", index), again.draw("test", index)
        assert hashlib.sha256(a.pixels.tobytes()).digest() == hashlib.sha256(b.pixels.tobytes()).digest()
        assert a.questions == b.questions
        assert a.scene == b.scene


# Of ten scenes, pictures and questions, computed once: another machine, or a change that was not meant, gives other numbers.
DIGESTS = {"objects": 2357420875, "documents": 3748858186, "tables": 3426854192, "charts": 2974485155}


@pytest.mark.parametrize("name", DIGESTS)
def test_every_machine_draws_the_same(name: str) -> None:
    domain, told = build("domain", name), 0
    for index in range(10):
        drawing = domain.draw("test", index, 96, 6)
        asked = repr([(q.text, q.answer, q.options) for q in drawing.questions])
        told = zlib.crc32(drawing.pixels.tobytes() + asked.encode(), told)
    assert told == DIGESTS[name]


def test_splits_and_indices_differ(domain: Domain) -> None:
    drawn = {
        domain.draw(split, index, 96, 0).pixels.tobytes() for split in ("train", "validation", "test") for index in range(20)
    }
    assert len(drawn) == 60


@pytest.mark.parametrize("size", [64, 96, 200, 1024])
def test_renders_at_any_size(domain: Domain, size: int) -> None:
    scene = domain.scene(domain.rng("test", 3))
    pixels = domain.render(scene, size)
    assert pixels.shape == (size, size, 3)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 2


def test_a_larger_picture_shows_the_same(domain: Domain) -> None:
    for index in range(8):
        scene = domain.scene(domain.rng("test", index))
        small = domain.render(scene, 96).astype(float)
        large = domain.render(scene, 384).reshape(96, 4, 96, 4, 3).mean((1, 3))
        # Text is hinted and noise drawn per size; apart from that the pictures agree.
        assert np.abs(small - large).mean() < 14


def test_dense_truth_has_every_head_and_valid_classes(domain: Domain) -> None:
    for index in range(10):
        truth = domain.dense(domain.scene(domain.rng("test", index)), 12)
        assert set(truth) == set(DENSE_CLASSES)
        for head, array in truth.items():
            assert array.shape == (12, 12)
            assert array.dtype == np.int64
            assert -1 <= array.min() <= array.max() < DENSE_CLASSES[head]


def test_questions_are_well_formed(domain: Domain) -> None:
    families = set()
    for index in range(150):
        drawing = domain.draw("test", index, 64, 8)
        assert 4 <= len(drawing.questions) <= 8
        for question in drawing.questions:
            families.add(question.family)
            assert question.family in domain.families
            if question.options:
                assert question.answer in question.options
                assert len(set(question.options)) == len(question.options) >= 2
            for x1, y1, x2, y2 in question.boxes:
                assert -0.2 <= x1 < x2 <= 1.2
                assert -0.2 <= y1 < y2 <= 1.2
    assert families == set(domain.families)


def test_asking_for_a_family_gives_that_family(domain: Domain) -> None:
    for family in domain.families:
        found = [q for i in range(40) for q in domain.draw("test", i, 64, 3, (family,)).questions]
        assert found
        assert {q.family for q in found} == {family}


def test_no_answer_is_much_likelier_than_chance(domain: Domain) -> None:
    for prior in priors(domain, scenes=1500):
        assert prior.count > 60, prior
        # Three standard errors of a share are granted to small families.
        noise = 3 * (prior.chance * (1 - prior.chance) / prior.count) ** 0.5
        assert prior.share < 1.3 * prior.chance + noise, prior


def test_words_of_the_question_do_not_give_the_answer(domain: Domain) -> None:
    """Naive Bayes over question words and options, trained on 1,500 scenes, stays at chance on 700 others."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    scores: dict[str, list[float]] = defaultdict(list)
    for index in range(2200):
        scene = domain.scene(domain.rng("validation", index))
        for q in domain.questions(scene, domain.rng("validation", index, 1), 6):
            if not q.options:
                continue
            words = set(q.text.lower().replace("?", "").split())
            if index < 1500:
                answers[q.family][q.answer] += 1
                for word in words:
                    counts[q.family, word][q.answer] += 1
                continue
            total = answers[q.family]

            def belief(option: str, q=q, words=words, total=total) -> float:
                prior = np.log((total[option] + 1) / (total.total() + 20))
                return prior + sum(np.log((counts[q.family, w][option] + 1) / (total[option] + 20)) for w in words)

            scores[q.family].append((max(q.options, key=belief) == q.answer) - 1 / len(q.options))
    for family, gains in scores.items():
        error = np.std(gains) / len(gains) ** 0.5
        assert np.mean(gains) < 0.05 + 3 * error, (family, np.mean(gains), error)


def _most_like_the_others(options: tuple[str, ...]) -> str:
    return max(options, key=lambda o: sum(a == b for other in options if other != o for a, b in zip(o, other, strict=False)))


def _middle(options: tuple[str, ...]) -> str:
    return sorted(options, key=lambda o: (len(o), o))[len(options) // 2]


def _closest_to_another(options: tuple[str, ...]) -> str:
    def distance(option: str) -> float:
        others = [float(o) for o in options if o != option]
        return sum(abs(float(option) - o) for o in others)

    return min(options, key=distance) if all(o.isdigit() for o in options) else options[0]


@pytest.mark.parametrize("guess", [_most_like_the_others, _middle, _closest_to_another, min, max])
@pytest.mark.parametrize(("name", "options"), [*((n, {}) for n in NAMES), ("documents", {"text": "random"})])
def test_a_list_of_options_does_not_show_its_answer(
    name: str, options: dict[str, str], guess: Callable[[tuple[str, ...]], str]
) -> None:
    """Near misses of the answer alone would make it the one in their middle."""
    domain = build("domain", name, options)
    gains: dict[str, list[float]] = defaultdict(list)
    for index in range(500):
        scene = domain.scene(domain.rng("validation", index))
        for q in domain.questions(scene, domain.rng("validation", index, 1), 8):
            if len(q.options) > 2:
                gains[q.family].append((guess(q.options) == q.answer) - 1 / len(q.options))
    for family, gain in gains.items():
        assert np.mean(gain) < 0.03 + 3 * np.std(gain) / len(gain) ** 0.5, (family, np.mean(gain), len(gain))
