"""What of a score is seeing ("Are We on the Right Way for Evaluating Large Vision-Language Models?", arXiv 2403.20330).

With the scores of one model with pictures S_v, without them S_wv, and of its language model before it met pictures S_t:

    multimodal gain     MG = S_v - S_wv              (its sign is kept)
    multimodal leakage  ML = max(0, S_wv - S_t)      (clipped per benchmark, then averaged)

and, from the answers of k text-only inspectors, the hits of an item: how many of them are right without its picture.
An item that few hit needs its picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FEW = 2  # the paper keeps items that at most 2 of its 8 inspectors answer
MANY = 6  # and calls a hit by 6 or more abnormal


def multimodal_gain(seen: float, blind: float) -> float:
    """MG: what pictures add to a score."""
    return seen - blind


def multimodal_leakage(blind: float, base: float) -> float:
    """ML: what a model knows of a benchmark's answers without pictures beyond what its language model knew."""
    return max(0.0, blind - base)


def average(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """Mean MG and ML over benchmarks, each row (seen, blind, base)."""
    gains = [multimodal_gain(seen, blind) for seen, blind, _ in rows]
    leaks = [multimodal_leakage(blind, base) for _, blind, base in rows]
    return sum(gains) / len(gains), sum(leaks) / len(leaks)


def hits(right: ArrayLike) -> NDArray[np.int64]:
    """Per item, how many inspectors are right without its picture.

    Args:
        right: (inspectors, items) of 0 and 1.
    """
    return np.asarray(right).astype(np.int64).sum(0)


def needs_picture(hit: ArrayLike, most: int = FEW) -> NDArray[np.bool_]:
    """Which items to keep: those that at most `most` inspectors hit. Of k inspectors the mean accuracy on them is <= most / k."""
    return np.asarray(hit) <= most


def abnormal_hit_rate(hit: ArrayLike, least: int = MANY) -> float:
    """Share of items that `least` inspectors or more hit."""
    return float((np.asarray(hit) >= least).mean())


def leaked(base_right: ArrayLike, blind_right: ArrayLike) -> NDArray[np.bool_]:
    """Which items leaked into training: more than half of the pairs hit them.

    A pair (language model, the multimodal model made of it) hits an item that the first answers wrongly and the second, without
    the picture, rightly.

    Args:
        base_right, blind_right: (pairs, items) of 0 and 1.
    """
    base, blind = np.asarray(base_right, dtype=bool), np.asarray(blind_right, dtype=bool)
    return (blind & ~base).sum(0) > len(base) / 2
