"""The index of benchmarks: three branches, 28 leaves, complete cards, one scale."""

from __future__ import annotations

from pathlib import Path

import pytest

from argus.core import benchmarks as index
from argus.core.benchmarks import benchmark, benchmarks, by_leaf, covering, readable, taxonomy
from argus.core.errors import UnknownNameError, UnsupportedError
from argus.core.papers import papers
from argus.core.registry import components

LEAVES = [leaf for of in taxonomy().values() for leaf in of]
METHODS = {"chef", "mme-survey"}  # papers on evaluation that are no benchmarks; the survey's own is `mme`


def test_the_taxonomy_has_three_branches_and_28_leaves() -> None:
    assert {branch: len(leaves) for branch, leaves in taxonomy().items()} == {
        "foundational": 14,
        "self-analysis": 4,
        "applications": 10,
    }
    assert len(set(LEAVES)) == 28


def test_every_benchmark_has_a_leaf_and_a_complete_card() -> None:
    for one in benchmarks():
        assert set(one.card.leaves) <= set(LEAVES), one.name
        assert one.card.chance is None or one.card.chance != one.card.best


def test_every_benchmark_of_the_framework_has_a_card() -> None:
    names = {b.name for b in benchmarks()}
    assert {p.slug for p in papers() if p.area == "evaluation"} - METHODS <= names
    assert {row.paper for row in components("scenario") if row.paper} - METHODS <= names
    assert {f"world/{row.name}" for row in components("domain")} <= names
    assert readable()["seed-bench"] == "seed_bench"


@pytest.mark.parametrize(
    "wanted", [["video"], ["video", "OCR"], ["hallucination", "multi-image"], ["self-analysis", "comprehensive"]]
)
def test_several_leaves_give_what_has_all_of_them(wanted: list[str]) -> None:
    def has(leaves: list[str], leaf: str) -> bool:
        return bool(set(taxonomy().get(leaf, [leaf])) & set(leaves))

    brute = [b.name for b in benchmarks() if all(has(b.card.leaves, leaf) for leaf in wanted)]
    assert [b.name for b in benchmarks(wanted)] == brute
    with pytest.raises(UnknownNameError, match="Did you mean 'video'"):
        benchmarks(["vidio"])


def test_a_covering_set_covers_and_none_of_it_is_idle() -> None:
    wanted = ["OCR", "video", "hallucination", "medical"]
    chosen = covering(wanted)
    covered = {name: set(benchmark(name).card.leaves) & set(wanted) for name in chosen}
    assert set().union(*covered.values()) == set(wanted)
    assert len(chosen) == 3  # SEED-Bench-2 has two of the four
    assert covering(["GUI"]) == []


def test_cost_grows_with_questions_and_pictures_and_with_a_judge() -> None:
    assert {name: benchmark(name).card.cost() for name in ("mmstar", "spark", "seed-bench", "touchstone", "world/objects")} == {
        "mmstar": "small",
        "spark": "medium",
        "seed-bench": "large",
        "touchstone": "judged",
        "world/objects": "any",
    }


def test_guessing_is_0_in_every_leaf_and_the_best_is_1() -> None:
    cards = {b.name: b.card for b in benchmarks() if b.card.chance is not None}
    guess = by_leaf({name: card.chance for name, card in cards.items() if card.chance is not None})
    best = by_leaf({name: card.best for name, card in cards.items()})
    assert {name: value for name, (value, _) in guess.items()} == {name: pytest.approx(0, abs=0.02) for name in guess}
    assert {name: value for name, (value, _) in best.items()} == {name: pytest.approx(1) for name in best}
    assert set(taxonomy()) <= set(best)
    with pytest.raises(UnsupportedError, match="what guessing scores in SPARK is not known"):
        by_leaf({"spark": 50.0})


def test_benchmarks_count_the_same_in_a_leaf_and_leaves_in_a_branch() -> None:
    """MMStar 62.5 of 25..100 is 0.5; MME 137.5 of 75..200 is 0.5; TableVQA 80 is 0.8; AutoHallusion 25 of 50..0 is 0.5."""
    found = by_leaf({"mmstar": 62.5, "mme": 137.5, "tablevqa-bench": 80.0, "autohallusion": 25.0})
    assert found["comprehensive"] == (0.5, 2)
    assert found["OCR"] == (pytest.approx((0.5 + 0.8) / 2), 2)
    assert found["charts and documents"] == (0.8, 1)
    assert found["foundational"] == (pytest.approx((0.5 + 0.65 + 0.8) / 3), 3)
    assert found["hallucination"] == (0.5, 1)


def test_twins_and_audits_are_derived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert benchmark("mmstar").twin == "papers/mmstar.yaml"
    assert benchmark("seed-bench").twin == "papers/seed-bench.yaml"
    monkeypatch.setattr(index, "audits_folder", lambda: tmp_path / "audits")
    assert benchmark("world/objects").audit is None
    index.record_audit("world/objects", {"findings": [], "checks": []})
    assert benchmark("world/objects").audit == {"findings": [], "checks": []}
