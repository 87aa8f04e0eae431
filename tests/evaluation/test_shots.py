"""Answered examples in front of a question: which ones, in what order, and what a prompt then shows."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from argus.core.errors import DataError, RecipeError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Question
from argus.evaluation.local import LocalModel
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.scenarios.base import scenario_of

from .conftest import naive_score, picture

GREYS = (10, 200, 90, 140)


def example(n: int, text: str = "Which?") -> Sample:
    image = Image.new("RGB", (32, 32), (GREYS[n],) * 3)
    return Sample(f"d{n}", [Message("user", [ImagePart(image), TextPart(text)])], f"a{n}", metadata={"picture": f"d{n}"})


@pytest.fixture
def sample() -> Sample:
    message = Message("user", [ImagePart(Image.new("RGB", (32, 32), (100,) * 3)), TextPart("Which colour?")])
    shown = [example(0, "Which star?"), example(1, "Which colour then?"), example(2), example(3)]
    return Sample("p/0", [message], "red", ["red", "green"], {"picture": "p", "demonstrations": shown})


def asked(sample: Sample, **options: Any) -> Sample:
    return build("instruction", "shots", options).apply(sample)


def answers(sample: Sample) -> list[str]:
    return [m.text() for m in sample.messages if m.role == "assistant"]


def test_examples_are_earlier_turns_with_their_pictures(sample: Sample) -> None:
    found = asked(sample, k=2, choice="fixed")
    assert [(m.role, m.text()) for m in found.messages] == [
        ("user", "Which star?"),
        ("assistant", "a0"),
        ("user", "Which colour then?"),
        ("assistant", "a1"),
        ("user", "Which colour?"),
    ]
    assert len(found.images()) == 3
    assert found.images()[-1] is sample.images()[0]
    assert (found.target, found.options) == (sample.target, sample.options)
    assert asked(sample, k=0) == sample


def test_without_their_pictures(sample: Sample) -> None:
    found = asked(sample, k=4, choice="fixed", pictures=False)
    assert answers(found) == ["a0", "a1", "a2", "a3"]
    assert found.images() == sample.images()


def test_the_lot_is_one_for_all_questions_about_a_picture(sample: Sample) -> None:
    other = Sample("p/1", sample.messages, "green", [], sample.metadata)
    drawn = {n: answers(asked(sample, k=3, seed=n)) for n in range(8)}
    assert all(answers(asked(other, k=3, seed=n)) == drawn[n] for n in drawn)
    assert len({tuple(d) for d in drawn.values()}) > 3
    assert all(len(set(d)) == 3 for d in drawn.values())


def test_the_most_alike_come_last(sample: Sample) -> None:
    """Greys 10, 200, 90, 140 beside 100: 10 and 40 apart are the nearest. Of the texts, one shares two words of three."""
    assert answers(asked(sample, k=2, choice="image_similarity")) == ["a3", "a2"]
    assert answers(asked(sample, k=2, choice="text_similarity"))[-1] == "a1"


def test_a_system_turn_stays_in_front(sample: Sample) -> None:
    sample.messages.insert(0, Message("system", [TextPart("Be brief.")]))
    assert [m.role for m in asked(sample, k=1).messages] == ["system", "user", "assistant", "user"]


def test_examples_may_be_asked_in_another_way(sample: Sample) -> None:
    sample.metadata["demonstrations"][0].options = ["b", "a0"]
    found = asked(sample, k=1, choice="fixed", instruction="options")
    assert found.messages[0].text() == "Which star?\nA. b\nB. a0\nAnswer with the letter."
    assert answers(found) == ["B"]


def test_a_pool_gives_examples_of_another_split() -> None:
    """The question's own picture is never an example, whichever split the pool is."""
    (group,) = scenario_of({"world/objects": {"questions": 1, "size": 32}}).groups(1, 0)
    for split in ("train", "test"):
        pool = {"world/objects": {"questions": 1, "split": split, "size": 32}}
        found = asked(group.samples[0], k=3, choice="fixed", pool=pool, size=5)
        assert len(found.images()) == 4
        assert len({id(image) for image in found.images()}) == 4
        (first, second) = (g.samples[0].target for g, _ in zip(scenario_of(pool).groups(9, 0), range(2), strict=False))
        assert answers(found)[0] == (first if split == "train" else second)


def test_nothing_to_show_is_said(sample: Sample) -> None:
    with pytest.raises(DataError, match="5 examples are wanted, and there are 4"):
        asked(sample, k=5)
    with pytest.raises(RecipeError):
        build("instruction", "shots", {"pool": {"world/objects": {"split": "nowhere"}}})


def test_episodes_bring_their_demonstrations() -> None:
    (group,) = scenario_of({"world/novel": {"questions": 3, "size": 32}}).groups(3, 0)
    found = [asked(s, k=4) for s in group.samples]
    assert set(answers(found[0])) == {option.split()[-1] for option in group.samples[0].options}  # without the colour
    assert [f.images() for f in found[1:]] == [found[0].images()] * 2


def shown(number: int, examples: list[Sample], group: int = 0) -> Sample:
    message = Message("user", [ImagePart(picture(group)), TextPart("Which colour?")])
    known = {"family": "colour", "picture": f"p{group}", "demonstrations": examples}
    return Sample(f"p{group}/{number}", [message], "red", ["red", "green", "light blue"], known)


@pytest.mark.parametrize("way", ["together", "alone"])
def test_scores_behind_examples_equal_naive_ones(model: Any, processor: Any, way: str) -> None:
    """Three questions in the same words about one picture; the third has other examples, whose text is the same."""
    first, other = [example(0), example(1)], [example(2), example(3)]
    for s, answer in zip((*first, *other), "abab", strict=True):
        s.target = answer
    samples = [asked(shown(n, some), k=2, choice="fixed") for n, some in enumerate((first, first, other))]
    questions = [Question("p0", s, s.images(), int(n == 2)) for n, s in enumerate(samples)]
    held = LocalModel(model, processor)
    scores = getattr(held, way).score(questions, held.held.prompter.prompts(questions, options=True), False)
    for question, found in zip(questions, scores, strict=True):
        assert found == pytest.approx([naive_score(model, processor, question, o) for o in question.sample.options], abs=2e-3)
    assert scores[0] != pytest.approx(scores[2], abs=1e-2)


def test_the_engine_shows_each_question_its_own_examples(model: Any, processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from argus.evaluation import engine
    from argus.evaluation.scenarios.base import Group

    samples = [shown(n, [example(n), example((n + 1) % 4)]) for n in (0, 0, 2)]
    for number, sample in enumerate(samples):
        sample.id = f"p0/{number}"
    listed = type("Listed", (), {"groups": lambda self, count, seed: iter([Group("p0", samples)])})()
    monkeypatch.setattr(engine, "build_scenario", lambda _: listed)
    records = MemoryRecords()
    options = EvaluationOptions(scenario="world/objects", instruction={"shots": {"k": 2, "choice": "fixed"}})
    evaluate(model, processor, options, run_part=records, progress=False)
    rows = {row["id"]: row["option_scores"] for row in records.rows if row["kind"] == "answer"}
    for sample in samples:
        question = asked(sample, k=2, choice="fixed")
        naive = Question("p0", question, question.images())
        expected = [naive_score(model, processor, naive, o, mean=True) for o in sample.options]
        plain = [naive_score(model, processor, naive, o) for o in sample.options]
        assert rows[sample.id] in (pytest.approx(expected, abs=2e-3), pytest.approx(plain, abs=2e-3))
    assert rows["p0/0"] == pytest.approx(rows["p0/1"], abs=1e-4)
