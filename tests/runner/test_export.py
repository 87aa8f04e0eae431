"""A run in other toolkits' layouts: the same answers, and numbers that can be computed again from the files alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from argus.core.errors import UnsupportedError
from argus.core.run import Run
from argus.report.export import export
from argus.report.summary import Summary
from argus.runner.run import run

pandas = pytest.importorskip("pandas")


@pytest.fixture(scope="module", params=["likelihood", "{generate: {max_new_tokens: 3}}"], ids=["scored", "generated"])
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    from tests.runner.conftest import RECIPE
    from tests.runner.tiny import tiny_model

    root = tmp_path_factory.mktemp("finished")
    text = RECIPE.format(model=tiny_model()).replace("cost_samples: 2", f"blind: true\n    inferencer: {request.param}")
    (root / "tiny.yaml").write_text(text.replace("fastv.prefill_flops < full.prefill_flops", "full.accuracy >= 0"))
    return run(root / "tiny.yaml", root=root / "runs")


def answers(finished: Run, variant: str, blind: bool) -> list[dict]:
    lines = (finished.folder / f"records/{variant}.objects.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == "answer" and r["blind"] == blind]


def test_lmms_eval_samples_are_read_by_pandas(finished: Run, tmp_path: Path) -> None:
    files = export(finished.folder, "lmms-eval", tmp_path)
    accuracy = Summary.load(finished.folder).measured
    assert {f.relative_to(tmp_path).parts[0] for f in files} == {"full", "fastervlm", "fastv"}
    for task, group in (("objects", ""), ("objects_blind", "[blind]")):
        (samples,) = (f for f in files if f.parent.name == "full" and f.name.endswith(f"_samples_{task}.jsonl"))
        frame = pandas.read_json(samples, lines=True)
        assert list(frame.doc_id) == list(range(48))
        assert frame.accuracy.mean() == pytest.approx(accuracy[f"full.accuracy{group}"])
        kept = answers(finished, "full", blind=bool(group))
        assert list(frame.input) == [r["question"] for r in kept]
        for said, record in zip(frame.filtered_resps, kept, strict=True):
            if record["option_scores"]:  # losses, the least of which is the answer
                losses = [float(loss) for loss, _ in said]
                assert record["options"][losses.index(min(losses))] == record["answer"]
                assert [chosen for _, chosen in said].count("True") == 1
            else:
                assert said == record["extracted"] or said == record["answer"]
    (results,) = (f for f in files if f.parent.name == "full" and f.name.endswith("_results.json"))
    found = json.loads(results.read_text())
    assert found["results"]["objects"]["accuracy,none"] == accuracy["full.accuracy"]
    assert found["results"]["objects"]["accuracy_stderr,none"] > 0
    assert found["n-samples"]["objects"] == {"original": 48, "effective": 48}
    assert found["higher_is_better"]["objects"] == {"accuracy": True, "prefill_flops": False, "visual_tokens": False}


def test_vlmevalkit_tables_are_read_by_pandas(finished: Run, tmp_path: Path) -> None:
    export(finished.folder, "vlmevalkit", tmp_path)
    frame = pandas.read_csv(tmp_path / "full/full_objects.tsv", sep="\t", dtype=str, keep_default_na=False)
    kept = answers(finished, "full", blind=False)
    assert list(frame["index"]) == [str(n) for n in range(48)]
    for row, record in zip(frame.to_dict("records"), kept, strict=True):
        options = {letter: row[letter] for letter in "ABCDEFGH" if row.get(letter)}
        assert list(options.values()) == record["options"]
        assert options[row["answer"]] == record["target"]
        assert (options[row["prediction"]] if record["option_scores"] else row["prediction"]) == record["answer"]
    scores = pandas.read_csv(tmp_path / "full/full_objects_acc.csv")
    measured = Summary.load(finished.folder).measured
    assert scores.Overall[0] == pytest.approx(measured["full.accuracy"])
    for family in ("existence", "colour", "count"):
        assert scores[family][0] == pytest.approx(measured[f"full.accuracy[{family}]"])


def test_an_answer_that_could_not_be_scored_is_left_out(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    file = tmp_path / "run/records/full.objects.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    first = next(r for r in rows if r["kind"] == "answer" and not r["blind"])
    first |= {"error": "DataError: torn", "correct": None, "values": {}}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    export(tmp_path / "run", "vlmevalkit", tmp_path / "out")
    frame = pandas.read_csv(tmp_path / "out/full/full_objects.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert len(frame) == 47
    assert first["id"] not in set(frame["id"])


def test_an_unknown_layout_is_named(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no layout 'inspect'"):
        export(finished.folder, "inspect", tmp_path)
