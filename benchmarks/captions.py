"""Which caption metric notices what is wrong? CAPTURE, BLEU-4 and CIDEr-D on captions with a known number of errors.

    python benchmarks/captions.py

Captions of drawn scenes are corrupted step by step: a thing left out, a thing added, a wrong colour, a wrong place. Things are
told in another order than the reference's, as different writers do. For each metric: Kendall's tau between score and (negative)
number of errors among the captions of one picture, and between score and the true F1 of the facts, per picture and overall.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
from scipy.stats import kendalltau

from argus.core.registry import build
from argus.evaluation.captions import capture, parse
from argus.evaluation.cider import cider_d

ERRORS = 6


def corrupted(facts: list[str], rng: np.random.Generator) -> list[list[str]]:
    """The facts with 0, 1, ... errors, each on top of the ones before."""
    steps, current = [list(facts)], list(facts)
    untouched = list(range(len(facts)))
    for _ in range(ERRORS):
        kind = rng.integers(4) if untouched else 1
        if kind == 1:
            colour, shape, side = (rng.choice(w) for w in (["white", "golden"], ["arrow", "moon", "leaf"], ["top", "bottom"]))
            current = [*current, f"a tiny {colour} glossy {shape} at the {side} edge"]
        else:
            at = untouched.pop(int(rng.integers(len(untouched))))
            words = current[at].split()
            if kind == 0:
                words = []
            elif kind == 2:
                words[2] = "white"
            else:
                words[-2:] = ["outer", "edge"]
            current = [*current[:at], " ".join(words), *current[at + 1 :]]
        steps.append(current)
    return steps


def fact_f1(said: list[str], true: list[str]) -> float:
    """F1 of the facts themselves: the truth that no metric sees."""
    stated = {s for s in said if s}
    right = len(stated & set(true))
    return 2 * right / (len(stated) + len(set(true))) if stated else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--encoder", choices=["none", "minilm"], default="none", help="third stage of CAPTURE")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.scenes, arguments.encoder), indent=1))


def measure(scenes: int, encoder: str = "none") -> dict[str, dict[str, float]]:
    """Metric -> its two agreements."""
    from sacrebleu import sentence_bleu

    encode = None
    if encoder == "minilm":
        from argus.evaluation.sentences import SentenceEncoder

        encode = SentenceEncoder()
    domain = build("domain", "objects", {"min_objects": 4, "max_objects": 6})
    rng = np.random.default_rng(0)
    said: list[str] = []
    true: list[str] = []
    f1: list[float] = []
    for index in range(scenes):
        facts = list(domain.draw("test", index, 64, 1, ("caption",)).questions[0].facts)
        for step in corrupted(facts, rng):
            told = [fact for fact in step if fact]
            said.append(" ; ".join(told[i] for i in rng.permutation(len(told))))
            true.append(" ; ".join(facts))
            f1.append(fact_f1(step, facts))
    metrics: dict[str, Callable[[], list[float]]] = {
        "CAPTURE": lambda: [capture(parse(a), parse(b), encode=encode).score for a, b in zip(said, true, strict=True)],
        "BLEU-4": lambda: [sentence_bleu(a, [b]).score for a, b in zip(said, true, strict=True)],
        "CIDEr-D": lambda: cider_d(said, [[text] for text in true]),
    }
    found = {}
    for name, score in metrics.items():
        values = np.array(score()).reshape(scenes, ERRORS + 1)
        truth = np.array(f1).reshape(values.shape)
        errors = [kendalltau(row, -np.arange(ERRORS + 1)).statistic for row in values]
        facts = [kendalltau(row, true_row).statistic for row, true_row in zip(values, truth, strict=True)]
        found[name] = {
            "tau with errors, per picture": round(float(np.nanmean(errors)), 3),
            "tau with fact F1, per picture": round(float(np.nanmean(facts)), 3),
            "tau with fact F1, overall": round(float(kendalltau(values.ravel(), f1).statistic), 3),
        }
    return found


if __name__ == "__main__":
    main()
