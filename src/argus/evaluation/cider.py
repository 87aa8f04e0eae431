"""CIDEr-D: n-gram consensus with several references ("CIDEr", arXiv 1411.5726).

    g_n(s)     = tf-idf of the n-grams of s, idf = log(images) - log(max(1, images whose references hold it))
    s_n(c, r)  = min(g_n(c), g_n(r)) . g_n(r) / (|g_n(c)| |g_n(r)|) * exp(-(l_c - l_r)^2 / (2 sigma^2))
    CIDEr-D    = 10 * mean over n = 1..4 and over references r of s_n(c, r)

sigma = 6 and n = 4 are the published constants. Lengths are counts of bigrams, as in the released scorer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

N, SIGMA = 4, 6.0

Grams = list[Counter[tuple[str, ...]]]  # per n


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each candidate; texts are split at blanks, so tokenise first.

    Args:
        candidates: one caption per image.
        references: per image one or more captions.
    """
    said = [_grams(text) for text in candidates]
    wanted = [[_grams(text) for text in texts] for texts in references]
    frequency: Counter[tuple[str, ...]] = Counter()
    for image in wanted:
        frequency.update({gram for one in image for counts in one for gram in counts})
    size = math.log(len(references))

    def weigh(grams: Grams) -> list[dict[tuple[str, ...], float]]:
        return [{g: k * (size - math.log(max(1.0, frequency[g]))) for g, k in counts.items()} for counts in grams]

    scores = []
    for one, image in zip(said, wanted, strict=True):
        mine = weigh(one)
        found = [_similarity(mine, weigh(other), one[1].total() - other[1].total()) for other in image]
        scores.append(10 * sum(found) / len(found))
    return scores


def _grams(text: str) -> Grams:
    words = text.split()
    return [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for n in range(1, N + 1)]


def _similarity(a: list[dict[tuple[str, ...], float]], b: list[dict[tuple[str, ...], float]], longer: int) -> float:
    """Mean over n of the clipped cosine, times the penalty of the lengths."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        dot = sum(min(v, y[g]) * y[g] for g, v in x.items() if g in y)
        norms = math.sqrt(sum(v * v for v in x.values())) * math.sqrt(sum(v * v for v in y.values()))
        total += dot / norms if norms else dot
    return total / N * math.exp(-(longer**2) / (2 * SIGMA**2))
