"""SEED-Bench-2 on the world: the recipe's 27 dimensions are the paper's, and each is asked as its level says."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import yaml
from PIL import Image

from argus.core.recipe import find_recipe
from argus.core.registry import build
from argus.core.sample import ImagePart, Sample
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import PICTURES, Question
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.scenarios.base import scenario_of
from argus.evaluation.taxonomy import SEED_BENCH_2, members


def recipe_scenario() -> dict[str, Any]:
    (evaluation,) = yaml.safe_load(find_recipe("seed-bench-2").read_text())["evaluate"]
    return evaluation["scenario"]


@cache
def samples() -> dict[str, list[Sample]]:
    """Dimension -> some of its questions."""
    found: dict[str, list[Sample]] = {}
    for group in scenario_of(recipe_scenario()).groups(8 * len(SEED_BENCH_2), 0):
        for sample in group.samples:
            found.setdefault(sample.metadata["family"], []).append(sample)
    return found


def test_dimensions_and_parts_are_the_papers() -> None:
    given = scenario_of(recipe_scenario()).options
    assert list(given.dimensions) == [d.name for d in SEED_BENCH_2]
    assert given.branches == members(SEED_BENCH_2)  # the parts, and the levels L2 and L3, which hold those below


def test_every_dimension_is_asked() -> None:
    assert set(samples()) == {d.name for d in SEED_BENCH_2}
    assert all(sample.target in sample.options for of in samples().values() for sample in of)


@pytest.mark.parametrize(
    ("numbers", "pictures"),
    [(range(1, 17), 1), (range(17, 19), 2), (range(19, 23), 8), (range(23, 25), 3), ((25, 27), 0), ((26,), 8)],
)
def test_a_question_shows_as_many_pictures_as_its_part_has(numbers: Any, pictures: int) -> None:
    for dimension in (d for d in SEED_BENCH_2 if d.id in numbers):
        for sample in samples()[dimension.name]:
            assert len(sample.images()) == pictures, dimension.name
            kinds = [isinstance(part, ImagePart) for part in sample.messages[0].content]
            interleaved = kinds != sorted(kinds, reverse=True)
            assert interleaved == (dimension.id == 24) or dimension.id == 23  # a caption's first picture begins the text
            assert len(sample.metadata.get(PICTURES, [])) == (4 if dimension.id >= 25 else 0)


class Drawer:
    """Draws what it is given, and finds one option in words likeliest."""

    def __init__(self, picture: Image.Image, word: int) -> None:
        self.picture, self.word = picture, word

    def draw(self, questions: list[Question]) -> list[Image.Image]:
        return [self.picture] * len(questions)

    def score(self, questions: list[Question], mean: bool, end: bool = True) -> list[list[float]]:
        return [[float(i == self.word) for i in range(len(q.sample.options))] for q in questions]


@pytest.mark.parametrize("name", ["Text-to-Image Generation", "Next Image Prediction", "Text-Image Creation"])
def test_a_generator_that_draws_option_k_chooses_option_k(name: str) -> None:
    sample = samples()[name][0]
    inferencer = build("inferencer", "drawn")
    for k, picture in enumerate(sample.metadata[PICTURES]):
        (answer,) = inferencer.answer(Drawer(picture, k), [Question("g", sample, sample.images())])
        assert answer.text == sample.options[k]
        if name == "Text-Image Creation":  # picture and text must agree
            (answer,) = inferencer.answer(Drawer(picture, (k + 1) % 4), [Question("g", sample, [])])
            assert answer.text == ""


def test_a_model_without_pictures_to_give_is_not_asked_for_them(model, processor) -> None:
    given = scenario_of(recipe_scenario()).options
    names = [d.name for d in SEED_BENCH_2 if d.id in (2, 17, 23, 24, 25, 26, 27)]
    scenario = {
        "dimensions": {
            "dimensions": {name: given.dimensions[name] for name in names},
            "branches": {part: [n for n in of if n in names] for part, of in given.branches.items() if part != "video"},
        }
    }
    options = EvaluationOptions(
        scenario=scenario, inferencer={"drawn": {"text": {"likelihood": {"normalise": "mean", "end": False}}}}, samples=14
    )
    result = evaluate(model, processor, options, progress=False)
    ((reason, count),) = result.skipped.items()
    assert reason.startswith("UnsupportedError")
    assert count >= 5
    assert result.errors == {}
    assert not {"P3", "mean P3", "L3", "mean L3"} & set(result.measurements["accuracy"])
    assert {"P1", "P2", "mean P2", "L2"} <= set(result.measurements["accuracy"])
    assert result.branches["P2"] == ["In-Context Captioning", "Interleaved Image-Text Analysis"]
