"""ChEF's nine scenarios from files in their published form, and its recipes as data."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from argus.cli.app import app
from argus.core.errors import DataError, UnsupportedError
from argus.core.recipe import dump, load_recipe
from argus.core.registry import build
from argus.evaluation.endpoint import EndpointModel
from argus.evaluation.engine import evaluate
from argus.evaluation.metrics.iou import iou
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.records import MemoryRecords
from argus.evaluation.scenarios.fsc147 import around
from argus.evaluation.scenarios.voc2012 import wrong_boxes

LETTERED = {"query": {"layout": "mmbench", "answer": "letter"}}
TREE = {
    "id2name": {
        "0": ["thing"],
        "1": ["animal"],
        "2": ["plant"],
        "3": ["bird"],
        "4": ["fish"],
        "5": ["cat"],
        "6": ["dog"],
        "7": ["owl"],
        "8": ["duck"],
    },
    "father2child": {"0": ["1", "2"], "1": ["3", "4", "5", "6"], "3": ["7", "8"]},
    "child2father": {"1": ["0"], "2": ["0"], "3": ["1"], "4": ["1"], "5": ["1"], "6": ["1"], "7": ["3"], "8": ["3"]},
}
SENTENCES = [[f"picture {n} sentence {k}" for k in range(5)] for n in range(4)]
META: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "cifar10": ("Classification_CIFAR10", [{"label": "automobile"}, {"label": "cat"}]),
    "omnibenchmark": ("Classification_Omnibenchmark", [{"chain": ["animal", "bird", "owl"], "realm_name": "bird"}]),
    "voc2012": (
        "Detection_VOC2012",
        [
            {"object": [{"label": "cat", "bbox": [0.1, 0.25, 0.5, 1.0]}, {"label": "cat", "bbox": [0.6, 0.1, 0.9, 0.4]}]},
            *({"object": [{"label": name, "bbox": [0.2, 0.2, 0.7, 0.7]}]} for name in ("aeroplane", "boat", "dog", "sofa")),
        ],
    ),
    "fsc147": ("Counting_FSC147", [{"num": 10, "query": "How many eggs are there in this image?"}]),
    "flickr30k": ("Caption_flickr30k", [{"sentences": s} for s in SENTENCES]),
    "scienceqa": (
        "VQA_ScienceQA",
        [
            {"query": f"Which is {n}? Context: N/A Options: (A) one (B) two", "gt_choices": ["one", "two"], "gt_choice": n % 2}
            for n in range(6)
        ],
    ),
}


@pytest.fixture
def lamm(tmp_path: Path) -> Path:
    """2D_Benchmark with a few items of each set."""
    for folder in ("meta_file", "set"):
        (tmp_path / folder).mkdir()
    for name, items in META.values():
        rows = []
        for n, item in enumerate(items):
            Image.new("RGB", (32, 32), (n * 40, 10, 10)).save(tmp_path / "set" / f"{name}{n}.png")
            rows.append({"image": f"set/{name}{n}.png", **item})
        (tmp_path / "meta_file" / f"{name}.json").write_text(json.dumps(rows))
    (tmp_path / "tree.json").write_text(json.dumps(TREE))
    return tmp_path


def samples(name: str, path: Path, **options):
    found = [s for g in build("scenario", name, {"path": path, **options}).groups(None, 0) for s in g.samples]
    assert found
    assert all(s.images() for s in found)
    return found


def png(colour: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def mmbench(tmp_path: Path) -> Path:
    lines = ["index\tquestion\thint\tA\tB\tC\tanswer\tcategory\timage"]
    for index, options, answer in ((7, "red\tgreen\tblue", "B"), (1_000_007, "green\tblue\tred", "A"), (8, "one\ttwo\t", "A")):
        lines.append(f"{index}\tWhich?\tLook.\t{options}\t{answer}\tcolour\t{png((index % 100, 0, 0))}")
    (tmp_path / "mmbench_dev_20230712.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def mme(tmp_path: Path) -> Path:
    for folder in ("existence", "OCR/images", "OCR/questions_answers_YN"):
        (tmp_path / folder).mkdir(parents=True)
    pairs = "Is there a cat?\tYes\nIs there a dog?\tNo\n"
    (tmp_path / "existence" / "1.txt").write_text(pairs)
    Image.new("RGB", (32, 32)).save(tmp_path / "existence" / "1.jpg")
    (tmp_path / "OCR" / "questions_answers_YN" / "9.txt").write_text(pairs)
    Image.new("RGB", (32, 32)).save(tmp_path / "OCR" / "images" / "9.png")
    return tmp_path


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    (tmp_path / "val2014").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "val2014" / "a.jpg")
    rows = [
        {"question_id": n, "image": "a.jpg", "text": "Is there a dog?", "label": label} for n, label in enumerate(("yes", "no"))
    ]
    (tmp_path / "coco_pope_popular.json").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_cifar_has_ten_options_and_synonyms(lamm: Path) -> None:
    first, second = samples("cifar10", lamm)
    assert (len(first.options), first.target, "car" in first.metadata["answers"]) == (10, "automobile", True)
    assert second.target == "cat"


@pytest.mark.parametrize(
    ("number", "near"), [(10, [13, 14, 10, 11, 12]), (9, [7, 8, 9, 6, 5]), (1, [0, 1, 2, 3]), (15, [13, 14, 15, 16, 17])]
)
def test_wrong_counts_are_as_long_as_the_right_one(number: int, near: list[int]) -> None:
    assert around(number, 2) == near


def test_fsc_asks_how_many(lamm: Path) -> None:
    (one,) = samples("fsc147", lamm)
    assert (one.messages[0].text(), one.target) == ("How many eggs are there in this image?", "10")
    assert one.options == ["13", "14", "10", "11", "12"]


def test_captions_of_other_pictures_are_wrong(lamm: Path) -> None:
    for number, one in enumerate(samples("flickr30k", lamm)):
        own = set(SENTENCES[number])
        assert len(one.options) == 4
        assert [option in own for option in one.options].count(True) == 1
        assert {one.target, *one.metadata["answers"]} == own
    assert [s.options for s in samples("flickr30k", lamm)] == [s.options for s in samples("flickr30k", lamm)]
    assert samples("flickr30k", lamm, wrong="none")[0].options == []


def test_the_most_similar_captions_of_other_pictures(lamm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in encoder counts letters, so that sentence k of one picture is most like sentence k of the next ones."""
    import numpy as np

    def encoder():
        return lambda texts: np.array([[len(t), *(t.count(d) for d in "0123456789")] for t in texts]) / 30

    monkeypatch.setattr("argus.evaluation.sentences.SentenceEncoder", encoder)
    for number, one in enumerate(samples("flickr30k", lamm, wrong="similar")):
        assert sum(option in SENTENCES[number] for option in one.options) == 1


def test_scienceqa_drops_context_and_printed_options(lamm: Path) -> None:
    found = samples("scienceqa", lamm)
    assert found[1].messages[0].text() == "Which is 1?"
    assert (found[1].options, found[1].target, found[1].metadata["letter"]) == (["one", "two"], "two", "B")


def test_items_are_drawn_as_python_draws_them(lamm: Path) -> None:
    wanted = sorted(Random(0).sample(range(6), 3))
    assert [s.id for s in samples("scienceqa", lamm, drawn=3)] == [f"scienceqa/{n}" for n in wanted]


def test_a_chain_is_asked_level_by_level_with_siblings(lamm: Path) -> None:
    found = samples("omnibenchmark", lamm, tree=lamm / "tree.json")
    assert [s.messages[0].text() for s in found] == ["What is it?", "What kind of animal is it?", "What kind of bird is it?"]
    assert [set(s.options) for s in found] == [{"animal", "plant"}, {"bird", "fish", "cat", "dog"}, {"owl", "duck"}]
    assert [s.metadata.get("parent") for s in found] == [None, "animal", "bird"]
    assert samples("omnibenchmark", lamm)[0].metadata["chain"] == ["animal", "bird", "owl"]


def test_classes_are_asked_before_boxes(lamm: Path) -> None:
    found = samples("voc2012", lamm)
    cat = [s for s in found if s.metadata["class"] == "cat"]
    assert [s.metadata["family"] for s in cat] == ["class", "box", "box"]
    assert cat[0].target == "a cat"
    assert set(cat[0].options) - {"a cat"} <= {"an aeroplane", "a boat", "a dog", "a sofa"}
    assert cat[1].target == "[0.1, 0.25, 0.5, 1.0]"
    for box in cat[1:]:
        gold = box.metadata["gold"]
        hits = [max(iou(g, b) for g in gold) > 0.5 for b in box.metadata["boxes"]]
        assert (len(hits), sum(hits)) == (4, 1)
        assert box.options[hits.index(True)] == box.target


def test_boxes_as_other_models_write_them(lamm: Path) -> None:
    assert samples("voc2012", lamm, boxes="shikra")[1].target == "cat[0.100,0.250,0.500,1.000]"
    # x 0.1 is column 3, y 0.25 row 8; x 0.5 is column 16, y 1.0 the last row
    assert samples("voc2012", lamm, boxes="kosmos")[1].target == "<object><patch_index_0259><patch_index_1008></object>"


def test_boxes_that_leave_no_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gold = [(x / 10, y / 10, x / 10 + 0.3, y / 10 + 0.3) for x in range(8) for y in range(8)]
    assert all(iou(gold[0], box) <= 0.5 for box in wrong_boxes(gold[:1], gold, Random(0)))
    steps = [n / 10 for n in range(11)]
    every = [(a, b, c, d) for a in steps for b in steps for c in steps for d in steps if a < c and b < d]  # hit by any larger box
    monkeypatch.setattr("argus.evaluation.scenarios.voc2012.anywhere", lambda lot: (0.0, 0.0, 1.0, 1.0))
    with pytest.raises(DataError, match="no room for a wrong one"):
        wrong_boxes(every, [(0.0, 0.0, 1.0, 1.0)], Random(0), "a.json:1")


def test_rows_of_mmbench_that_are_turned_are_one_item(mmbench: Path) -> None:
    found = samples("mmbench", mmbench)
    assert [s.metadata["item"] for s in found] == ["7", "7", "8"]
    assert [s.metadata["family"] for s in found] == ["vanilla", "turned", "vanilla"]
    asked = build("instruction", "query", LETTERED["query"]).apply(found[1])
    assert asked.messages[0].text() == "Look. Which? There are several options:\n(A) green\n(B) blue\n(C) red\n"
    assert asked.target == "(A"


def test_corrupted_texts_take_places_by_position(mmbench: Path, tmp_path: Path) -> None:
    rows = [
        {"query": f"Whch {n}? There are several options: (A) x (B) y", "gt_choices": ["x", "y"], "gt_choice": 1} for n in range(3)
    ]
    (tmp_path / "MMBench_C.json").write_text(json.dumps(rows))
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.new("RGB", (32, 32), (9, 9, n)).save(tmp_path / "images" / f"{n}.png")
    found = samples("mmbench", mmbench, texts=tmp_path / "MMBench_C.json", pictures=tmp_path / "images")
    assert [s.messages[0].text() for s in found] == ["Whch 0?", "Whch 1?", "Whch 2?"]
    assert {s.target for s in found} == {"y"}
    assert found[2].images() == [tmp_path / "images" / "2.png"]


def test_mme_from_both_kinds_of_folders(mme: Path) -> None:
    found = samples("mme", mme)
    assert [(s.metadata["family"], s.target) for s in found] == [
        ("existence", "Yes"),
        ("existence", "No"),
        ("OCR", "Yes"),
        ("OCR", "No"),
    ]
    assert {s.metadata["picture"] for s in samples("mme", mme, only=["OCR"])} == {found[2].metadata["picture"]}
    with pytest.raises(DataError, match="no task 'ocr'"):
        samples("mme", mme, only=["ocr"])


def test_pope(pope: Path) -> None:
    assert [s.target for s in samples("pope", pope, part="popular")] == ["Yes", "No"]
    with pytest.raises(DataError, match="coco_pope_popular"):
        samples("pope", pope)


@pytest.mark.parametrize("name", META)
def test_a_bad_item_is_set_aside_with_line_and_field(lamm: Path, name: str) -> None:
    file = lamm / "meta_file" / f"{META[name][0]}.json"
    rows = json.loads(file.read_text())
    file.write_text("[" + ",\n".join(map(json.dumps, [*rows, {"image": "set/none.png"}])) + "]")
    options = {"tree": lamm / "tree.json"} if name == "omnibenchmark" else {}
    found = build("scenario", name, {"path": lamm, **options}).check()
    assert found.bad == 1
    assert f"{file}:{len(rows) + 1}" in found.errors[0]


@pytest.mark.parametrize("value", [7, "a cat", {"label": "cat"}, None])
@pytest.mark.parametrize(("name", "field"), [("voc2012", "object"), ("flickr30k", "sentences")])
def test_a_field_that_is_no_list_is_set_aside_and_gives_no_options(lamm: Path, name: str, field: str, value: Any) -> None:
    file = lamm / "meta_file" / f"{META[name][0]}.json"
    rows = json.loads(file.read_text())
    file.write_text("[" + ",\n".join(map(json.dumps, [*rows, {"image": rows[0]["image"], field: value}])) + "]")
    scenario = build("scenario", name, {"path": lamm})
    found = scenario.check()
    assert found.bad == 1
    assert f"{file}:{len(rows) + 1}, field '{field}'" in found.errors[0]
    known = scenario.classes if name == "voc2012" else scenario.captions
    assert all(len(one) > 1 for one in known)  # no single letters


@pytest.mark.parametrize("part", ["id2name", "father2child", "child2father"])
@pytest.mark.parametrize("names", ["owl", [7], None])
def test_a_tree_with_something_else_than_lists_is_named(lamm: Path, part: str, names: Any) -> None:
    (lamm / "tree.json").write_text(json.dumps({**TREE, part: {**TREE[part], "3": names}}))
    found = build("scenario", "omnibenchmark", {"path": lamm, "tree": lamm / "tree.json"}).check()
    assert (found.bad, sum(found.found.values())) == (1, 0)
    assert f"tree.json, field '{part}': '3' must have a list of texts" in found.errors[0]


def test_a_chain_with_a_question_of_one_option_is_set_aside(lamm: Path) -> None:
    (lamm / "tree.json").write_text(json.dumps({**TREE, "father2child": {**TREE["father2child"], "3": ["7"]}}))
    found = build("scenario", "omnibenchmark", {"path": lamm, "tree": lamm / "tree.json"}).check()
    assert (found.bad, sum(found.found.values())) == (1, 0)
    assert "'owl' has no sibling, so level 3 has one option" in found.errors[0]


@pytest.mark.parametrize("name", [*META, "mme", "mmbench"])
def test_the_command_checks_a_download(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(name if name in ("mme", "mmbench") else "lamm")
    done = CliRunner().invoke(app, ["data", "check", name, str(path)])
    assert done.exit_code == 0, done.output
    assert "can be asked" in done.output


# Recipes: four parts, each replaced by a line.
RECIPES = {
    "MMBench, Direct": ("mmbench", {}, LETTERED, {"generate": {"max_new_tokens": 16}}, ["mcq"]),
    "MMBench, CoT and PPL": ("mmbench", {}, LETTERED, {"chain_of_thought": {"max_new_tokens": 4}}, ["mcq", {"ece": {"bins": 2}}]),
    "MME, Direct": ("mme", {}, "plain", {"generate": {"max_new_tokens": 4}}, ["mme_pairs"]),
    "MME, PPL": ("mme", {}, {"query": {"pool": "vqa", "index": 5}}, "ppl", ["mme_pairs"]),
    "POPE, PPL": ("pope", {"part": "popular"}, "plain", "ppl", ["pope"]),
    "CIFAR10, PPL": ("cifar10", {}, {"query": {"pool": "classification", "index": 2}}, "ppl", ["accuracy"]),
    "CIFAR10, Direct": ("cifar10", {}, "plain", "generate", ["class_match", "word_match"]),
    "ScienceQA, PPL": ("scienceqa", {}, {"query": {"layout": "scienceqa", "answer": "letter"}}, "ppl", ["mcq"]),
    "Omnibenchmark, multi-turn PPL": ("omnibenchmark", {"tree": "tree.json"}, "plain", "multi_turn", ["chain"]),
    "VOC2012, two stages": ("voc2012", {}, "plain", "ppl", ["detection"]),
    "FSC147, PPL": ("fsc147", {}, "plain", "ppl", ["accuracy", "counting"]),
    "Flickr30k, PPL": ("flickr30k", {}, "plain", "ppl", ["accuracy"]),
    "Flickr30k, Direct": ("flickr30k", {"wrong": "none"}, "plain", "generate", ["bleu", "rouge_l"]),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_data(recipe: str, model, processor, request: pytest.FixtureRequest) -> None:
    scenario, options, instruction, inferencer, metrics = RECIPES[recipe]
    path = request.getfixturevalue(scenario if scenario in ("mme", "mmbench", "pope") else "lamm")
    options = {key: str(path / value) if key == "tree" else value for key, value in options.items()}
    asked = EvaluationOptions(
        scenario={scenario: {"path": str(path), **options}}, instruction=instruction, inferencer=inferencer, metrics=metrics,
        samples=None,
    )  # fmt: skip
    result = evaluate(model, processor, asked, progress=False)
    assert result.answered == result.asked > 0
    for metric in metrics:
        name = metric if isinstance(metric, str) else next(iter(metric))
        assert result.measurements[name]["all"].n > 0


def test_an_endpoint_without_log_probabilities_is_asked_directly_and_refused_for_ppl(
    mme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self):
        raise UnsupportedError("gives no top log-probabilities", hint="Ask by the inferencer `generate`.")

    monkeypatch.setattr(EndpointModel, "check_scores", refuses)
    model = EndpointModel("openai:m@http://127.0.0.1:9/v1")
    asked = EvaluationOptions(scenario={"mme": {"path": str(mme)}}, inferencer="ppl", samples=None)
    with pytest.raises(UnsupportedError, match="no top log-probabilities") as refused:
        evaluate(model, None, asked, run_part=MemoryRecords(), progress=False)
    assert "generate" in (refused.value.hint or "")


def test_the_recipe_of_the_paper_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    recipe = load_recipe("chef").recipe
    (tmp_path / "again.yaml").write_text(dump(recipe))
    assert load_recipe(tmp_path / "again.yaml").recipe == recipe
    assert len(recipe.claims) == 6
