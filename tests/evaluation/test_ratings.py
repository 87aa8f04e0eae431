"""Elo: equal players, sums, order."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from argus.cli.app import app
from argus.core.errors import DataError
from argus.evaluation.ratings import Battle, elo, ratings, read_battles, win_matrix

NAMES = ["a", "b", "c", "d"]
BATTLES = st.lists(
    st.builds(
        lambda pair, vote: Battle(*pair, vote),
        st.permutations(NAMES).map(lambda p: p[:2]),
        st.sampled_from(["left", "right", "tie", "both bad"]),
    ),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize(("k", "step"), [(32, 16), (4, 2)])
def test_a_win_between_equals(k: float, step: float) -> None:
    assert elo([Battle("a", "b", "left")], k) == {"a": 1000 + step, "b": 1000 - step}
    assert elo([Battle("a", "b", "tie")], k) == {"a": 1000, "b": 1000}


@given(BATTLES)
def test_ratings_equal_the_plain_loop_and_sum_to_a_thousand_each(battles: list[Battle]) -> None:
    found = elo(battles, 32)
    by_hand = dict.fromkeys(found, 1000.0)
    for b in battles:
        expected = 1 / (1 + 10 ** ((by_hand[b.right] - by_hand[b.left]) / 400))
        step = 32 * ({"left": 1.0, "right": 0.0}.get(b.vote, 0.5) - expected)
        by_hand[b.left] += step
        by_hand[b.right] -= step
    assert found == pytest.approx(by_hand)
    assert sum(found.values()) == pytest.approx(1000 * len(found))


def test_the_order_of_votes_matters_and_the_median_does_not_show_it() -> None:
    battles = [Battle("a", "b", "left")] * 10 + [Battle("a", "b", "right")] * 10
    assert elo(battles, 32)["a"] < elo(battles[::-1], 32)["a"] - 20
    there, back = ratings(battles, 32), ratings(battles[::-1], 32)
    assert {r.model: r.value for r in there} == pytest.approx({r.model: r.value for r in back}, abs=10)
    assert all(r.low < 1000 < r.high for r in there)


def test_the_better_model_leads() -> None:
    rng = np.random.default_rng(0)
    battles = [Battle("good", "bad", "left" if rng.random() < 0.8 else "right") for _ in range(300)]
    first, second = ratings(battles, 4, shuffles=100)
    assert (first.model, second.model) == ("good", "bad")
    assert first.low > second.high
    assert first.battles == 300


def test_both_bad_may_be_dropped() -> None:
    battles = [Battle("a", "b", "left"), Battle("b", "c", "both bad")]
    assert {r.model for r in ratings(battles)} == {"a", "b", "c"}
    assert {r.model for r in ratings(battles, both_bad="drop")} == {"a", "b"}
    assert ratings([Battle("a", "b", "both bad")], both_bad="drop") == []


def test_ties_are_in_no_cell_of_the_win_matrix() -> None:
    names, cells = win_matrix(
        [Battle("a", "b", "left"), Battle("b", "a", "left"), Battle("a", "b", "tie"), Battle("a", "b", "left")]
    )
    assert names == ["a", "b"]
    assert cells[0, 1] == 0.5
    assert cells[1, 0] == 0.25
    assert np.isnan(cells[0, 0])


def votes(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    path.write_text("".join(json.dumps(dict(zip(("left", "right", "vote"), row, strict=True))) + "\n" for row in rows))
    return path


def test_ratings_of_a_file_of_votes(tmp_path: Path) -> None:
    file = votes(tmp_path / "battles.jsonl", [("a", "b", "left")] * 3 + [("b", "a", "tie"), ("b", "c", "both bad")])
    assert len(read_battles(file)) == 5
    shown = CliRunner().invoke(app, ["ratings", str(file), "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.output)
    assert [row["model"] for row in found["ratings"]] == ["a", "c", "b"]
    assert sum(row["value"] for row in found["ratings"]) == pytest.approx(3000, abs=0.5)
    assert found["wins"]["a"] == {"b": 0.75}
    text = CliRunner().invoke(app, ["ratings", str(file), "--both-bad", "drop", "--shuffles", "20"]).output
    assert "a " in text
    assert "0.75" in text
    empty = CliRunner().invoke(app, ["ratings", str(votes(tmp_path / "none.jsonl", []))])
    assert empty.exit_code == 2
    assert "there is no vote in it" in empty.output


@pytest.mark.parametrize(
    ("row", "reason"),
    [(("a", "b", "lift"), "Did you mean 'left'"), (("a", "a", "left"), "fights itself")],
)
def test_a_vote_that_cannot_be_read_stops_the_rating(tmp_path: Path, row: tuple[str, str, str], reason: str) -> None:
    with pytest.raises(DataError, match=f":2.*{reason}"):
        read_battles(votes(tmp_path / "battles.jsonl", [("a", "b", "left"), row]))
    with pytest.raises(DataError, match="no such file"):
        read_battles(tmp_path / "missing.jsonl")
