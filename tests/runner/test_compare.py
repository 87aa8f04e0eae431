"""Several runs on one page: leaderboard, radar, paired differences, items."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from argus.core.errors import DataError
from argus.core.run import Run
from argus.report.comparison import Board, Item
from argus.report.summary import Summary
from argus.runner.compare import SHOWN, _board, _entries, _varied, compare
from argus.runner.run import run


def finished(root: Path, *changes: tuple[str, str]) -> Run:
    from tests.runner.conftest import RECIPE
    from tests.runner.tiny import tiny_model

    text = RECIPE.format(model=tiny_model())
    for old, new in (("  fastv: {attach: {fastv: {keep: 0.25, layer: 1}}}\n", ""), *changes):
        assert old in text
        text = text.replace(old, new)
    root.mkdir(exist_ok=True)
    (root / "tiny.yaml").write_text(text[: text.index("claims:")])
    return run(root / "tiny.yaml", root=root / "runs")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs on the same questions, one asked otherwise, and one on other questions."""
    root = tmp_path_factory.mktemp("compared")
    same = finished(root / "a"), finished(root / "b", ("batch_size: 2", "instruction: options"), ("fastervlm", "pruned"),
                                          ("attach: {pruned", "attach: {fastervlm"))  # fmt: skip
    other = finished(root / "c", ("samples: 48", "samples: 24"))
    return [run.folder for run in (*same, other)]


def answers(folder: Path, variant: str) -> dict[str, dict]:
    rows = map(json.loads, (folder / f"records/{variant}.objects.jsonl").read_text().splitlines())
    return {row["id"]: row for row in rows if row["kind"] == "answer"}


def test_every_question_is_compared(runs: list[Path], tmp_path: Path) -> None:
    page, table = compare(runs[:2], tmp_path)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [head.removesuffix(": points") for head in rows[0] if head.endswith(": points")]
    assert [re.sub(r".*: ", "", name) for name in names] == ["full", "fastervlm", "full", "pruned"]
    assert names[1] == "fastervlm"  # a name that is there once says enough
    assert len(rows) == 48
    first, last = answers(runs[0], "full"), answers(runs[1], "pruned")
    for row in rows:
        assert row[f"{names[0]}: answer"] == first[row["id"]]["answer"]
        assert float(row[f"{names[3]}: points"]) == last[row["id"]]["correct"]
    html = page.read_text()
    wins = sum(last[i]["correct"] > first[i]["correct"] for i in first)
    losses = sum(last[i]["correct"] < first[i]["correct"] for i in first)
    line = re.search(r'<th scope="row">pruned</th><td class="number">[^<]*\([^<]*</td>(.*)</tr>', html)
    assert line
    assert [int(n) for n in re.findall(r'number">(\d+)<', line[1])[:2]] == [wins, losses]


def test_the_page_shows_leaderboard_radar_and_pictures(runs: list[Path], tmp_path: Path) -> None:
    html = compare(runs[:2], tmp_path)[0].read_text()
    assert "By capability" in html  # existence, colour and count span an area
    assert html.count("<svg") == 1
    assert "Missed most" in html
    assert 0 < html.count("data:image/webp") == html.count('<article class="example">') <= 2 * SHOWN
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
    places = [
        float(v)
        for v in re.findall(
            r'<th scope="row">[^<]*</th>\s*<td class="number[^"]*"><span class="value">(?:<span.*?</span></span> )?([\d.]+) %',
            html,
        )
    ]
    assert len(places) == 4
    assert places == sorted(places, reverse=True)


def test_runs_on_other_questions_do_not_meet(runs: list[Path], tmp_path: Path) -> None:
    html = compare(runs, tmp_path)[0].read_text()  # the third run's variants meet each other alone
    assert html.count('<section aria-labelledby="board-') == 2
    with pytest.raises(DataError, match="not finished"):
        compare([tmp_path], tmp_path)


def changed(folder: Path, to: Path, variant: str, change: Callable[[dict], dict | None]) -> Path:
    """A copy of a run with the answers of one variant changed; a record that becomes None goes."""
    copy = to / "copied" / folder.name
    shutil.copytree(folder, copy)
    file = copy / f"records/{variant}.objects.jsonl"
    rows = [change(row) if row["kind"] == "answer" else row for row in map(json.loads, file.read_text().splitlines())]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))
    return copy


def test_numbers_are_over_the_questions_that_all_answered(runs: list[Path], tmp_path: Path) -> None:
    """One run could not score the questions that another one got right, so that nothing right is left of these."""
    right = {i for i, row in answers(runs[0], "full").items() if row["correct"]}
    assert 0 < len(right) < 48
    fewer = changed(runs[1], tmp_path, "full", lambda r: {**r, "error": "torn"} if r["id"] in right else r)
    (board,) = compared([runs[0], fewer])
    assert len(board.items) == board.evaluated.questions == 48 - len(right)
    assert board.own == []
    first = board.evaluated.results[0]
    assert (first.metrics["accuracy"].value, first.metrics["accuracy"].n) == (0, 48 - len(right))
    whole = Summary.load(runs[0]).evaluated[0]
    assert whole.results[0].metrics["accuracy"].value == len(right) / 48
    assert first.metrics["visual_tokens"] == whole.results[0].metrics["visual_tokens"]
    assert {r.metrics["accuracy"].n for r in board.evaluated.results[:2]} == {48 - len(right)}
    options = [len(answers(runs[0], "full")[item.id]["options"]) for item in board.items]
    assert board.evaluated.chance["all"] == pytest.approx(sum(1 / n for n in options) / len(options))
    assert "the numbers are over these. They differ" in compare([runs[0], fewer], tmp_path)[0].read_text()


def test_numbers_that_cannot_be_computed_again_are_named(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = next(iter(answers(runs[1], "full")))
    fewer = changed(runs[1], tmp_path, "full", lambda r: None if r["id"] == first else r)

    def gone(options: object) -> None:
        raise DataError("the judge's prompt is gone")

    monkeypatch.setattr("argus.runner.compare.build_metrics", gone)
    html = compare([runs[0], fewer], tmp_path)[0].read_text()
    assert re.search(r"except those of [^.]*fastervlm[^.]*, which are over all that it answered itself", html)


def test_runs_are_compared_when_their_model_and_data_are_gone(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise DataError("there is no such item file")

    copies = []
    for number, folder in enumerate(runs[:2]):
        copies.append(tmp_path / f"moved{number}" / folder.name)
        shutil.copytree(folder, copies[-1])
        recipe = copies[-1] / "recipe.yaml"
        recipe.write_text(re.sub(r"from: .*", f"from: {tmp_path / 'gone'}", recipe.read_text()))
        assert "gone" in recipe.read_text()
    monkeypatch.setattr("argus.runner.compare.build_scenario", gone)
    html = compare(copies, tmp_path)[0].read_text()
    assert "48 questions that all answered" in html
    assert "data:image/webp" not in html


def compared(folders: list[Path]) -> list[Board]:
    return [_board(entries) for entries in _entries(folders).values() if len(entries) > 1]


def test_shown_items_are_the_worst_one_family_after_the_other() -> None:
    def item(number: int, family: str, *points: float) -> Item:
        return Item(str(number), family, "", "", f"p{number}", [("", p) for p in points])

    items = [item(0, "a", 0, 0), item(1, "a", 0, 0), item(2, "b", 0, 0), item(3, "b", 0, 1), item(4, "c", 0, 1)]
    assert [i.id for i in _varied(items)] == ["0", "2", "1", "4", "3"]
