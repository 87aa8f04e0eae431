"""CAPTURE and CIDEr-D against numbers worked out from their definitions, and what they promise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from benchmarks.captions import measure
from hypothesis import given
from hypothesis import strategies as st

from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.captions import Graph, capture, parse
from argus.evaluation.cider import cider_d
from argus.evaluation.inferencers.base import Answer

SYNONYMS = {"car": frozenset({"car", "auto"}), "automobile": frozenset({"car", "auto"}), "big": frozenset({"large"})}
SYNONYMS["large"] = frozenset({"large"})
REFERENCE = Graph(
    ("car", "truck", "street", "tree"),
    (("car", "red"), ("truck", "white"), ("street", "big")),
    (("car", "on", "street"), ("tree", "near", "street")),
)
CANDIDATE = Graph(("automobile", "truck", "road"), (("automobile", "red"), ("truck", "large")), (("automobile", "on", "road"),))


def letters(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of letter counts: an encoder that can be worked out by hand."""
    counts = np.array([[text.count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_two_stages() -> None:
    """Objects: automobile ~ car and truck, 2 of 3 and 2 of 4; attributes: red, large ~ big, 2 of 2 and 2 of 3; no relation."""
    found = capture(CANDIDATE, REFERENCE, synonyms=SYNONYMS)
    assert found.score == pytest.approx(0.571428, abs=1e-6)
    assert (found.objects.precision, found.objects.recall) == pytest.approx((2 / 3, 1 / 2), abs=1e-6)
    assert (found.attributes.precision, found.attributes.recall) == pytest.approx((1.0, 2 / 3), abs=1e-6)
    assert found.relations.f1 == 0


def test_three_stages() -> None:
    found = capture(CANDIDATE, REFERENCE, synonyms=SYNONYMS, encode=letters)
    assert found.score == pytest.approx(0.693040, abs=2e-6)
    assert (found.objects.precision, found.objects.recall, found.objects.f1) == pytest.approx(
        (0.734708, 0.590559, 0.654794), abs=2e-6
    )
    assert (found.relations.precision, found.relations.recall) == pytest.approx((0.575649, 0.476258), abs=2e-6)


def test_identical_graphs() -> None:
    assert capture(REFERENCE, REFERENCE).score > 0.99999
    bare = Graph(REFERENCE.objects, REFERENCE.attributes)
    assert capture(bare, bare).score == pytest.approx(0.833332, abs=2e-6)  # an empty channel scores 0 as published: 1 / 1.2
    assert capture(bare, bare, renormalise=True).score > 0.99999
    assert capture(Graph(), REFERENCE).score == 0


def test_precision_and_recall_change_places() -> None:
    for encode in (None, letters):
        there = capture(CANDIDATE, REFERENCE, encode=encode).objects
        back = capture(REFERENCE, CANDIDATE, encode=encode).objects
        assert (there.precision, there.recall) == pytest.approx((back.recall, back.precision), abs=1e-6)


WORDS = st.lists(st.sampled_from(["ant", "bee", "cow", "dog", "elk", "fox"]), unique=True, min_size=1)


@given(WORDS, WORDS)
def test_an_unmatched_object_costs_precision_and_a_matched_one_never_recall(said: list[str], true: list[str]) -> None:
    before = capture(Graph(tuple(said)), Graph(tuple(true))).objects
    assert capture(Graph((*said, "zzz")), Graph(tuple(true))).objects.precision <= before.precision + 1e-9
    for word in true:
        assert capture(Graph(tuple({*said, word})), Graph(tuple(true))).objects.recall >= before.recall - 1e-9


def test_with_the_soft_stage_an_unmatched_object_can_raise_precision() -> None:
    before = capture(Graph(("zzz",)), Graph(("dog",)), encode=letters).objects
    after = capture(Graph(("zzz", "god")), Graph(("dog",)), encode=letters).objects  # the letters of dog
    assert after.precision > before.precision


def test_parsing() -> None:
    graph = parse("There are two large dogs on a sofa. A small red plain star at the top left; the background is near a dog")
    assert set(graph.objects) == {"dog", "sofa", "star"}
    assert ("star", "red") in graph.attributes
    assert ("dog", "large") in graph.attributes
    assert ("dog", "on", "sofa") in graph.relations
    assert ("star", "at", "top left") in graph.relations


def test_several_references_are_averaged() -> None:
    metric = build("metric", "capture", {"empty": "renormalise"})
    both = Sample("", [], "a red star", [], {"facts": ("x",), "references": ["a blue ring"]})
    one, other = (Sample("", [], text, [], {"facts": ("x",)}) for text in ("a red star", "a blue ring"))
    said = Answer("a red star")
    assert metric.score(both, said).value == pytest.approx((metric.score(one, said).value + metric.score(other, said).value) / 2)
    assert not metric.applies(Sample("", [], "red", ["red", "blue"], {"facts": ("x",)}))


def test_errors_in_a_caption_are_ranked_by_their_number() -> None:
    """Captions of drawn scenes with 0 to 6 errors, told in any order: CAPTURE falls with every error, n-grams less surely."""
    found = measure(scenes=25)
    key = "tau with errors, per picture"
    assert found["CAPTURE"][key] >= 0.95
    assert found["CAPTURE"][key] > found["BLEU-4"][key] + 0.05
    assert found["CAPTURE"][key] > found["CIDEr-D"][key] + 0.05


def test_cider_on_three_images() -> None:
    said = ["a dog runs on the grass", "a red car", "two people ride horses"]
    references = [
        ["a dog running on grass", "the dog runs on the grass"],
        ["a red car parked on the street", "red automobile"],
        ["two men riding horses", "people on horses"],
    ]
    scores = cider_d(said, references)
    assert scores == pytest.approx([5.044730, 2.376377, 1.496692], abs=1e-5)
    assert np.mean(scores) == pytest.approx(2.972600, abs=1e-5)
