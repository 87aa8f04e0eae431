import re
from pathlib import Path

import pytest

from argus.core.errors import DataError
from argus.report.page import baseline, duration, table, write_page
from argus.report.summary import Summary, Variant
from argus.report.tables import tables


def cells(summary: Summary) -> dict[str, dict[str, str]]:
    shown = table(summary.evaluated[0], baseline(summary))
    return {name: {c[0]: cell.value for c, cell in zip(shown.columns, row, strict=True)} for name, row in shown.rows}


def test_the_table_marks_the_best_and_relates_costs_to_the_full_model(summary: Summary) -> None:
    assert cells(summary)["full"] == {
        "accuracy": "86.0 %",
        "prefill_flops": "394 MFLOP",
        "ttft_ms": "11.2 ms",
        "kv_bytes": "168 kB",
    }
    shown = table(summary.evaluated[0], "full")
    rows = dict(shown.rows)
    # 36 of 144 tokens and 20 of text: (36 + 20) / (144 + 20) = 0.34
    assert rows["fastervlm_25"][1].ratio == "0.34x"
    assert rows["full"][0].best
    assert not rows["fastervlm_50"][0].best
    assert rows["fastervlm_10"][3].best
    assert rows["random_10"][3].best  # equal costs are equally good
    assert [name for name, _ in shown.below] == ["without the picture", "chance"]


def test_shares_are_not_given_relative_to_the_baseline(summary: Summary) -> None:
    rows = dict(table(summary.evaluated[0], "full").rows)
    assert rows["random_25"][0].ratio == ""


def test_costs_are_relative_to_the_first_unchanged_variant_if_none_is_called_full(summary: Summary) -> None:
    summary.variants = [Variant("a", "x", "x"), Variant("base"), Variant("other")]
    assert baseline(summary) == "base"
    summary.variants = [Variant("a", "x", "x")]
    assert baseline(summary) is None


def test_the_page_is_one_file_that_fetches_nothing(summary: Summary, tmp_path: Path) -> None:
    html = write_page(summary, tmp_path).read_text()
    targets = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert targets
    assert all(t.startswith(("data:", "#")) for t in targets)
    assert "url(http" not in html
    assert "<script" not in html
    assert (tmp_path / "plots" / "objects-accuracy-ttft_ms.png").stat().st_size > 5000


def test_what_users_wrote_cannot_break_the_page(summary: Summary, tmp_path: Path) -> None:
    summary.evaluated[0].examples[0].question = "<script>alert(1)</script>"
    html = write_page(summary, tmp_path).read_text()
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "FasterVLM &amp; random pruning &lt;at three budgets&gt;" in html


def test_the_page_says_everything_the_run_found(summary: Summary, tmp_path: Path) -> None:
    html = re.sub(r"\s+", " ", write_page(summary, tmp_path).read_text())
    assert "1 of 3 hold, 1 could not be judged" in html
    assert '<span class="verdict">does not hold</span> 0.736 &gt;= 0.851' in html
    assert "<b>3</b> has no options to choose from" in html
    assert "argus run recipes/papers/fastervlm.yaml" in html
    assert "36 of 144 visual tokens kept by fastervlm_25 are lit" in html
    assert html.count('role="img"') == 3 + 2 + 2  # three costs, two families, loss and share of one stage
    assert "accuracy on colour: full 94.0 %" in html
    assert "a smoke test" not in html


def test_every_picture_has_a_text_alternative(summary: Summary, tmp_path: Path) -> None:
    html = write_page(summary, tmp_path).read_text()
    pictures = re.findall(r"<img [^>]*>", html)
    assert len(pictures) == 1 + 7
    assert all(re.search(r'alt="[^"]+"', p) for p in pictures)


def test_equal_findings_give_equal_pages(summary: Summary, tmp_path: Path) -> None:
    assert write_page(summary, tmp_path).read_bytes() == write_page(summary, tmp_path).read_bytes()


def test_a_page_without_pictures_claims_and_plots_is_still_a_page(summary: Summary, tmp_path: Path) -> None:
    summary.claims, summary.trained, summary.recipe, summary.environment = [], [], "", {}
    evaluated = summary.evaluated[0]
    evaluated.results, evaluated.examples, evaluated.chance = evaluated.results[:1], [], {}
    for groups in evaluated.results[0].measurements.values():
        groups.pop("blind", None)
    html = write_page(summary, tmp_path).read_text()
    assert "<h3>" not in html.split("Set aside")[0]
    assert "86.0 %" in html


def test_findings_survive_the_file(summary: Summary, tmp_path: Path) -> None:
    summary.save(tmp_path)
    assert Summary.load(tmp_path) == summary


def test_an_unfinished_run_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no metrics.json, so it has not finished"):
        Summary.load(tmp_path)
    (tmp_path / "metrics.json").write_text('{"name": "x"}')
    with pytest.raises(DataError, match=r"metrics\.json: Field required at model"):
        Summary.load(tmp_path)


def test_the_terminal_shows_the_same_numbers(summary: Summary) -> None:
    from rich.console import Console

    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for grid in tables(summary):
        console.print(grid)
    text = console.export_text()
    assert re.search(r"fastervlm_25 +83.2 % +134 MFLOP 0.34x", text)
    assert re.search(r"✗ +random_25.accuracy >= 0.99 \* full.accuracy +0.736 >= 0.851", text)


@pytest.mark.parametrize(("seconds", "text"), [(41.6, "42 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")])
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
