"""Elo ratings from recorded battles between two models (LVLM-eHub's arena, arXiv 2306.09265).

    E_a = 1 / (1 + 10^((R_b - R_a) / 400))        R_a += K (S_a - E_a),  R_b -= K (S_a - E_a)

S is 1 for a win, 0.5 for a tie, 0 for a loss; everyone starts at 1000. The result depends on the order of the battles, so the
rating given is the median over shuffles, with an interval. K is not published: 32 and 4 are in use, and the narrow spread of the
published ratings speaks for 4. "Both bad" is a tie, or dropped.

    argus ratings battles.jsonl          a line per vote: {"left": "one", "right": "another", "vote": "left"}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from argus.core.errors import DataError, nearest
from argus.core.formats import field_of
from argus.core.formats.llava import records

Vote = Literal["left", "right", "tie", "both bad"]
START, SCALE = 1000.0, 400.0


@dataclass(frozen=True, slots=True)
class Battle:
    """One vote between two models."""

    left: str
    right: str
    vote: Vote


@dataclass(frozen=True, slots=True)
class Rating:
    """A model's rating: the median over orders of the battles and the middle 95 % of them."""

    model: str
    value: float
    low: float
    high: float
    battles: int


def read_battles(path: Path) -> list[Battle]:
    """The votes of a file, in their order: a JSON list, or a vote per line.

    Raises:
        DataError: the file or one of its votes cannot be read; a rating without it would be another one.
    """
    if not path.is_file():
        raise DataError("there is no such file of battles", where=str(path))
    found = []
    for one in records(path):
        if isinstance(one, DataError):
            raise one
        record, line = one
        where = f"{path}:{line}"
        left, right, vote = (field_of(record, name, str, where) for name in ("left", "right", "vote"))
        if vote not in get_args(Vote):
            raise DataError(f"'{vote}' is no vote.", where=f"{where}, field 'vote'", hint=nearest(vote, get_args(Vote)))
        if left == right:
            raise DataError(f"'{left}' fights itself", where=where)
        found.append(Battle(left, right, vote))
    return found


def elo(battles: Sequence[Battle], k: float = 4.0) -> dict[str, float]:
    """Ratings after the battles in their order; their sum stays 1000 times the number of models."""
    names, sides, scores = _table(battles)
    (found,) = _play(len(names), sides, scores, np.arange(len(battles))[None], k)
    return dict(zip(names, found.tolist(), strict=True))


def ratings(
    battles: Sequence[Battle], k: float = 4.0, *, both_bad: Literal["tie", "drop"] = "tie", shuffles: int = 1000, seed: int = 0
) -> list[Rating]:
    """Ratings that do not depend on the order of the votes, best first.

    Args:
        battles: the votes.
        k: step of an update.
        both_bad: what a vote against both counts as.
        shuffles: orders that are played.
        seed: of the orders.
    """
    counted = [b for b in battles if both_bad == "tie" or b.vote != "both bad"]
    if not counted:
        return []
    names, sides, scores = _table(counted)
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(len(counted)), (shuffles, 1)), axis=1)  # (shuffles, battles)
    found = _play(len(names), sides, scores, orders, k)
    low, middle, high = np.quantile(found, (0.025, 0.5, 0.975), axis=0)
    fought = Counter(name for b in counted for name in (b.left, b.right))
    rows = [Rating(n, float(m), float(a), float(z), fought[n]) for n, m, a, z in zip(names, middle, low, high, strict=True)]
    return sorted(rows, key=lambda r: -r.value)


def win_matrix(battles: Sequence[Battle]) -> tuple[list[str], NDArray[np.float64]]:
    """Names and (A, B): wins of A over all battles of A against B; NaN where they never met.

    Ties and votes against both are in no cell, so (A, B) + (B, A) can be below 1.
    """
    names, sides, scores = _table(battles)
    won, met = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    np.add.at(met, (sides[:, 0], sides[:, 1]), 1)
    np.add.at(met, (sides[:, 1], sides[:, 0]), 1)
    np.add.at(won, (sides[:, 0], sides[:, 1]), scores == 1)
    np.add.at(won, (sides[:, 1], sides[:, 0]), scores == 0)
    return names, np.divide(won, met, out=np.full_like(won, np.nan), where=met > 0)


def _table(battles: Sequence[Battle]) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """Names, (battles, 2) of their indices, (battles,) of the left side's score."""
    names = sorted({name for b in battles for name in (b.left, b.right)})
    index = {name: i for i, name in enumerate(names)}
    sides = np.array([(index[b.left], index[b.right]) for b in battles])
    return names, sides, np.array([{"left": 1.0, "right": 0.0}.get(b.vote, 0.5) for b in battles])


def _play(count: int, sides: NDArray, scores: NDArray, orders: NDArray, k: float) -> NDArray[np.float64]:
    """All orders at once, one battle after the other: (orders, models)."""
    rating = np.full((len(orders), count), START)
    every = np.arange(len(orders))
    for at in orders.T:  # (orders,): the battle that each order plays now
        a, b = sides[at, 0], sides[at, 1]
        expected = 1 / (1 + 10 ** ((rating[every, b] - rating[every, a]) / SCALE))
        step = k * (scores[at] - expected)
        rating[every, a] += step
        rating[every, b] -= step
    return rating
