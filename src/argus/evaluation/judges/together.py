"""Several judges as one.

mean: value = mean over the judges that gave one; ratios are pooled; the label is the most frequent
vote: the most frequent label, worth what its judges say; without a strict majority over every other label there is none
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import mean

from argus.evaluation.judges.asked import Verdict
from argus.evaluation.judges.base import Judgement


def averaged(judgements: Sequence[Judgement]) -> Judgement:
    """Several judgements of one answer by their mean."""
    values = [j.value for j in judgements if j.value is not None]
    return Judgement(mean(values) if values else None, majority(judgements), *_pooled(judgements))


def voted(judgements: Sequence[Judgement], worth: Callable[[str], float]) -> Judgement:
    """Several judgements of one answer by their votes; `undecided` counts answers without a majority."""
    label = majority(judgements)
    ratios, verdicts = _pooled(judgements)
    kept = {"unreadable": ratios["unreadable"], "undecided": (float(label is None), 1.0)}
    return Judgement(None if label is None else worth(label), label, kept, verdicts)


def majority(judgements: Sequence[Judgement]) -> str | None:
    """The most frequent label; None where none was given or two are as frequent."""
    counted = Counter(j.label for j in judgements if j.label is not None).most_common(2)
    if not counted or (len(counted) == 2 and counted[0][1] == counted[1][1]):
        return None
    return counted[0][0]


def _pooled(judgements: Sequence[Judgement]) -> tuple[dict[str, tuple[float, float]], list[Verdict]]:
    sums: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for judgement in judgements:
        for name, (part, whole) in judgement.ratios.items():
            sums[name] = sums[name][0] + part, sums[name][1] + whole
    return dict(sums), [v for j in judgements for v in j.verdicts]
