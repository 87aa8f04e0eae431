"""MME: result files of the official tool become the published numbers."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from argus.core.errors import DataError
from argus.core.formats.mme import COGNITION, PERCEPTION, TASKS, read_mme
from argus.core.registry import build
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.results import EvaluationResult

PICTURES = {
    **dict.fromkeys(("existence", "count", "position", "color"), 30),
    "posters": 147,
    "celebrity": 170,
    "scene": 200,
    "landmark": 200,
    "artwork": 200,
    "OCR": 20,
    "commonsense_reasoning": 70,
    "numerical_calculation": 20,
    "text_translation": 20,
    "code_reasoning": 20,
}


def write(folder: Path, task: str, said: list[tuple[str, str]], shuffled: bool = False) -> None:
    """One picture per pair of answers, to its question with the answer Yes and its question with the answer No."""
    lines = [
        f"{n}.jpg\tIs it {truth}? Please answer yes or no.\t{truth}\t{answer}"
        for n, pair in enumerate(said)
        for truth, answer in zip(("Yes", "No"), pair, strict=True)
    ]
    if shuffled:
        Random(0).shuffle(lines)
    folder.mkdir(exist_ok=True)
    (folder / f"{task}.txt").write_text("\n".join(lines) + "\n")


def scored(folder: Path, model, processor) -> EvaluationResult:
    options = EvaluationOptions(
        scenario={"mme_results": {"path": folder}},
        inferencer={"stored": {"path": folder}},
        metrics=["mme_pairs", "accuracy"],
        samples=None,
    )
    return evaluate(model, processor, options, run_part=MemoryRecords(), progress=False)


def answers(whole: int, half: int, none: int, other: int = 0) -> list[tuple[str, str]]:
    """Pictures with both, one and no question right; `other` of the wrong answers are neither yes nor no."""
    wrong = ["The answer is no"] * other + ["No"] * half
    return [("Yes", "no, there is not")] * whole + [(wrong[k], "No") for k in range(half)] + [("no", "yes")] * none


@pytest.mark.parametrize("shuffled", [False, True])
def test_scores_are_the_published_ones(tmp_path: Path, model, processor, shuffled: bool) -> None:
    """LaVIN: existence 95.00 + 90.00, commonsense reasoning 58.57 + 28.57 with 11 answers that are neither."""
    write(tmp_path / "r", "existence", answers(27, 3, 0), shuffled)
    write(tmp_path / "r", "commonsense_reasoning", answers(20, 42, 8, other=11), shuffled)
    found = scored(tmp_path / "r", model, processor)
    assert found.value("mme_pairs", "existence") == pytest.approx(185.00, abs=0.005)
    assert found.value("mme_pairs", "commonsense_reasoning") == pytest.approx(87.14, abs=0.005)
    assert found.value("mme_pairs", "mean perception") == pytest.approx(185.00, abs=0.005)
    assert found.errors == {}


@pytest.mark.parametrize(("said", "perception", "cognition"), [(("Yes", "Yes"), 500, 200), (("Yes", "No"), 2000, 800)])
def test_a_constant_and_a_perfect_model(tmp_path: Path, model, processor, said, perception: float, cognition: float) -> None:
    for task, count in PICTURES.items():
        write(tmp_path / "r", task, [said] * min(count, 5))
    found = scored(tmp_path / "r", model, processor)
    assert len(PERCEPTION) * found.value("mme_pairs", "mean perception") == pytest.approx(perception)
    assert len(COGNITION) * found.value("mme_pairs", "mean cognition") == pytest.approx(cognition)


def test_there_are_2374_questions() -> None:
    assert set(PICTURES) == set(TASKS)
    assert 2 * sum(PICTURES.values()) == 2374


def test_bad_lines_are_set_aside(tmp_path: Path, model, processor) -> None:
    write(tmp_path / "r", "count", answers(3, 0, 0))
    with (tmp_path / "r" / "count.txt").open("a") as file:
        file.write("9.jpg\tIs it?\tmaybe\tYes\n8.jpg\tIs it?\tYes\tYes\n")
    (tmp_path / "r" / "OCR.txt").write_bytes(b"1.jpg\tIs it \xff?\tYes\tYes\n")
    found = list(read_mme(tmp_path / "r"))
    *reasons, torn = [e.message for e in found if isinstance(e, DataError)]
    assert reasons == [
        "expected picture, question, Yes or No, and the answer, parted by tabs",
        "picture '8.jpg' has 1 questions, not 2",
    ]
    assert torn.startswith("cannot be read: 'utf-8' codec")
    result = scored(tmp_path / "r", model, processor)
    assert (result.answered, sum(result.errors.values())) == (6, 3)


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "existance.txt").write_text("")
    with pytest.raises(DataError, match="no file is named after a task") as error:
        build("scenario", "mme_results", {"path": tmp_path})
    assert "existance.txt" in error.value.text()
