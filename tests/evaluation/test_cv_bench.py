"""CV-Bench: both published forms of the files, how answers are read, and the official averages on a small file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from argus.core.errors import DataError
from argus.core.images import encode_png
from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import Row
from argus.evaluation.metrics.cv_bench import chosen

PICTURE = encode_png(Image.fromarray(np.zeros((4, 6, 3), dtype=np.uint8)))
TASKS = {"ADE20K": "Count", "COCO": "Relation", "Omni3D": "Depth"}


def record(number: int, source: str, answer: str = "(A)", **changes: Any) -> dict[str, Any]:
    prompt = "How many chairs are there? Select from the following choices.\n(A) 0\n(B) 3\n(C) 1"
    name = f"img/2D/count/{number:06d}.png"
    return {"filename": name, "prompt": prompt, "answer": answer, "task": TASKS[source], "source": source, **changes}


def written(folder: Path, records: list[dict[str, Any]]) -> Path:
    for one in records:
        place = folder / str(one.get("filename"))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(PICTURE)
    (folder / "test.jsonl").write_text("\n".join(json.dumps(one) for one in records) + "\n", encoding="utf-8")
    return folder


def samples(path: Path) -> list[Sample]:
    return [s for group in build("scenario", "cv_bench", {"path": path}).groups(None, 0) for s in group.samples]


def test_a_line_is_a_question(tmp_path: Path) -> None:
    (one,) = samples(written(tmp_path, [record(7, "COCO", "(B)")]))
    assert (one.id, one.target, one.options) == ("img/2D/count/000007.png", "(B)", ["(A)", "(B)", "(C)"])
    assert one.messages[0].text().endswith("(C) 1\nAnswer with the letter of the right option in brackets.")
    assert (one.metadata["family"], one.metadata["branches"], one.metadata["from"]) == ("Relation", ["2D"], "COCO")
    assert list(one.images()) == [tmp_path / one.id]


def test_parquet_holds_the_same_questions_and_the_pictures(tmp_path: Path) -> None:
    records = [record(n, source) for n, source in enumerate(TASKS)]
    plain = samples(written(tmp_path / "lines", records))
    (tmp_path / "tables").mkdir()
    for name, chosen_ones in (("test_2d", records[:2]), ("test_3d", records[2:])):
        rows = [{**one, "image": {"bytes": PICTURE, "path": None}} for one in chosen_ones]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "tables" / f"{name}.parquet")
    stored = samples(tmp_path / "tables")
    assert [(s.id, s.target, s.messages[0].text()) for s in stored] == [(s.id, s.target, s.messages[0].text()) for s in plain]
    assert [*stored[0].images()] == [PICTURE]
    assert stored[2].metadata["source"].endswith("test_3d.parquet:1")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": "(F)"}, r"answer '\(F\)' is no option"),
        ({"task": "Size"}, "'Size' is none of Count, Relation, Depth, Distance"),
        ({"prompt": 3}, "must be str, not int"),
        ({"filename": "img/2D/count/000000.png"}, "stands at"),
    ],
)
def test_a_bad_line_is_set_aside_with_line_and_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = written(tmp_path, [record(0, "COCO"), {**record(1, "COCO"), **changes}, record(2, "COCO")])
    (problem,) = [item for item in build("scenario", "cv_bench", {"path": path}).items() if isinstance(item, DataError)]
    with pytest.raises(DataError, match=reason):
        raise problem
    assert f"{path / 'test.jsonl'}:2" in str(problem.where)
    assert len(samples(path)) == 2


def test_what_a_download_holds(tmp_path: Path) -> None:
    """`argus data check cv-bench FOLDER`; a picture that is missing is found."""
    path = written(tmp_path, [record(0, "ADE20K"), record(1, "COCO", "(B)"), record(2, "Omni3D", "(B)")])
    (path / "img/2D/count/000002.png").unlink()
    found = build("scenario", "cv_bench", {"path": path}).check()
    assert found.found == {"Count": 1, "Relation": 1, "Depth": 0, "Distance": 0}
    assert sum(filter(None, found.published.values())) == 2638
    assert (found.letters, found.bad) == ({"A": 1, "B": 1}, 1)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("(B)", "(B)"),
        ("The answer is (C) 3.", "(C)"),
        ("B", "(B)"),
        (" B. three", "(B)"),
        ("(b)", ""),
        ("( A )", ""),
        ("three", "(t)"),
    ],
)
def test_answers_are_read_as_published(text: str, option: str) -> None:
    assert chosen(text) == option


def rows_of(counts: dict[str, tuple[int, int]]) -> list[Row]:
    """Source -> (right, asked) as the rows of a run."""
    metric, rows = build("metric", "cv_bench"), []
    for source, (right, asked) in counts.items():
        for number in range(asked):
            metadata = {"from": source, "family": TASKS[source]}
            sample = Sample(f"{source} {number}", [], "(A)", ["(A)", "(B)"], metadata)
            assert metric.applies(sample)
            notes = metric.score(sample, Answer("(A)" if number < right else "(B)")).notes
            rows.append(Row(notes, ["all"], f"{source} {number}"))
    return rows


def test_the_official_averages() -> None:
    """2D = (3/4 + 1/2) / 2 = 0.625, whatever the counts; 3D = 2/8 = 0.25; the score 0.4375."""
    found = build("metric", "cv_bench").over_all(rows_of({"ADE20K": (3, 4), "COCO": (8, 16), "Omni3D": (2, 8)}))
    values = {name: one.value for name, one in found.items()}
    assert values == pytest.approx(
        {"ADE20K": 0.75, "COCO": 0.5, "Omni3D": 0.25, "2D": 0.625, "3D": 0.25, "all": 0.4375,
         "Count": 0.75, "Relation": 0.5, "Depth": 0.25}
    )  # fmt: skip
    assert found["all"].low < 0.4375 < found["all"].high
    # Pictures err apart: the variance is the weighted sum of the sources'.
    variance = (0.25**2 * 0.75 * 0.25 / 4) + (0.25**2 * 0.25 / 16) + (0.5**2 * 0.25 * 0.75 / 8)
    assert found["all"].high - 0.4375 == pytest.approx(1.959964 * variance**0.5)


def test_a_part_that_was_not_asked_gives_no_score() -> None:
    found = build("metric", "cv_bench").over_all(rows_of({"ADE20K": (3, 4), "COCO": (1, 2)}))
    assert "3D" not in found
    assert found["2D"].value == pytest.approx(0.625)
    assert np.isnan(found["all"].value)
