"""The same questions in several ways, and ChEF's desiderata on them: every number worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from argus.core.errors import RecipeError, UnknownNameError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.desiderata import calibration_gaps, confidences, temperature
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import Row
from argus.evaluation.picture_corruptions import LEVELS, corrupt
from argus.evaluation.results import summarise
from argus.evaluation.statistics import resampled
from argus.evaluation.text_corruptions import KINDS, corrupt_text

from .conftest import picture

OPTIONS = ["red", "green", "blue", "pink"]
P = [0.9, 0.8, 0.7, 0.6, 0.5, 0.95, 0.85, 0.3, 0.4, 0.55, 0.65, 0.75]
RIGHT = [1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0]


def record(metric, name: str, number: int, way: str, said: str, target: str = "red", options=OPTIONS, **answer) -> dict:
    """The record of an answer, as the engine writes it."""
    sample = Sample(f"{number}@{way}", [], target, list(options), {"way": way, "asked": str(number)})
    score = metric.score(sample, Answer(said, **answer))
    return {
        "id": sample.id, "kind": "answer", "blind": False, "group": f"p{number}", "family": "colour", "domain": "objects",
        "branches": [way], "values": {}, "ratios": {}, "notes": {name: score.notes}, "options": list(options), "seconds": 0.0,
    }  # fmt: skip


def measured(name: str, said: dict[str, list[str]], **options):
    """What a metric measures on answers per way, all of them to questions whose answer is red."""
    metric = build("metric", name, options)
    rows = [record(metric, name, n, way, text) for way, texts in said.items() for n, text in enumerate(texts)]
    return {group: m.value for group, m in summarise(rows, {name: metric}).measurements[name].items()}


def right(count: int, of: int = 4) -> list[str]:
    return ["red"] * count + ["blue"] * (of - count)


def test_no_corruption_leaves_100_and_chance_leaves_0() -> None:
    found = measured("rrm", {"clean": right(3), "same": right(3), "guess": right(1), "half": right(2)})
    assert found["same"] == 100
    assert found["guess"] == 0  # chance of four options is 1/4
    assert found["half"] == pytest.approx(50)
    assert found["all"] == pytest.approx(50)
    assert found["RR"] == pytest.approx(100 * (1 + 1 / 3 + 2 / 3) / 3)  # without chance


def test_a_model_near_chance_has_no_skill_to_keep() -> None:
    found = measured("rrm", {"clean": right(1), "noise": right(0)})
    assert math.isnan(found["all"])
    assert math.isnan(found["noise"])
    given = measured("rrm", {"clean": right(1), "noise": right(0)}, chance=0.1)  # against another chance it has
    assert given["noise"] == pytest.approx(100 * (0 - 0.1) / (0.25 - 0.1))
    with pytest.raises(RecipeError, match="unknown option"):
        build("metric", "rrm", {"chanse": 0.1})


def test_examples_that_change_nothing_have_50() -> None:
    found = measured("riam", {"shots_0": right(2), "shots_1": right(2), "shots_2": right(3)})
    assert found["shots_1"] == 50
    assert found["shots_2"] == pytest.approx(50 + 50 * 0.25 / 0.25)
    assert found["all"] == pytest.approx(50 + 50 * (0.625 - 0.5) / 0.25)
    assert found["plain"] == pytest.approx((0.625 - 0.5) / 0.25)  # without the affine map


def matched(plain: list[int], renamed: list[int]) -> dict[str, float]:
    """MR of chosen places, on options and on their other names."""
    metric = build("metric", "mr")
    names = ["1", "2", "3", "4"]
    rows = [record(metric, "mr", n, "plain", OPTIONS[place]) for n, place in enumerate(plain)]
    rows += [record(metric, "mr", n, "digits", names[place], "1", names) for n, place in enumerate(renamed)]
    return {group: m.value for group, m in summarise(rows, {"mr": metric}).measurements["mr"].items()}


def test_who_goes_by_place_or_always_says_the_first_matches_always() -> None:
    assert matched([0, 2, 1, 3], [0, 2, 1, 3])["all"] == 100
    first = matched([0] * 4, [0] * 4)
    assert (first["all"], first["accuracy"]) == (100, 100)  # all questions here have their answer first
    half = matched([0, 1, 2, 3], [0, 1, 3, 2])
    assert (half["digits"], half["accuracy"]) == (50, 25)


def test_an_answer_that_is_no_option_never_stays() -> None:
    assert measured("mr", {"plain": ["grue"], "digits": ["grue"]})["all"] == 0


def test_spread_is_the_standard_deviation_over_ways() -> None:
    found = measured("spread", {"a": right(4), "b": right(2), "c": right(3)})
    assert found["all"] == pytest.approx(np.std([1, 0.5, 0.75]))
    assert (found["least"], found["mean"], found["most"]) == (0.5, 0.75, 1.0)


def test_the_bootstrap_covers_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(0).integers(0, 2, (400, 1))
    found = resampled(values, np.ones((400, 1)), lambda acc: acc[:, 0], "share")
    half = 1.96 * values.std() / 20
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)


def rows_of(scores: list[list[float]], places: list[int]) -> list[Row]:
    noted = zip(scores, places, strict=True)
    return [Row({"scores": s, "right": p}, ["all", "colour"], f"p{n}") for n, (s, p) in enumerate(noted)]


@pytest.mark.parametrize(("bins", "expected"), [(10, 0.2875), (5, 0.2375)])
def test_ece_of_two_options_whose_scores_give_the_confidences(bins: int, expected: float) -> None:
    """Scores (log p, log (1 - p)) have confidence p where p >= 1/2; a third option keeps the smaller ones."""
    scores = [[math.log(p), *([math.log((1 - p) / 3)] * 3)] for p in P]
    ece = build("metric", "ece", {"bins": bins})
    found = ece.over_all(rows_of(scores, [0 if right else 1 for right in RIGHT]))
    assert found["all"].value == pytest.approx(expected)
    assert found["colour"].value == pytest.approx(expected)
    assert found["score"].value == pytest.approx(100 * (1 - expected))
    assert calibration_gaps(P[:7], RIGHT[:7]).mean() == pytest.approx(0.357143, abs=1e-6)


def test_a_temperature_is_fitted_on_one_half_and_reported_on_the_other() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2000, 4))
    places = [int(rng.choice(4, p=np.exp(row) / np.exp(row).sum())) for row in logits]
    rows = rows_of((3 * logits).tolist(), places)  # three times too sure
    found = build("metric", "ece", {"fit": 0.5}).over_all(rows)
    assert found["fitted"].value <= 0.7 * found["all"].value
    assert found["temperature"].value == pytest.approx(3, rel=0.15)
    assert found["temperature"].n + found["all"].n == 2000
    # The part that is reported has no say in the temperature.
    changed = [Row({"scores": [0.0] * 4, "right": 0}, r.groups, r.cluster) if n % 3 else r for n, r in enumerate(rows)]
    assert temperature([[1.0, 0.0]], [0]) < 1
    assert confidences([[3.0, 0.0]], 3.0)[0] == pytest.approx(1 / (1 + math.exp(-1)))
    assert build("metric", "ece").over_all(changed)["all"].n == 2000


def test_an_answer_without_scores_has_no_confidence() -> None:
    score = build("metric", "ece").score(Sample("a", [], "red", OPTIONS), Answer("red"))
    assert (score.value, score.notes) == (None, {})


# Ways and what is put in them.


def ways(**given):
    return build(
        "scenario", "ways", {"of": {"world/objects": {"size": 32, "questions": 2, "families": ["colour"]}}, "ways": given}
    )


def test_every_question_is_put_in_every_way() -> None:
    groups = list(ways(clean="plain", shown=["options"], noise={"corrupted": {"severity": 5}}).groups(4, 0))
    assert [len(group.samples) for group in groups] == [6, 6]
    samples = groups[0].samples
    assert [s.metadata["way"] for s in samples] == ["clean"] * 2 + ["shown"] * 2 + ["noise"] * 2
    assert len({s.id for s in samples}) == 6
    assert {s.metadata["asked"] for s in samples} == {s.id.partition("@")[0] for s in samples}
    assert samples[2].options[0] == "A"
    assert samples[0].images()[0] == samples[2].images()[0] != samples[4].images()[0]
    assert all(s.metadata["way"] in s.metadata["branches"] for s in samples)


def test_what_cannot_be_put_in_a_way_is_counted_with_its_reason() -> None:
    (group,) = ways(clean="plain", shots={"shots": {"k": 2}}).groups(2, 0)
    assert len(group.samples) == 2
    assert all("@shots" in id_ and "2 examples are wanted" in reason for id_, reason in group.errors.items())


def test_rotations_stay_an_item_of_their_way() -> None:
    turned = {"circular": {"of": {"world/objects": {"size": 32, "questions": 1, "families": ["colour"]}}}}
    (group,) = build("scenario", "ways", {"of": turned, "ways": {"a": "plain", "b": "plain"}}).groups(1, 0)
    assert len({s.metadata["item"] for s in group.samples}) == 2


def sample(text: str = "What colour is the big star?") -> Sample:
    return Sample("a", [Message("user", [ImagePart(picture(0)), TextPart(text)])], "green", OPTIONS, {"picture": "p0"})


def test_at_severity_0_nothing_is_corrupted() -> None:
    given = sample()
    options = {"picture": "jpeg", "text": "words", "order": True, "severity": 0}
    assert build("instruction", "corrupted", options).apply(given) is given


@pytest.mark.parametrize("kind", LEVELS)
def test_corrupted_pictures_are_reproducible_and_ever_worse(kind: str) -> None:
    """A smooth scene, so that noise and blur alike take something from it."""
    y, x = np.mgrid[:96, :96]
    scene = Image.fromarray(np.stack([x * 2, y * 2, np.where((x - 48) ** 2 + (y - 48) ** 2 < 400, 230, 40)], -1).astype(np.uint8))
    assert corrupt(scene, kind, 0) is scene
    worse = [corrupt(scene, kind, severity, 7) for severity in range(1, 6)]
    assert corrupt(scene, kind, 3, 7).tobytes() == worse[2].tobytes()
    assert {p.size for p in worse} == {(96, 96)}
    gaps = [np.abs(np.asarray(p, dtype=float) - np.asarray(scene, dtype=float)).mean() for p in worse]
    assert gaps[0] > 0
    assert gaps[0] < gaps[2] < gaps[4]


def test_all_questions_about_a_picture_see_the_same_noise() -> None:
    noisy = build("instruction", "corrupted", {"picture": "gaussian_noise", "severity": 2})
    first, second = noisy.apply(sample()), noisy.apply(sample("How many?"))
    assert first.images()[0] == second.images()[0]
    assert first.messages[0].text() == "What colour is the big star?"


@pytest.mark.parametrize("kind", KINDS)
def test_corrupted_texts_are_reproducible_and_changed(kind: str) -> None:
    text = "What colour is the big striped star next to the small ring?"
    assert corrupt_text(text, kind, 0, "a") == text
    for severity in range(1, 6):
        assert corrupt_text(text, kind, severity, "a") == corrupt_text(text, kind, severity, "a") != text
    assert corrupt_text(text, kind, 5, "a") != corrupt_text(text, kind, 5, "b")


def test_unknown_corruptions_name_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="gaussian_noise"):
        corrupt(picture(0), "gausian_noise", 1)
    with pytest.raises(UnknownNameError, match="characters"):
        corrupt_text("?", "character", 1, "a")


def test_options_out_of_order_keep_the_right_one() -> None:
    turned = build("instruction", "corrupted", {"order": True, "severity": 1}).apply(sample())
    assert (turned.options, turned.target) == (["green", "blue", "pink", "red"], "green")
    assert turned.images()[0] == picture(0)


def test_renamed_options() -> None:
    mapped = build("instruction", "mapped", {"names": "surnames"}).apply(sample("Which?"))
    assert mapped.messages[0].text().startswith('Which?\nIf the answer is "red", you need to output "Smith". ')
    assert (mapped.options, mapped.target) == (["Smith", "Johnson", "Williams", "Jones"], "Johnson")
    shifted = build("instruction", "mapped", {"names": "shifted"}).apply(sample())
    assert (shifted.options, shifted.target) == (["green", "blue", "pink", "red"], "blue")


def test_letters_are_closed_where_they_are_spoken_of() -> None:
    lettered = build("instruction", "query", {"layout": "mmbench", "answer": "letter"}).apply(sample("Which?"))
    text = build("instruction", "mapped").apply(lettered).messages[0].text()
    assert 'If the answer is "(B)", you need to output "2". ' in text


def test_a_query_prints_options_as_each_benchmark_does() -> None:
    hinted = sample("Which?")
    hinted.metadata["hint"] = "Look closely."
    asked = build("instruction", "query", {"pool": "vqa", "index": 0, "layout": "mmbench", "answer": "letter"}).apply(hinted)
    printed = "(A) red\n(B) green\n(C) blue\n(D) pink\n"
    assert asked.messages[0].text() == f"Look closely. Which? There are several options:\n{printed}\nThe answer is"
    assert (asked.options, asked.target, asked.metadata["choices"]) == (["(A", "(B", "(C", "(D"], "(B", OPTIONS)
    other = build("instruction", "query", {"layout": "scienceqa", "answer": "content"}).apply(sample("Which?"))
    assert other.messages[0].text() == "Question: Which?\nOptions: (A) red (B) green (C) blue (D) pink\n"
    assert other.target == "(B) green"
    assert build("instruction", "query").apply(sample()).messages == sample().messages  # the standard query changes nothing


def test_queries_are_numbered() -> None:
    with pytest.raises(RecipeError, match="queries 0 to 7"):
        build("instruction", "query", {"pool": "vqa", "index": 8})
    with pytest.raises(RecipeError, match="only where a layout prints them"):
        build("instruction", "query", {"answer": "letter"})


def test_a_model_that_reads_no_text_is_asked_the_same_whatever_is_corrupted() -> None:
    blind = build("instruction", "wordless")
    worse = build("instruction", "corrupted", {"text": "characters", "severity": 5}).apply(sample())
    assert blind.apply(worse).messages == blind.apply(sample()).messages
    assert blind.apply(sample()).messages[0].text() == "What is this?"
