"""LVLM-eHub (arXiv 2306.09265) and Tiny LVLM-eHub (arXiv 2308.03729): sets on disk, and the tiny subset of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from argus.cli.app import app
from argus.core.errors import ArgusError
from argus.core.images import encode_png
from argus.core.registry import build
from argus.evaluation.engine import evaluate
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.results import summarise
from argus.evaluation.scenarios.tiny_lvlm_ehub import ABILITIES, SEED, chosen

from .conftest import picture

# -- published files


def folder(root: Path, **sets: list[dict] | str) -> Path:
    """Sets as published: lists become <set>/dataset.json with pictures beside it, texts become files of that name."""
    for name, rows in sets.items():
        if isinstance(rows, str):
            stem, _, ending = name.rpartition("_")
            (root / f"{stem}.{ending}").write_text(rows)
            continue
        (root / name).mkdir(parents=True)
        (root / name / "dataset.json").write_text(json.dumps(rows, indent=1))
        for n in range(len(rows)):
            (root / name / f"{n:02}.png").write_bytes(encode_png(picture(n)))
    return root


def rows(count: int, **changes: object) -> list[dict]:
    return [{"image_path": f"{n:02}.png", "question": "What is it?", "gt_answers": f"a{n}", **changes} for n in range(count)]


def test_every_published_form_is_read(tmp_path: Path) -> None:
    counting = [{"image_id": "00.png", "text_in": "How many?", "text_out": "1", "n_obj_exist": 1}]
    root = folder(
        tmp_path,
        GQA=[{"image_path": "00.png", "question": "Which?", "gt_answers": ["sofa", "couch"]}],
        MSCOCO_OC=counting,
        MSCOCO_pope_random_json='{"question_id": 1, "image": "GQA/00.png", "text": "Is it?", "label": "no"}\n',
        IIIT5K_txt="GQA/00.png ICE cream\n",
        Flowers102=[{"image_path": "00.png", "question": "", "gt_answers": "rose"}],
        ImageNetVC_color_csv="category,question,answer\ncar,What colour is a car?,red\nsky,What colour is the sky?,blue\n",
    )
    for category in ("car", "sky"):
        (root / category).mkdir()
        for n in range(12):
            (root / category / f"{n}.png").write_bytes(encode_png(picture(n)))
    scenario = build("scenario", "lvlm_ehub", {"path": root})
    samples = {s.metadata["family"]: s for g in scenario.groups(None, 0) for s in g.samples}
    gqa, pope, ocr, flowers, colour = (
        samples[n] for n in ("GQA", "MSCOCO_pope_random", "IIIT5K", "Flowers102", "ImageNetVC_color")
    )
    assert (gqa.target, gqa.metadata["answers"], gqa.metadata["branches"]) == ("sofa", ["couch"], ["visual reasoning"])
    assert (pope.messages[0].text(), pope.target, pope.metadata["branches"]) == ("Is it?", "no", ["object hallucination"])
    assert (ocr.messages[0].text(), ocr.target) == ("what is written in the image?", "ICE cream")
    assert (flowers.messages[0].text(), flowers.metadata["prompts"]) == ("The photo of the", "lvlm-ehub")
    assert samples["MSCOCO_OC"].target == "1"
    assert (len(colour.images()), sorted(colour.options)) == (10, ["blue", "red"])
    assert len({p.name for p in colour.images()}) == 10
    tiny = build("scenario", "tiny_lvlm_ehub", {"path": root, "only": ["flowers-102"]})
    (asked,) = (s for g in tiny.groups(None, 0) for s in g.samples)
    assert (asked.messages[0].text(), asked.metadata["prompts"]) == ("What breed is the flower in the image?", "tiny-lvlm-ehub")


def test_a_row_that_lacks_an_answer_is_named_by_its_line(tmp_path: Path) -> None:
    text = "category,question,answer\n\ncar,What colour is a car?,\n"  # the reader passes over empty lines
    scenario = build("scenario", "lvlm_ehub", {"path": folder(tmp_path, ImageNetVC_color_csv=text)})
    (group,) = scenario.groups(None, 0)
    assert group.errors == {f"{tmp_path / 'ImageNetVC_color.csv'}:3": "expected category, question and answer"}


def test_any_row_of_picture_question_and_answers_is_asked_and_the_metric_is_named(tmp_path: Path, model, processor) -> None:
    root = folder(tmp_path, MyOwn=rows(3))
    given = EvaluationOptions(
        scenario={"lvlm_ehub": {"path": root}},
        inferencer={"generate": {"max_new_tokens": 2}},
        metrics=["word_match", "class_match", "word_f1", "reciprocal_rank", "cider"],
        samples=None,
    )
    found = evaluate(model, processor, given, progress=False)
    assert (found.answered, found.errors) == (3, {})
    assert all(
        "MyOwn" in found.measurements[name] for name in ("word_match", "class_match", "word_f1", "reciprocal_rank", "cider")
    )


def test_check_says_what_is_there_and_what_is_wrong(tmp_path: Path) -> None:
    root = folder(
        tmp_path,
        IC15=rows(50),
        VirtualHome=[*rows(3), {"image_path": "02.png", "question": "How?"}, *rows(1, image_path="no.png")],
    )
    shown = CliRunner().invoke(app, ["data", "check", "tiny-lvlm-ehub", str(root)])
    assert shown.exit_code == 1
    assert "IC15             50 of 50" in shown.output
    assert "VirtualHome       3 of 6" in shown.output
    assert "can be asked     53" in shown.output
    assert "field 'gt_answers'" in shown.output
    assert "no.png" in shown.output
    good = CliRunner().invoke(app, ["data", "check", "lvlm-ehub", str(root), "--set", "only=[IC15]"])
    assert (good.exit_code, "can be asked     50" in good.output) == (0, True)
    wrong = CliRunner().invoke(app, ["data", "check", "lvlm-ehub", str(root), "--set", "only=[IC16]"])
    assert "Did you mean 'IC15'" in wrong.output
    assert wrong.exit_code == 2


def test_a_folder_without_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgusError, match="holds no sets"):
        build("scenario", "lvlm_ehub", {"path": tmp_path})
    with pytest.raises(ArgusError, match="no such folder"):
        build("scenario", "lvlm_ehub", {"path": tmp_path / "none"})


# -- the tiny subset


def test_the_order_is_numpys_choice_with_the_published_seed() -> None:
    np.random.seed(SEED)
    assert chosen(range(300), list(range(60)), False) == np.random.choice(300, 60, replace=False).tolist()
    assert chosen(range(300), None, True) == chosen(range(300), list(range(50)), False)  # sets that no file names


def index_file(path: Path, **positions: list[int]) -> Path:
    path.write_text("".join(json.dumps({"dataset": name, "indices": some}) + "\n" for name, some in positions.items()))
    return path


def test_splits_are_reproducible_apart_and_independent_of_other_sets(tmp_path: Path) -> None:
    published = [n for n in range(53) if n not in (3, 17, 30)]  # three refused pictures, replaced by the next
    both = folder(tmp_path / "both", GQA=rows(200), Aardvark=rows(70), VirtualHome=rows(60))
    alone = folder(tmp_path / "alone", GQA=rows(200))
    indices = index_file(tmp_path / "index.jsonl", Aardvark=[0, 1], GQA=published)

    def targets(root: Path, split: str, name: str) -> list[str]:
        scenario = build("scenario", "tiny_lvlm_ehub", {"path": root, "split": split, "indices": indices})
        samples = [s for g in scenario.groups(None, 0) for s in g.samples if s.metadata["family"] == name]
        assert {s.metadata["domain"] for s in samples} == {f"tiny-lvlm-ehub ({split})"}
        return [s.target for s in samples]

    first, following = targets(both, "published", "GQA"), targets(both, "following", "GQA")
    assert first == targets(alone, "published", "GQA")
    assert (len(first), len(following), set(first) & set(following)) == (50, 100, set())
    assert first == [f"a{n}" for n in chosen(range(200), published, False)]
    assert len(targets(both, "published", "VirtualHome")) == 60  # embodied sets are asked whole


def test_what_a_split_needs(tmp_path: Path) -> None:
    root = folder(tmp_path, GQA=rows(20))
    indices = index_file(tmp_path / "index.jsonl", GQA=[0, 40])
    with pytest.raises(ArgusError, match="need the file `indices`"):
        build("scenario", "tiny_lvlm_ehub", {"path": root, "split": "published"})
    scenario = build(
        "scenario", "tiny_lvlm_ehub", {"path": root / "GQA" / "dataset.json", "split": "published", "indices": indices}
    )
    (group,) = scenario.groups(None, 0)
    assert "not whole" in next(iter(group.errors.values()))


RIGHT = {  # right answers of each ability
    "InternVL-Chat": ((310, 209, 476, 310, 267), 327.61),
    "LLaVA-1.5-7B": ((306, 196, 399, 286, 265), 307.17),
    "BLIP2": ((247, 196, 449, 220, 248), 284.72),
    "Qwen-VL-Chat": ((343, 218, 386, 274, 270), 316.80),
}


@pytest.mark.parametrize(("right", "overall"), RIGHT.values(), ids=RIGHT)
def test_the_overall_score_is_the_sum_of_five_abilities(right: tuple[int, ...], overall: float) -> None:
    records = []
    for (name, count), hits in zip(ABILITIES.items(), right, strict=True):
        for n in range(count):
            row = {"id": f"{name}{n}", "kind": "answer", "blind": False, "group": f"{name}{n}", "family": name, "domain": "d"}
            records.append(
                {**row, "branches": ["overall"], "options": [], "seconds": 0.0, "values": {"word_match": float(n < hits)}}
            )
    found = summarise(records, {"word_match": build("metric", "word_match")})
    assert 500 * found.value("word_match", "mean overall") == pytest.approx(overall, abs=0.01)
    assert found.value("word_match", "overall") == pytest.approx(sum(right) / 2450)


def test_files_of_abilities_count_as_such(tmp_path: Path) -> None:
    root = folder(tmp_path, Visual_Commonsense=rows(2))
    samples = [s for g in build("scenario", "tiny_lvlm_ehub", {"path": root}).groups(None, 0) for s in g.samples]
    assert [s.metadata["branches"] for s in samples] == [["overall"]] * 2
