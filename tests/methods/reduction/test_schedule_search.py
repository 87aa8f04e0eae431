"""Searchers on metrics whose answer is known; shapes and budgets of schedules; the optimiser beside them."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from argus.core.errors import ArgusError
from argus.methods.reduction.bayesian import maximise, posterior
from argus.methods.reduction.diagnostics import kendall_tau
from argus.methods.reduction.schedule_search import greedy, p_sigmoid
from argus.methods.reduction.schedules import Schedule, checked, decoder_flops, mean_share, sigmoid, step


class Essential:
    """1 where every layer sees its essential tokens, 0 elsewhere; counts the calls by what they vary."""

    def __init__(self, sizes: list[int], tokens: int) -> None:
        self.sizes, self.tokens, self.calls = sizes, tokens, list[list[int]]()

    def __call__(self, schedule: Schedule) -> float:
        counts = [math.floor(share * self.tokens + 0.5) for share in schedule]
        self.calls.append(counts)
        return float(all(k >= e for k, e in zip(counts, self.sizes, strict=True)))


def test_greedy_by_hand() -> None:
    """Eight tokens, four layers that need 8, 5, 3 and 1: found in at most 4 + 4 + 3 + 2 questions behind the one for `full`."""
    metric = Essential([8, 5, 3, 1], 8)
    found = greedy(metric, 4, 8, tolerance=0.0, first=0)
    assert found.schedule == (1.0, 5 / 8, 3 / 8, 1 / 8)
    assert (found.value, found.full) == (1.0, 1.0)
    assert found.evaluations == len(metric.calls) <= 1 + 4 + 4 + 3 + 2
    assert [k for k in range(9) if Essential([8, 5, 3, 1], 8)((k / 8,) * 4)] == [8]  # uniform schedules need all


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(5, 7))
def test_greedy_is_the_least(sizes: list[int], tokens: int) -> None:
    """Against trying every falling schedule: the least total is that of the essential sets, and greedy finds it."""
    sizes = sorted(sizes, reverse=True)
    found = greedy(Essential(sizes, tokens), len(sizes), tokens, tolerance=0.0, first=0)
    assert found.schedule == tuple(e / tokens for e in sizes)
    falling = (k for k in itertools.product(range(tokens + 1), repeat=len(sizes)) if list(k) == sorted(k, reverse=True))
    enough = (k for k in falling if Essential(sizes, tokens)(tuple(n / tokens for n in k)))
    assert sum(min(enough, key=sum)) == sum(sizes)


def test_greedy_leaves_the_first_layers_and_holds_between() -> None:
    """The first two layers keep everything; every second layer is searched and its number held."""
    found = greedy(Essential([9, 8, 7, 6, 3, 2, 1], 16), 7, 16, first=2, every=2)
    assert found.schedule == (1.0, 1.0, 7 / 16, 7 / 16, 3 / 16, 3 / 16, 1 / 16)


def test_greedy_allows_what_may_be_lost() -> None:
    """A metric that falls by 0.001 per token missing in the last layer: a tolerance of 0.0055 gives five tokens."""

    def metric(schedule: Schedule) -> float:
        return 1 - 0.001 * (10 - 10 * schedule[-1])

    assert greedy(metric, 3, 10, tolerance=0.0055).schedule == (1.0, 1.0, 0.5)


def test_greedy_by_bayesian_optimisation() -> None:
    """Never too few tokens, reproducible, and near the least."""
    found = [greedy(Essential([32, 32, 20, 6], 32), 4, 32, method="bayesian", seed=3) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].value == 1.0
    assert 20 <= found[0].schedule[2] * 32 <= 23
    assert 6 <= found[0].schedule[3] * 32 <= 9


@given(
    depth=st.integers(3, 40),
    keep=st.floats(0, 1),
    steepness=st.floats(0.5, 200),
    plateau=st.floats(0, 1),
    tokens=st.integers(1, 600),
)
def test_sigmoids_meet_their_budget(depth: int, keep: float, steepness: float, plateau: float, tokens: int) -> None:
    """Falling shares whose mean behind the first two layers is exact, and within half a token per layer as counts."""
    schedule = checked(sigmoid(depth, keep, steepness, plateau), depth)
    assert schedule[:2] == (1.0, 1.0)
    assert sum(schedule[2:]) / (depth - 2) == pytest.approx(keep, abs=1e-9)
    counts = [math.floor(share * tokens + 0.5) for share in schedule[2:]]
    assert abs(sum(counts) / len(counts) - keep * tokens) <= 0.5 + 1e-6
    assert counts == sorted(counts, reverse=True)


def test_a_flat_sigmoid_is_a_step() -> None:
    assert sigmoid(6, 0.125, 20.0, plateau=0.125) == step(6, 2, 0.125) == (1.0, 1.0, 0.125, 0.125, 0.125, 0.125)
    assert sigmoid(4, 1.0, 20.0) == (1.0,) * 4
    assert sigmoid(4, 0.5, 1000.0) == pytest.approx((1.0, 1.0, 1.0, 0.0))


def test_p_sigmoid_finds_a_known_shape() -> None:
    """The metric is nearness to one sigmoid: the search comes closer than its random starts and FastV's step; seeds repeat it."""
    target, asked = sigmoid(12, 0.3, 9.0, 0.8), list[Schedule]()

    def metric(schedule: Schedule) -> float:
        asked.append(schedule)
        return -math.dist(schedule, target)

    found = p_sigmoid(metric, 12, 0.3, starts=5, steps=25, seed=1)
    full, flat, *starts = [metric(s) for s in asked[:7]]
    assert found.full == full
    assert asked[1] == step(12, 2, 0.3)
    assert found.value > max(flat, *starts)
    assert found.value > -0.1
    assert mean_share(found.schedule) == pytest.approx((2 + 10 * 0.3) / 12)
    assert p_sigmoid(metric, 12, 0.3, starts=5, steps=25, seed=1) == found
    assert found.record()["schedule"] == list(found.schedule)


def test_everything_as_a_budget() -> None:
    assert p_sigmoid(sum, 4, 1.0).schedule == (1.0,) * 4


def test_maximise_a_bump() -> None:
    """Two coordinates of different range; nothing left to luck."""

    def bump(point: tuple[float, ...]) -> float:
        return math.exp(-((point[0] - 0.7) ** 2) * 8 - ((point[1] - 30) / 40) ** 2)

    found = [maximise(bump, [(0, 1), (0, 100)], starts=5, steps=20, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert len(found[0].asked) == 25
    assert found[0].value == max(value for _, value in found[0].asked) >= max(v for _, v in found[0].asked[:5])
    assert min(f.value for f in found) > 0.99
    assert maximise(lambda point: 1.0, [(0, 1)], starts=1, steps=2).value == 1.0  # a constant has no deviation


def test_the_process_goes_through_its_points() -> None:
    """At asked points: the values, without doubt; far from them: the prior."""
    points = torch.tensor([[0.0], [0.3], [1.0]], dtype=torch.float64)
    values = torch.tensor([-1.0, 1.2, -0.2], dtype=torch.float64)
    mean, deviation = posterior(points, values, torch.cat([points, torch.tensor([[100.0]], dtype=torch.float64)]))
    torch.testing.assert_close(mean[:3], values, atol=1e-4, rtol=0)
    assert bool((deviation[:3] < 2e-3).all())
    assert float(mean[3]) == pytest.approx(0, abs=1e-6)
    assert float(deviation[3]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("shares", "word"), [((1.0, 0.5, 0.6), "greater than"), ((1.0, 1.2, 0.1), "from 0 to 1"), ((1.0, 0.5), "2 shares")]
)
def test_schedules_that_are_none(shares: Schedule, word: str) -> None:
    with pytest.raises(ArgusError, match=word):
        checked(shares, 3)


def test_budgets_by_hand() -> None:
    """Two layers, 4 visual and 2 text tokens, D = 3, m = 5: n = 6 and n = 4."""
    assert mean_share((1.0, 0.5)) == 0.75
    layers = [2 * (4 * n * 9 + 2 * n * n * 3 + 3 * n * 3 * 5) for n in (6, 4)]
    assert decoder_flops((1.0, 0.5), visual=4, text=2, width=3, ffn=5) == sum(layers)


def test_kendall_tau_equals_scipy() -> None:
    """With ties, reversed and constant rows."""
    values = torch.rand(5, 30, generator=torch.Generator().manual_seed(0))
    values[1] = (values[0] * 4).round()
    values[2] = -values[0]
    values[4] = 0.5
    table = kendall_tau(values)
    for a, b in itertools.product(range(4), repeat=2):
        assert float(table[a, b]) == pytest.approx(kendalltau(values[a], values[b]).statistic)
    assert float(table[0, 2]) == pytest.approx(-1)
    assert bool((table[4] == 0).all())
