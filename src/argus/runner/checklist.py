"""How well a benchmark was made and is judged: the survey's precautions (MME-Survey, arXiv 2411.15296) as answers of an audit.

    construction   its questions need their pictures; its items were not trained on; it asks in several ways; each task has enough
                   items for a stable number; no answer is likelier than another
    judging        what a blind guess and a person score is known; the same answers give the same score

A check holds, fails, or was not made (None), each with the number it rests on. Questions are those of the audit, so most checks
are as good as its model is at guessing and its number of questions is large.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from argus.core.run import Run
from argus.core.sample import Sample
from argus.evaluation.overlap import overlap
from argus.evaluation.statistics import Difference, mean

STABLE = 0.1  # widest half of a task's 95 % interval
SKEWED = 1.3  # the most frequent answer against chance; the world's own limit


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was checked, whether it holds (None: not checked), and the number behind it."""

    name: str
    holds: bool | None
    text: str


def checklist(
    done: Run, findings: dict[str, Difference], training: Iterable[Sample] | None, items: Sequence[Sample]
) -> list[Check]:
    """The checks of a finished audit.

    Args:
        findings: the audit's findings by name.
        training: what a model was trained on, if it is at hand.
        items: the benchmark's items, to be looked for in it.
    """
    seen = _answers(done, "seen")
    return [
        _needs_pictures(findings["guessed without looking"]),
        _leaked(findings.get("multimodal leakage")),
        _trained_on(training, items),
        _diverse(seen),
        _enough(seen),
        _balanced(seen),
        Check("blind baseline", bool(seen), f"a guess is right in {_share(sum(map(_chance, seen)) / max(1, len(seen)))}"),
        Check("human level", None, "a person has to answer"),
        Check("judged the same each time", True, "by a script that compares with the right answer"),
    ]


def _needs_pictures(blind: Difference) -> Check:
    text = f"without pictures {100 * blind.value:+.1f} points above chance ({100 * blind.low:+.1f} to {100 * blind.high:+.1f})"
    return Check("needs its pictures", None if math.isnan(blind.low) else blind.low <= 0, text)


def _leaked(leak: Difference | None) -> Check:
    if leak is None:
        return Check("not learned by heart", None, "the language model that the model was made of was not asked (--base)")
    return Check("not learned by heart", leak.low <= 0, f"multimodal leakage {100 * leak.value:.1f} points")


def _trained_on(training: Iterable[Sample] | None, items: Sequence[Sample]) -> Check:
    if training is None:
        return Check("not in the training data", None, "no training data was given (--training)")
    found = overlap(items, training, words=False)
    return Check(
        "not in the training data",
        not any(found),
        f"{_share(sum(found) / max(1, len(found)))} of the items' pictures stand in it",
    )


def _diverse(seen: Sequence[dict[str, Any]]) -> Check:
    families, domains = ({r[key] for r in seen} for key in ("family", "domain"))
    return Check("several kinds of questions", len(families) > 1, f"{len(families)} kinds of questions, {len(domains)} domains")


def _enough(seen: Sequence[dict[str, Any]]) -> Check:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in seen:
        groups[record["family"]].append(record)
    widest, family = 0.0, ""
    for name, records in groups.items():
        m = mean([r["values"]["accuracy"] for r in records], [r["group"] for r in records])
        if (half := (m.high - m.low) / 2) > widest:
            widest, family = half, name
    return Check(
        "enough items per task", bool(groups) and widest <= STABLE, f"widest interval: ± {100 * widest:.1f} points ({family})"
    )


def _balanced(seen: Sequence[dict[str, Any]]) -> Check:
    """Per task, the share of its most frequent right answer against chance, less twice its standard error."""
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in seen:
        if record["options"]:
            groups[record["family"]].append(record)
    worst, text = 0.0, "no question has options"
    for name, records in groups.items():
        answer, count = Counter(r["target"] for r in records).most_common(1)[0]
        share, chance = count / len(records), sum(map(_chance, records)) / len(records)
        least = share - 2 * math.sqrt(share * (1 - share) / len(records))
        if least / chance > worst:
            worst, text = least / chance, f"'{answer}' is right in {_share(share)} of {name}, chance {_share(chance)}"
    return Check("no answer is likelier than another", worst < SKEWED if groups else None, text)


def _chance(record: dict[str, Any]) -> float:
    return 1 / len(record["options"]) if record["options"] else 0.0


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _answers(done: Run, variant: str) -> list[dict[str, Any]]:
    """The scored records of a variant."""
    found = []
    for path in sorted((done.folder / "records").glob(f"{variant}.*.jsonl")):
        with done.records(path.stem) as records:
            found += [
                r for r in records.records() if r["kind"] == "answer" and not r["blind"] and "accuracy" in r.get("values", {})
            ]
    return found
