"""SPARK: answers are read as its code does, cells and averages are the published ones, rows come from two kinds of file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from argus.core.errors import DataError
from argus.core.images import encode_png
from argus.core.registry import build
from argus.core.sample import Message, Sample, TextPart
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.spark import official, strict
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.results import summarise
from argus.evaluation.scenarios.spark_sensor import REASONING, TYPES, kind_of, sensor_of

SENSORS = ("RGB", "thermal", "depth", "xray")
# Published accuracies per type: existence, counting, position, description | contextual, sensory (LLaVA-v1.5-7B and GPT-4o).
LLAVA = {
    "RGB": (94.2, 75.5, 59.8, 96.9, 88.7, 94.8),
    "thermal": (93.3, 76.1, 62.4, 95.1, 85.5, 51.0),
    "depth": (87.1, 70.7, 53.3, 93.7, 87.4, 73.8),
    "X-ray": (74.2, 57.4, 67.4, 72.3, 62.1, 50.7),
}
GPT4O = {
    "RGB": (96.9, 80.9, 71.4, 97.4, 98.5, 98.6),
    "thermal": (96.1, 75.6, 71.4, 98.2, 95.2, 92.0),
    "depth": (87.6, 77.3, 71.0, 94.4, 95.8, 85.8),
    "X-ray": (91.9, 83.8, 65.2, 85.6, 95.5, 82.7),
}


@pytest.mark.parametrize(
    ("text", "read", "carefully"),
    [
        ("", "", ""),
        ("B", "B", "B"),
        ("b) a dog", "B", "B"),
        ("Answer: C", "A", "C"),
        ("Based on the picture", "B", ""),
        ("Cannot tell", "C", ""),
        ("Definitely yes", "D", ""),
        ("None", "no", ""),
        ("North", "no", ""),
        ("not sure", "no", ""),
        ("nothing", "no", ""),
        ("No, it is cold", "no", "no"),
        ("yesterday", "yes", ""),
        ("Yes.", "yes", "yes"),
        ("The answer is yes", "", "yes"),
        ("Option (b)", "", ""),
        (" B", "B", "B"),
        ("(A)", "A", "A"),
        ("I think A or B", "A", ""),
        ("The answer is A. No, the answer is C.", "A", "C"),
        ("a dog", "A", ""),
        *((torn, "", "") for torn in ("Y", "n", "o", "ye")),
    ],
)
def test_answers_are_read_as_published(text: str, read: str, carefully: str) -> None:
    assert official(text) == read
    assert strict(text) == carefully


def records(table: dict[str, tuple[float, ...]]) -> list[dict[str, Any]]:
    """A thousand answers of each type in each sensor, as many right as a table says; one of the types has twice as many."""
    metrics = {name: build("metric", name) for name in ("spark", "spark_all")}
    rows = []
    for sensor, numbers in table.items():
        for kind, percent in zip(TYPES, numbers, strict=True):
            cell = f"{sensor} {'reasoning' if kind in REASONING else 'perception'}"
            count = 2000 if kind == "counting" else 1000
            metadata = {"family": f"{sensor} {kind}", "branches": [cell]}
            sample = Sample("", [Message("user", [TextPart("?")])], "A", list("ABCD"), metadata)
            scored = {text: {name: metric.score(sample, Answer(text)) for name, metric in metrics.items()} for text in ("A", "B")}
            for n in range(count):
                found = scored["A" if n < round(percent * count / 100) else "B"]
                rows.append(
                    {
                        "id": f"{cell}/{kind}/{n}",
                        "kind": "answer",
                        "blind": False,
                        "group": f"{n}",
                        "domain": "spark",
                        "item": None,
                        **metadata,
                        "question": "?",
                        "options": list("ABCD"),
                        "seconds": 0.0,
                        "values": {name: s.value for name, s in found.items() if s.value is not None},
                        "ratios": {name: s.ratios for name, s in found.items() if s.ratios},
                        "notes": {name: s.notes for name, s in found.items() if s.notes},
                    }
                )
    return rows


@pytest.mark.parametrize(("table", "printed"), [(LLAVA, 75.6), (GPT4O, 88.5)])
def test_all_is_the_unweighted_mean_of_eight_cells(table: dict[str, tuple[float, ...]], printed: float) -> None:
    metrics = {name: build("metric", name) for name in ("spark", "spark_all")}
    result = summarise(records(table), metrics)
    cells = [result.value("spark", f"mean {s} {part}") for s in table for part in ("perception", "reasoning")]
    assert result.value("spark_all") == pytest.approx(sum(cells) / 8)
    assert 100 * result.value("spark_all") == pytest.approx(printed, abs=0.07)
    if table is LLAVA:
        assert 100 * cells[0] == pytest.approx(81.6, abs=0.05)
        assert 100 * cells[1] == pytest.approx(91.75, abs=0.01)
    pooled = result.value("spark", "RGB perception")  # another number, under another name
    assert pooled == pytest.approx((sum(table["RGB"][:4]) + table["RGB"][1]) / 500)


def test_published_items_add_up() -> None:
    assert sum(items for _, items in TYPES.values()) == 6248
    assert sum(TYPES[kind][1] for kind in REASONING) == 1367


def test_names_of_sensors_and_types() -> None:
    assert [sensor_of(name, "") for name in (*SENSORS, "X-Ray", "XR")] == ["RGB", "thermal", "depth", "X-ray", "X-ray", "X-ray"]
    spelled = ("Existence", "Count", "position", "Scene Description", "contextual_reasoning", "Sensory Reasoning")
    assert [kind_of(name, "") for name in spelled] == list(TYPES)
    with pytest.raises(DataError, match="there is no sensor 'lidar'"):
        sensor_of("lidar", "row 1")
    with pytest.raises(DataError, match="there is no question type 'colour'"):
        kind_of("colour", "row 1")


def rows() -> list[dict[str, Any]]:
    found = []
    for sensor in SENSORS:
        for n, kind in enumerate(("existence", "count", "position", "description", "contextual reasoning", "sensory reasoning")):
            found.append(
                {
                    "id": len(found),
                    "image": f"{sensor}.png",
                    "sensor_type": sensor,
                    "question_type": kind,
                    "question": "Is it hot?",
                    "question_query": f"Is it hot, number {len(found)}? Answer with one word.",
                    "answer": "BYes"[:1] if n > 3 else ("Yes", "no")[n % 2],
                }
            )
    return found


def download(folder: Path, kind: str, given: list[dict[str, Any]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    given = rows() if given is None else given
    pictures = {f"{s}.png": Image.new("RGB", (32, 32), (60 * n, 90, 9)) for n, s in enumerate(SENSORS)}
    if kind == "jsonl":
        for name, picture in pictures.items():
            picture.save(folder / name)
        (folder / "items.jsonl").write_text("\n".join(map(json.dumps, given)))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        coded = [{**row, "image": {"bytes": encode_png(pictures[row["image"]]), "path": None}} for row in given]
        for part, some in enumerate((coded[:10], coded[10:])):
            pq.write_table(pa.Table.from_pylist(some), folder / f"train-0000{part}-of-00002.parquet")
    return folder


def samples(path: Path, **options: Any) -> list[Sample]:
    return [s for g in build("scenario", "spark_sensor", {"path": path, **options}).groups(None, 0) for s in g.samples]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_items_come_from_bytes_or_from_a_folder(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    found = samples(download(tmp_path, kind))
    assert [s.id for s in found] == [str(n) for n in range(24)]
    assert {s.target for s in found} == {"yes", "no", "B"}  # "Yes" is spelled as the metric compares it
    assert found[0].messages[0].text() == "Is it hot, number 0? Answer with one word."
    assert found[7].metadata["family"] == "thermal counting"
    assert found[23].metadata["branches"] == ["X-ray reasoning"]
    assert found[23].options == list("ABCD")
    assert len({s.metadata["picture"] for s in found}) == 4
    assert len(samples(tmp_path, sensors=["X-Ray"])) == 6
    checked = build("scenario", "spark_sensor", {"path": tmp_path}).check()
    assert checked.found == dict.fromkeys(TYPES, 4)
    assert checked.published["counting"] == 1202
    assert checked.bad == 0


def test_a_hint_changes_the_text_alone(tmp_path: Path) -> None:
    plain, hinted = (samples(download(tmp_path, "jsonl"), hint=hint) for hint in (False, True))
    for a, b in zip(plain, hinted, strict=True):
        assert a.images() == b.images()
        assert (a.id, a.target, a.options) == (b.id, b.target, b.options)
        before = b.messages[0].text().removesuffix(a.messages[0].text())
        sensor = {"RGB": "", "thermal": "Thermal", "depth": "Depth", "X-ray": "X-Ray"}[a.metadata["family"].partition(" ")[0]]
        assert before == (f"This is a {sensor} image. " if sensor else "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"answer": "maybe"}, "answer 'maybe' is none of A, B, C, D, yes, no"),
        ({"sensor_type": "lidar"}, "there is no sensor 'lidar'"),
        ({"question_type": "colour"}, "there is no question type 'colour'"),
        ({"id": 0}, "'0' stands at"),
        ({"question_query": None}, "must be str"),
        ({"image": ""}, "a picture is a path or encoded bytes"),
    ],
)
def test_a_bad_row_is_set_aside(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    given = rows()
    given[3] = {**given[3], **changes}
    scenario = build("scenario", "spark_sensor", {"path": download(tmp_path, "jsonl", given)})
    groups = list(scenario.groups(None, 0))
    assert sum(len(g.samples) for g in groups) == 23
    ((place, text),) = ((k, v) for g in groups for k, v in g.errors.items())
    assert reason in text
    assert ":4" in place


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_torn_file_is_named_and_the_others_are_asked(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("pyarrow")
    torn = sorted(download(tmp_path, kind).glob(f"*.{kind}"))[-1]
    torn.write_bytes(torn.read_bytes()[:-40])
    *groups, aside = build("scenario", "spark_sensor", {"path": tmp_path}).groups(None, 0)
    assert [s.id for g in groups for s in g.samples] == [str(n) for n in range({"jsonl": 23, "parquet": 10}[kind])]
    ((place, _),) = aside.errors.items()
    assert place == {"jsonl": f"{torn}:24", "parquet": str(torn)}[kind]


def test_an_id_stands_once_in_all_files(tmp_path: Path) -> None:
    path = download(tmp_path, "jsonl")
    (path / "more.jsonl").write_text(json.dumps(rows()[5]))
    *groups, aside = build("scenario", "spark_sensor", {"path": path}).groups(None, 0)
    assert sum(len(g.samples) for g in groups) == 24
    ((place, reason),) = aside.errors.items()
    assert place == f"{path / 'more.jsonl'}:1, field 'id'"
    assert reason == f"'5' stands at {path / 'items.jsonl'}:6 too"


def test_baselines_are_part_of_the_report_and_runs_resume_by_id(tmp_path: Path, model: Any, processor: Any) -> None:
    options = EvaluationOptions(
        scenario={"spark_sensor": {"path": download(tmp_path, "jsonl")}},
        samples=None,
        inferencer={"generate": {"max_new_tokens": 2}},
        metrics=["spark", "spark_all"],
        blind=True,
        batch_size=2,
    )
    kept = MemoryRecords()
    whole = evaluate(model, processor, options, run_part=kept, progress=False)
    assert {"all", "strict", "constant yes", "constant A", "random", "blind"} <= set(whole.measurements["spark"])
    assert whole.value("spark", "constant yes") == pytest.approx(8 / 24)
    assert whole.value("spark", "constant A") == 0
    assert whole.value("spark", "random") == pytest.approx((16 / 2 + 8 / 4) / 24)
    assert "blind" in whole.measurements["spark_all"]
    resumed = MemoryRecords([row for row in kept.rows if row["kind"] == "seed" or row["id"] in map(str, range(5))])
    again = evaluate(model, processor, options, run_part=resumed, progress=False)
    assert {r["id"] for r in resumed.rows} == {r["id"] for r in kept.rows}
    assert again.value("spark_all") == whole.value("spark_all")
