"""SEED-Bench: its file is read as published, its answers are ranked as published, its averages are the published ones."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from argus.core.errors import DataError, RecipeError
from argus.core.registry import build
from argus.core.videos import frame_indices, read_frames
from argus.evaluation.engine import evaluate
from argus.evaluation.local import LocalModel
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.taxonomy import SEED_BENCH, members, pooled, unweighted
from tests.evaluation.conftest import naive_score
from tests.evaluation.published_files import seed_bench, v1_item

PPL = {"likelihood": {"normalise": "mean", "end": False}}


def samples(path: Path, **options: Any) -> list[Any]:
    return [s for g in build("scenario", "seed_bench", {"path": path, **options}).groups(None, 0) for s in g.samples]


def reasons(path: Path, **options: Any) -> dict[str, str]:
    return {k: v for g in build("scenario", "seed_bench", {"path": path, **options}).groups(None, 0) for k, v in g.errors.items()}


def test_items_become_questions_with_their_picture_first(tmp_path: Path) -> None:
    found = samples(seed_bench(tmp_path))
    assert len(found) == 18
    first = found[0]  # dimension 1, the right letter B
    assert [part.type for part in first.messages[0].content] == ["image", "text"]
    assert first.messages[0].text() == "Which colour is it?"
    assert (first.options, first.target) == (["red", "green", "light blue", "a very dark yellow"], "green")
    assert first.metadata["family"] == "Scene Understanding"
    assert samples(tmp_path)[0].id == first.id  # the folder does as well as the file


def test_tasks_and_dimensions_are_chosen(tmp_path: Path) -> None:
    items = [v1_item("1", 1), v1_item("9", 9), v1_item("v1", 10, data_id="a.webm")]
    path = seed_bench(tmp_path, items)
    assert [s.id for s in samples(path, task="image")] == ["1", "9"]
    assert [s.id for s in samples(path, only=[9])] == ["9"]
    assert build("scenario", "seed_bench", {"path": path, "task": "video"}).asked() == {10, 11, 12}


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"answer": "E"}, "answer", "answer 'E' is none of A, B, C, D"),
        ({"question_type_id": 13}, "question_type_id", "there is no dimension 13"),
        ({"question_type_id": "1"}, "question_type_id", "must be int, not str"),
        ({"choice_c": None}, "choice_c", "must be str or int or float, not NoneType"),
        ({"data_id": []}, "data_id", "expected the name of a file"),
        ({"question": ["?"]}, "question", "must be str, not list"),
        ({"question_id": "good"}, "question_id", "'good' stands at"),
    ],
)
def test_a_bad_item_is_set_aside_with_line_field_and_reason(tmp_path: Path, changes: dict, field: str, reason: str) -> None:
    good = v1_item("good", 1)
    path = seed_bench(tmp_path, [good, {**v1_item("bad", 1), **changes}, v1_item("later", 2)])
    assert [s.id for s in samples(path)] == ["good", "later"]
    ((place, text),) = reasons(path).items()
    assert place.startswith(f"{path}:3")  # the list begins on line 2
    assert field in place + text
    assert reason in text


def test_a_torn_file_gives_its_complete_items(tmp_path: Path) -> None:
    path = seed_bench(tmp_path)
    path.write_text(path.read_text()[:1000])
    found = samples(path)
    assert 0 < len(found) < 18
    ((place, text),) = reasons(path).items()
    assert text == "the file is torn: it ends inside a record"
    assert place == f"{path}:{len(found) + 2}"


def test_other_files_say_what_they_lack(tmp_path: Path) -> None:
    (tmp_path / "SEED-Bench.json").write_text('{"question": []}')
    assert list(reasons(tmp_path).values()) == ["there is no list 'questions'."]
    with pytest.raises(DataError, match="there is no such item file"):
        samples(tmp_path / "nothing")


def test_a_missing_picture_costs_one_item(tmp_path: Path, model, processor) -> None:
    path = seed_bench(tmp_path)
    (tmp_path / "SEED-Bench-image" / "10.png").unlink()
    options = EvaluationOptions(scenario={"seed_bench": {"path": path}}, samples=None, inferencer=PPL)
    result = evaluate(model, processor, options, progress=False)
    assert (result.asked, result.answered) == (18, 17)
    (reason,) = result.errors
    assert "there is no such picture" in reason


# Answers


@pytest.mark.parametrize("shares", [True, False], ids=["together", "alone"])
def test_an_option_scores_the_mean_over_its_own_tokens(questions, model, processor, shares: bool) -> None:
    """Against one option at a time, nothing shared or padded: the end of the turn is left out."""
    local = LocalModel(model, processor)
    local.shares = shares
    found = local.score(questions, True, False)
    for question, scores in zip(questions, found, strict=True):
        for option, score in zip(question.sample.options, scores, strict=True):
            length = len(processor.tokenizer(option, add_special_tokens=False).input_ids)
            with_end = naive_score(model, processor, question, option) - end_of_turn(model, processor, question, option)
            assert score == pytest.approx(with_end / length, abs=1e-4)


def end_of_turn(model: Any, processor: Any, question: Any, option: str) -> float:
    prompt = processor.apply_chat_template(question.sample.chat(), tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[prompt + option + "</s>"], images=question.images or None, return_tensors="pt")
    with torch.no_grad():
        return float(model(**inputs).logits[0, -2].log_softmax(-1)[inputs.input_ids[0, -1]])


def test_permuted_options_permute_the_letter(questions, model, processor) -> None:
    from dataclasses import replace

    inferencer = build("inferencer", "likelihood", PPL["likelihood"])
    turned = [replace(q, sample=replace(q.sample, options=q.sample.options[::-1])) for q in questions]
    plain, other = (inferencer.answer(LocalModel(model, processor), some) for some in (questions, turned))
    assert [a.text for a in plain] == [a.text for a in other]
    assert [a.scores for a in other] == [pytest.approx(a.scores[::-1], abs=1e-4) for a in plain]


def test_the_same_suffix_behind_all_prompts_leaves_the_right_answers_alone(tmp_path: Path) -> None:
    items = [v1_item("1", 1, "C"), v1_item("2", 1, "C", question="Which colour is it? Answer:")]
    assert {(s.target, s.metadata["letter"]) for s in samples(seed_bench(tmp_path, items))} == {("light blue", "C")}


def test_uniform_logits_choose_a_everywhere(tmp_path: Path, model, processor) -> None:
    from copy import deepcopy

    flat = deepcopy(model)
    torch.nn.init.zeros_(flat.lm_head.weight)
    path = seed_bench(tmp_path)
    options = EvaluationOptions(scenario={"seed_bench": {"path": path}}, samples=None, inferencer=PPL, metrics=["choice"])
    letters = build("scenario", "seed_bench", {"path": path}).check().letters
    assert evaluate(flat, processor, options, progress=False).value("choice") == pytest.approx(letters["A"] / 18)


def test_three_methods_ask_the_same_items(tmp_path: Path, model, processor) -> None:
    path = seed_bench(tmp_path)
    ways: dict[str, Any] = {
        "ppl": {"inferencer": PPL},
        "ppl_letter": {"instruction": "options"},
        "generate": {"instruction": "options", "inferencer": {"generate": {"max_new_tokens": 2}}},
    }
    for way in ways.values():
        asked = EvaluationOptions(scenario={"seed_bench": {"path": path}}, samples=None, metrics=["choice"], **way)
        result = evaluate(model, processor, asked, progress=False)
        assert (result.asked, result.answered) == (18, 18)
        assert result.chance["all"] == 0.25


def test_a_written_answer_is_its_first_character() -> None:
    from argus.core.sample import Sample
    from argus.evaluation.inferencers.base import Answer

    metric = build("metric", "choice")
    lettered = Sample("a", [], "B", list("ABCD"))
    for text, right in (("B", 1), (" b) green", 1), ("B.", 1), ("The answer is B", 0), ("", 0), ("A or B", 0)):
        assert metric.score(lettered, Answer(text)).value == right
    worded = Sample("a", [], "light blue", ["red", "light blue"])
    assert metric.score(worded, Answer("light blue")).value == 1
    assert metric.score(worded, Answer("blue")).value == 0


# Averages


def test_the_published_averages_follow_from_the_published_table() -> None:
    items = {d.name: d.items for d in SEED_BENCH}
    instruct_blip = (60.2, 58.9, 65.6, 43.6, 57.2, 40.3, 52.6, 47.7, 43.5, 34.5, 49.6, 23.1)
    accuracy = dict(zip(items, instruct_blip, strict=True))
    of = members(SEED_BENCH)
    assert sum(items[n] for n in of["image"]) == 14233
    assert sum(items[n] for n in of["video"]) == 5009
    assert pooled(accuracy, items, of["image"]) == pytest.approx(58.8, abs=0.05)
    assert pooled(accuracy, items, of["video"]) == pytest.approx(38.1, abs=0.06)
    assert pooled(accuracy, items, items) == pytest.approx(53.4, abs=0.05)
    assert unweighted(accuracy, of["video"]) == pytest.approx((34.5 + 49.6 + 23.1) / 3)


def test_an_evaluation_gives_both_averages(tmp_path: Path, model, processor) -> None:
    """Of dimension 1 one item of four is right, of dimension 2 one of one: 2 / 5 pooled, (1/4 + 1) / 2 over dimensions."""
    path = seed_bench(tmp_path, [*(v1_item(f"a{i}", 1) for i in range(4)), v1_item("b", 2)])
    stored = tmp_path / "predictions.jsonl"
    rows = [{"question_id": n, "prediction": p} for n, p in zip(("a0", "a1", "a2", "a3", "b"), "ABCDA", strict=True)]
    stored.write_text("".join(json.dumps(row) + ",\n" for row in rows))
    asked = {"scenario": {"seed_bench": {"path": path}}, "inferencer": {"stored": {"path": stored}}, "samples": None}
    result = evaluate(model, processor, EvaluationOptions(**asked), progress=False)
    assert result.value("accuracy", "image") == pytest.approx(2 / 5)
    assert result.value("accuracy", "mean image") == pytest.approx((1 / 4 + 1) / 2)
    assert result.branches == {"image": ["Instance Identity", "Scene Understanding"]}
    assert "video" not in result.measurements["accuracy"]


def test_stored_predictions_count_once_by_their_last_line_and_without_blanks(tmp_path: Path, model, processor) -> None:
    path = seed_bench(tmp_path, [v1_item("1", 1, "B "), v1_item("2", 1), v1_item("3", 1)])
    stored = tmp_path / "predictions.jsonl"
    rows = [("1", "A"), ("1", " B"), ("2", "A")]
    stored.write_text("\n".join(json.dumps({"question_id": i, "prediction": p}) for i, p in rows))
    asked = {"scenario": {"seed_bench": {"path": path}}, "inferencer": {"stored": {"path": stored}}, "samples": None}
    result = evaluate(model, processor, EvaluationOptions(**asked), progress=False)
    assert result.value("accuracy") == 1.0
    assert result.skipped == {"has no stored prediction": 1}
    stored.write_text('{"question_id": "1", "prediction": 3}')
    with pytest.raises(DataError, match=r"predictions.jsonl:1: field 'prediction' must be str"):
        build("inferencer", "stored", {"path": stored})


# Videos


@pytest.mark.parametrize(
    ("count", "frames", "expected"),
    [(100, 8, [6, 18, 31, 43, 56, 68, 80, 93]), (5, 8, [0, 1, 2, 3, 4]), (9, 8, [0, 1, 2, 3, 4, 5, 6, 7]), (50, 1, [24])],
)
def test_frames_are_the_middles_of_equal_stretches(count: int, frames: int, expected: list[int]) -> None:
    assert frame_indices(count, frames) == expected


def video(path: Path, frames: int = 40, rate: int = 10) -> Path:
    """Frame n is grey of level 6 n."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.bit_rate = 64, 64, 20_000_000  # so that a level survives
        for n in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (64, 64), (6 * n,) * 3))))
        container.mux(stream.encode())
    return path


def numbers(frames: list[Image.Image]) -> list[int]:
    """Which frames these are, by their grey."""
    return [round(frame.getpixel((32, 32))[0] / 6) for frame in frames]  # type: ignore[index]


def test_a_video_is_read_at_these_frames(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4")
    assert numbers(read_frames(path, 8)) == frame_indices(39, 8)
    # seconds 1 to 3 at 10 per second are frames 10 to 30; frames 4 to 100 end with the video
    assert numbers(read_frames(path, 4, 1.0, 3.0)) == [10 + i for i in frame_indices(20, 4)]
    assert numbers(read_frames(path, 4, 4, 100, seconds=False)) == [4 + i for i in frame_indices(36, 4)]
    with pytest.raises(DataError, match="none of them in the stretch"):
        read_frames(path, 4, 90.0, 95.0)
    path.write_bytes(b"no video at all")
    with pytest.raises(DataError, match="cannot be decoded"):
        read_frames(path, 4)


def test_video_items_are_asked_with_eight_frames(tmp_path: Path, model, processor) -> None:
    items = [
        v1_item("v1", 10, data_id="a.mp4"),
        v1_item("v2", 11, data_id="P03/b.mp4", segment=[0.0, 2.0]),
        v1_item("v3", 12, data_id="P06/c.mp4", segment=[18, 36]),
        v1_item("v4", 12, data_id="P06/c.mp4", segment=[36, 18]),
    ]
    path = seed_bench(tmp_path, items)
    for name in ("ssv2/a.mp4", "epic-kitchens/P03/b.mp4", "breakfast/P06/c.mp4"):
        video(tmp_path / "videos" / name)
    found = samples(path)
    assert [len(s.images()) for s in found] == [8, 8, 8]
    assert numbers(found[2].images()) == [18 + i for i in frame_indices(18, 8)]
    assert list(reasons(path).values()) == ["expected [start, end]"]
    asked = EvaluationOptions(scenario={"seed_bench": {"path": path}}, samples=None, inferencer=PPL, batch_size=2)
    result = evaluate(model, processor, asked, progress=False)
    assert (result.answered, len(result.errors)) == (3, 1)
    assert result.branches == {"video": ["Action Prediction", "Action Recognition", "Procedure Understanding"]}


@pytest.mark.skipif(find_spec("av") is not None, reason="PyAV is installed")
def test_without_pyav_videos_are_left_out_with_the_reason(tmp_path: Path, model, processor) -> None:
    path = seed_bench(tmp_path, [v1_item("1", 1), v1_item("v1", 10, data_id="a.webm")])
    asked = EvaluationOptions(scenario={"seed_bench": {"path": path}}, samples=None, inferencer=PPL)
    result = evaluate(model, processor, asked, progress=False)
    assert result.errors == {"UnsupportedError: videos are read with PyAV, which is not installed": 1}
    assert (result.asked, result.answered) == (2, 1)


# A taxonomy of the world's questions


def test_dimensions_ask_as_many_questions_each_about_pictures_of_their_own(model, processor) -> None:
    of: dict[str, Any] = {
        "dimensions": {
            "Attributes": {"world/objects": {"size": 32, "families": ["colour", "size"]}},
            "Counting": {"world/objects": {"size": 32, "families": ["count"]}},
            "Identity": {"world/objects": {"size": 32, "families": ["shape"]}},
        },
        "branches": {"image": ["Attributes", "Counting"]},
    }
    groups = list(build("scenario", "dimensions", of).groups(20, 0))
    asked = [s for g in groups for s in g.samples]
    assert [sum(s.metadata["family"] == f for s in asked) for f in of["dimensions"]] == [6, 7, 7]
    assert len({s.id for s in asked}) == 20
    assert len({g.id for g in groups}) == len(groups)
    assert not {s.images()[0].tobytes() for s in asked[:6]} & {s.images()[0].tobytes() for s in asked[6:13]}
    result = evaluate(model, processor, EvaluationOptions(scenario={"dimensions": of}, samples=20), progress=False)
    by_family = {f: result.value("accuracy", f) for f in of["dimensions"]}
    assert result.value("accuracy", "mean image") == pytest.approx((by_family["Attributes"] + by_family["Counting"]) / 2)
    assert result.value("accuracy", "image") == pytest.approx((6 * by_family["Attributes"] + 7 * by_family["Counting"]) / 13)
    with pytest.raises(RecipeError, match=r"branch 'image' has no dimension 'Count'\. Did you mean 'Counting'"):
        build("scenario", "dimensions", {**of, "branches": {"image": ["Count"]}})
