"""LVLM-eHub (arXiv 2306.09265) and Tiny LVLM-eHub (arXiv 2308.03729): sets on disk and on the world, ways to ask."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from argus.cli.app import app
from argus.core.errors import ArgusError, UnknownNameError
from argus.core.images import encode_png
from argus.core.registry import build
from argus.core.sample import ImagePart
from argus.evaluation.engine import MemoryRecords, evaluate
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.inferencers.partners import ASKERS, REASONERS, Case
from argus.evaluation.inferencers.prefix import shares
from argus.evaluation.inferencers.subquestions import conclusion, subquestions
from argus.evaluation.judges.asked import UnreadableError
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.results import summarise
from argus.evaluation.scenarios.lvlm_ehub_world import CAPABILITIES, CELL, reached
from argus.evaluation.scenarios.tiny_lvlm_ehub import ABILITIES, SEED, chosen

from .conftest import picture, question

# -- the prefix-based score


def test_shares_of_inverse_losses() -> None:
    """Losses 1, 2, 4: softmax of 1, 0.5, 0.25."""
    found = shares([1.0, 2.0, 4.0])
    assert found == pytest.approx([0.4810, 0.2918, 0.2272], abs=5e-5)
    more = shares([1.0, 2.0, 4.0, 0.5])
    assert (np.diff(more[:3]) < 0).all()  # another candidate changes the shares, not the order of the others
    assert more[0] < found[0]
    assert np.isfinite(shares([0.0, 1.0])).all()


class Scored:
    """A model that says for each picture which losses it gives; remembers what it was shown."""

    def __init__(self, losses: dict[bytes, list[float]]) -> None:
        self.losses, self.asked = losses, []

    def score(self, questions, mean, end):
        self.asked += [(mean, end, len(q.images), len(q.sample.images())) for q in questions]
        return [[-loss for loss in self.losses[q.images[0].tobytes()]] for q in questions]


def test_every_picture_is_asked_about_by_itself_and_the_mean_decides() -> None:
    pictures = [picture(n) for n in range(3)]
    one = question(0, 0, "What colour is a fire engine?", ("red", "blue"))
    one.sample.messages[0].content[:1] = [ImagePart(p) for p in pictures]
    asked = Question("g", one.sample, pictures)
    losses = dict(zip((p.tobytes() for p in pictures), ([1.0, 2.0], [1.0, 2.0], [2.0, 1.5]), strict=True))
    model = Scored(losses)
    alone = Question("h", question(0, 1, "?", ("red", "blue")).sample, [pictures[2]])
    found, single = build("inferencer", "prefix").answer(model, [asked, alone])
    assert model.asked == [(True, False, 1, 1)] * 4
    assert found.text == "red"
    assert found.scores == pytest.approx(np.mean([shares(row) for row in losses.values()], axis=0))
    assert single.text == "blue"  # one picture: the least loss


def test_prefix_is_the_likeliest_per_token_for_one_picture(model, processor, questions) -> None:
    from argus.evaluation.local import LocalModel

    local = LocalModel(model, processor)
    plain = build("inferencer", "likelihood", {"normalise": "mean", "end": False})
    given = [a.text for a in build("inferencer", "prefix").answer(local, questions)]
    assert given == [a.text for a in plain.answer(local, questions)]


# -- sub-questions


class Seeing:
    """A model that answers by a table of texts, and 'nothing' otherwise."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known, self.asked = known, []

    def generate(self, questions, max_new_tokens):
        texts = [q.sample.messages[-1].text() for q in questions]
        self.asked += texts
        return [Answer(self.known.get(text, "")) for text in texts]


RULES = {"asker": "scripted:attributes", "reasoner": "scripted:attributes", "short_answer": "{question}"}
STAR = question(0, 0, "Is there a red star?", ("yes", "no"))


@pytest.mark.parametrize(("colour", "shape", "answer"), [("red", "star", "yes"), ("red", "ring", "no"), ("blue", "star", "no")])
def test_the_answer_is_concluded_from_sub_answers(colour: str, shape: str, answer: str) -> None:
    model = Seeing({"What colour is the thing?": f"{colour} Question: and", "What shape is the thing?": shape})
    (found,) = build("inferencer", "subquestions", RULES).answer(model, [STAR])
    assert (found.text, found.notes["rounds"], found.notes["undecided"]) == (answer, 1, False)
    assert found.notes["exchange"] == [("What colour is the thing?", colour), ("What shape is the thing?", shape)]
    assert model.asked[0] == "Describe the picture in detail."


def test_the_rounds_end(monkeypatch) -> None:
    """A reasoner that is never sure has to choose in the last round; one that is sure later is asked no more."""
    monkeypatch.setitem(ASKERS, "more", lambda case: f"Sub-question {len(case.exchange)}: What is {len(case.exchange)}?")
    monkeypatch.setitem(
        REASONERS, "third", lambda case, last: f"More Likely Answer: {2 if len(case.exchange) == 3 else 'not sure'}"
    )
    options = {**RULES, "asker": "scripted:more", "reasoner": "scripted:third"}
    model = Seeing({})
    (found,) = build("inferencer", "subquestions", {**options, "rounds": 5}).answer(model, [STAR])
    assert (found.text, found.notes["rounds"], found.notes["undecided"]) == ("no", 3, False)
    for rounds in (1, 2):
        (found,) = build("inferencer", "subquestions", {**options, "rounds": rounds}).answer(model, [STAR])
        assert found.text in STAR.sample.options
        assert (found.notes["rounds"], len(found.notes["exchange"]), found.notes["undecided"]) == (rounds, rounds, True)


def test_questions_of_a_batch_end_in_rounds_of_their_own(monkeypatch) -> None:
    monkeypatch.setitem(ASKERS, "more", lambda case: f"Sub-question 1: {case.question} {len(case.exchange)}")
    monkeypatch.setitem(
        REASONERS,
        "long",
        lambda case, last: f"More Likely Answer: {1 if len(case.exchange) == int(case.question) else 'not sure'}",
    )
    asked = [question(n, n, str(n), ("yes", "no")) for n in (3, 1, 2)]
    inferencer = build("inferencer", "subquestions", {**RULES, "asker": "scripted:more", "reasoner": "scripted:long"})
    assert [a.notes["rounds"] for a in inferencer.answer(Seeing({}), asked)] == [3, 1, 2]


def test_partners_replies_are_read() -> None:
    assert subquestions("Well.\nSub-question 1: What is red?\nSub-Question 2:  What is it on?") == [
        "What is red?",
        "What is it on?",
    ]
    assert conclusion("Analysis: so. More Likely Answer: 3", 4) == 3
    assert conclusion("More Likely Answer: 'not sure'", 4) == 0
    for reply in ("More Likely Answer: 5", "3", ""):
        with pytest.raises(UnreadableError):
            conclusion(reply, 4)
    with pytest.raises(UnreadableError):
        subquestions("What is red?")


def test_rules_decline_what_they_cannot_tell() -> None:
    case = Case("Is there a red star?", ["yes", "no"], exchange=[("What colour is the thing?", "")])
    assert "not sure" in REASONERS["attributes"](case, False)
    assert conclusion(REASONERS["attributes"](case, True), 2) == 1
    assert subquestions(ASKERS["attributes"](Case("Who is it?", []))) == ["Who is it?"]
    with pytest.raises(UnknownNameError, match="Did you mean 'attributes'"):
        build("inferencer", "subquestions", {**RULES, "asker": "scripted:atributes"})


# -- the world


@pytest.fixture(scope="module")
def drawn() -> list:
    options = {"pictures": 4, "questions": 4}
    return [s for g in build("scenario", "lvlm_ehub_world", options).groups(220, 3) for s in g.samples]


def test_all_six_capabilities_are_asked_with_exact_answers(drawn) -> None:
    branches = Counter(b for s in drawn for b in s.metadata["branches"])
    assert set(branches) == set(CAPABILITIES)
    assert {s.metadata["family"] for s in drawn} == {name for names in CAPABILITIES.values() for name in names}
    assert all(s.target in s.options for s in drawn if s.options)
    assert len({s.id for s in drawn}) == len(drawn)


def test_the_drawn_truth_is_the_scenes(drawn) -> None:
    for s in drawn:
        scenes = s.metadata.get("scenes", [])
        if s.metadata["family"] == "attributes":
            (thing,) = scenes[0].things
            words = set(s.messages[0].text().rstrip("?").split())
            assert (s.target == "yes") == ({thing.colour, thing.shape} <= words)
            assert {thing.colour, thing.shape} & words  # what is wrong is half right
        if s.metadata["family"] == "typical colours":
            assert len(s.images()) == 4
            assert {scene.things[0].shape for scene in scenes} <= set(s.messages[0].text().rstrip("?").split())
        if s.metadata["family"] == "plans":
            start, goal = ((t.x // CELL, t.y // CELL) for t in scenes[0].things)
            assert [plan for plan in s.options if reached(start, plan) == goal] == [s.target]
            assert all(0 <= place < 3 for place in (*start, *goal))


def test_most_pictures_have_the_typical_colour_and_no_answer_is_likelier() -> None:
    scenario = build("scenario", "lvlm_ehub_world", {"sets": ["typical colours", "plans", "attributes"], "pictures": 10})
    samples = [s for g in scenario.groups(450, 0) for s in g.samples]
    typical = [s for s in samples if s.metadata["family"] == "typical colours"]
    for sample in typical:
        assert sum(scene.things[0].colour == sample.target for scene in sample.metadata["scenes"]) == 7
    for family, most in (("plans", 1.3 / 4), ("attributes", 1.3 / 2), ("typical colours", 1.8 / 10)):
        counted = Counter(s.target for s in samples if s.metadata["family"] == family)
        assert max(counted.values()) <= most * counted.total()


def test_a_part_of_the_sets_may_be_asked_and_all_seeds_differ() -> None:
    scenario = build("scenario", "lvlm_ehub_world", {"sets": ["attributes"]})
    first, again, other = ([s.id for g in scenario.groups(5, seed) for s in g.samples] for seed in (0, 0, 1))
    assert first == again
    assert not set(first) & set(other)
    alone, among = (
        build("scenario", "lvlm_ehub_world", {"sets": sets}).groups(n, 0)
        for sets, n in ((["plans"], 3), (["shapes", "plans"], 6))
    )
    plans = [s.id for g in among for s in g.samples if s.metadata["family"] == "plans"]
    assert [s.id for g in alone for s in g.samples] == plans  # a set's questions do not depend on the other sets
    with pytest.raises(ValidationError, match="there is no set 'colors'"):
        type(scenario).Options(sets=["colors"])
    with pytest.raises(ArgusError, match="cannot be shared"):
        list(build("scenario", "lvlm_ehub_world").groups(3, 0))


def test_worded_answers_keep_what_is_meant(model, processor) -> None:
    given = EvaluationOptions(
        scenario={"lvlm_ehub_world": {"sets": ["attributes", "shapes", "plans"]}},
        inferencer={"worded": {"of": "prefix"}},
        metrics=["meant", "word_match", {"same_verdict": {"of": ["word_match"]}}],
        samples=24,
    )
    records = MemoryRecords()
    found = evaluate(model, processor, given, run_part=records, progress=False)
    rows = [r for r in records.rows if r["kind"] == "answer"]
    assert len({r["form"] for r in rows}) >= 4
    assert all(len(r["meant"]) == 1 + (r["form"] == "hedged") for r in rows)
    assert all(m in r["options"] for r in rows for m in r["meant"])
    assert found.value("meant") == np.mean([r["meant"] == [r["target"]] for r in rows])
    assert found.value("same_verdict", "word_match") == found.value("same_verdict")


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
