"""MVL-SIB: rows are what the paper builds, equal in all languages; its metric and its pictures are read as published."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from argus.core.errors import DataError, UnsupportedError
from argus.core.registry import build
from argus.core.sample import Sample
from argus.evaluation.contrastive import ContrastiveModel
from argus.evaluation.engine import evaluate
from argus.evaluation.inferencers.base import Answer, Question
from argus.evaluation.inferencers.cosine import CANDIDATE_TEXTS, REFERENCE_TEXTS
from argus.evaluation.options import EvaluationOptions
from argus.evaluation.scenarios.mvl_sib_rows import PICTURES, SENTENCES, TOPICS, fingerprint, manifest, shrunk
from tests.training.test_stage import dual

LANGUAGES = ("eng_Latn", "nqo_Nkoo")


def categories(count: int) -> list[tuple[int, str]]:
    """Ids and topics in an order of no pattern, as the files have them."""
    topics = np.random.Generator(np.random.PCG64(1)).integers(len(TOPICS), size=count)
    return [(7 * n + 3, TOPICS[t]) for n, t in enumerate(topics)]


def download(folder: Path, count: int = 70, languages: tuple[str, ...] = LANGUAGES) -> Path:
    """The published layout: three splits per language, ten pictures per topic."""
    for language in languages:
        texts = folder / "data" / "sib200" / language
        texts.mkdir(parents=True)
        rows = [f"{i}\t{'science/technology' if t == 'science' else t}\t{language} {t} {i}" for i, t in categories(count)]
        cuts = {"train": rows[: count // 2], "dev": rows[count // 2 : count // 2 + 5], "test": rows[count // 2 + 5 :]}
        for split, part in cuts.items():
            (texts / f"{split}.tsv").write_text("\n".join(["index_id\tcategory\ttext", *part]) + "\n")
    pictures = folder / "data" / "images" / "sib200"
    pictures.mkdir(parents=True)
    for t, topic in enumerate(TOPICS):
        for n in range(PICTURES):
            Image.new("RGB", (24, 16), (30 * t, 20 * n, 90)).save(pictures / f"{topic}_{n}.jpg")
    return folder


def asked(path: Path, **options: Any) -> list[Sample]:
    return [s for group in build("scenario", "mvl_sib", {"path": path, **options}).groups(None, 0) for s in group.samples]


@pytest.mark.parametrize("direction", ["img2sent", "sent2img"])
@pytest.mark.parametrize("references", [1, 3, 5])
def test_every_row_has_one_right_candidate_and_three_of_other_topics(direction: Any, references: int) -> None:
    known = categories(SENTENCES)
    topic_of = dict(known)
    draws = manifest(known, direction, references)
    assert len(draws) == 3012
    for number, draw in enumerate(draws):
        pictured = [image.rpartition("_")[0] for image in draw.images]
        said = [topic_of[index] for index in draw.sentences]
        shown, candidates = (pictured, said) if direction == "img2sent" else (said, pictured)
        assert (len(shown), len(candidates)) == (references, 4)
        assert len(set(draw.images)) == len(draw.images)
        assert len(set(draw.sentences)) == len(draw.sentences)
        assert set(shown) == {candidates[draw.label]} == {topic_of[draw.index_id]}
        assert len(set(candidates)) == 4
        assert tuple(candidates) == draw.topics
        assert draw.index_id == known[number % SENTENCES][0]  # the whole list, three times
        assert draw.index_id == (draw.sentences[draw.label] if direction == "img2sent" else draw.sentences[0])
    labels = Counter(draw.label for draw in draws)
    assert all(abs(count / len(draws) - 0.25) <= 0.025 for count in labels.values())


def test_a_manifest_is_drawn_once_for_all_and_belongs_to_its_k() -> None:
    known = categories(SENTENCES)
    prints = {(d, k): fingerprint(manifest(known, d, k)) for d in ("img2sent", "sent2img") for k in (1, 3, 5)}
    assert len(set(prints.values())) == 6
    assert prints["sent2img", 1] == fingerprint(manifest(known, "sent2img", 1))


def test_candidates_and_labels_are_those_of_every_language(tmp_path: Path) -> None:
    path = download(tmp_path)
    for task in ("i2s", "s2i", "t2s", "s2t"):
        found = asked(path, task=task, references=3)
        assert len(found) == 2 * 3 * 70
        for first, second in zip(found[::2], found[1::2], strict=True):  # a row is a group with all its languages
            assert (first.metadata["family"], second.metadata["family"]) == LANGUAGES
            assert first.target == second.target
            assert first.images() == second.images()
            translated = [m.text().replace(LANGUAGES[0], LANGUAGES[1]) for m in first.messages]
            assert translated == [m.text() for m in second.messages]
            assert first.id.rpartition("/")[0] == second.id.rpartition("/")[0]


@pytest.mark.parametrize(("task", "pictures"), [("i2s", 3), ("s2i", 4), ("t2s", 0), ("s2t", 0)])
def test_prompts_show_references_then_lettered_candidates(tmp_path: Path, task: str, pictures: int) -> None:
    sample = asked(download(tmp_path), task=task, references=3)[0]
    text = sample.messages[0].text()
    assert len(sample.images()) == pictures
    places = [text.index(mark) for mark in ("one topic" if task != "t2s" else "a topic", "1. ", "A. ", "B. ", "C. ", "D. ")]
    assert places == sorted(places)
    assert text.endswith("Answer with the letter only.")
    assert (task == "t2s") != ("3. " in text)
    if task == "t2s":
        topic = text.split("1. ")[1].split("\n")[0]
        right = sample.metadata[CANDIDATE_TEXTS]["ABCD".index(str(sample.target))]
        assert right.split()[1] == topic
    elif task == "s2t":
        right = sample.metadata[CANDIDATE_TEXTS]["ABCD".index(str(sample.target))]
        assert {sentence.split()[1] for sentence in sample.metadata[REFERENCE_TEXTS]} == {right}


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = download(tmp_path)
    with pytest.raises(DataError, match="there is no language 'eng'"):
        build("scenario", "mvl_sib", {"path": path, "languages": ["eng"]})
    file = path / "data" / "sib200" / "nqo_Nkoo" / "dev.tsv"
    text = file.read_text()
    file.write_text(text.replace("sports", "sport").replace("travel", "sport").replace("health", "sport"))
    with pytest.raises(DataError, match="unknown topic 'sport'"):
        asked(path)
    file.write_text("\n".join(text.split("\n")[:-2]) + "\n")
    with pytest.raises(DataError, match="not those of eng_Latn"):
        asked(path)


def test_a_download_is_checked(tmp_path: Path) -> None:
    path = download(tmp_path)
    scenario = build("scenario", "mvl_sib", {"path": path})
    found = scenario.check()
    assert found.found == dict.fromkeys(LANGUAGES, 210)
    assert found.published == dict.fromkeys(LANGUAGES, 3012)
    assert fingerprint(scenario.draws) in found.file
    assert (found.bad, sum(found.letters.values())) == (0, 420)
    (path / "data" / "images" / "sib200" / "sports_0.jpg").unlink()
    found = build("scenario", "mvl_sib", {"path": path}).check()
    assert found.bad > 0
    assert "sports_0.jpg" in found.errors[0]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_rows_as_published_are_read_instead(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("pyarrow")
    path, folder = download(tmp_path / "data"), tmp_path / "rows"
    folder.mkdir()
    rows = [
        {
            "images": [f"data/images/sib200/{t}_1.jpg" for t in ("sports", "health", "travel", "science")],
            "sentences": ["eng_Latn travel 1"],
            "label": 2,
            "id": n,
            "index_id": 5,
        }
        for n in range(2)
    ]
    file = folder / f"sent2img.eng_Latn.{ending}"
    if ending == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), file)
    given = {"languages": ["eng_Latn"], "rows": folder}
    assert [s.target for s in asked(path, **given)] == ["C", "C"]
    (sample, _) = asked(path, task="s2t", **given)
    assert sample.metadata[CANDIDATE_TEXTS] == ["sports", "health", "travel", "science"]
    groups = list(build("scenario", "mvl_sib", {"path": path, "references": 3, **given}).groups(None, 0))
    assert "1 references and 4 candidates, not 3 and 4" in next(iter(groups[0].errors.values()))


def test_bad_rows_as_published_are_set_aside_and_missing_ones_named(tmp_path: Path) -> None:
    path, folder = download(tmp_path / "data"), tmp_path / "rows"
    folder.mkdir()
    images = [f"{t}_1.jpg" for t in ("sports", "health", "travel", "science")]
    good = {"images": images, "sentences": ["a text"], "label": 2, "id": 0, "index_id": 5}
    lines = [good, {**good, "images": [1, 2, 3, 4]}, {**good, "label": 4}]
    (folder / "sent2img.eng_Latn.jsonl").write_text("\n".join([*map(json.dumps, lines), '{"images": ["sports_1']))
    (folder / "sent2img.nqo_Nkoo.jsonl").write_text("\n".join(map(json.dumps, [good] * 3)))
    first, *others = build("scenario", "mvl_sib", {"path": path, "rows": folder}).groups(None, 0)
    assert [s.metadata["family"] for s in first.samples] == list(LANGUAGES)
    reasons = [group.errors[f"{group.id}/eng_Latn"] for group in others]
    for reason, wanted in zip(reasons, ("row 2, field 'images'", "row 3, field 'label'", "eng_Latn.jsonl:4"), strict=True):
        assert wanted in reason
    assert "its rows end before number 3" in others[-1].errors["s2i/3/nqo_Nkoo"]


def test_rotations_move_the_right_candidate_through_all_letters(tmp_path: Path) -> None:
    found = asked(download(tmp_path), task="i2s", languages=["eng_Latn"], turned=True)
    for k in range(0, len(found), 4):
        turns = found[k : k + 4]
        assert {s.target for s in turns} == set("ABCD")
        assert len({s.metadata[CANDIDATE_TEXTS]["ABCD".index(str(s.target))] for s in turns}) == 1
        assert len({s.metadata["item"] for s in turns}) == 1


def test_constants_random_letters_and_the_truth_score_what_they_must() -> None:
    """A model that always says A scores the share of label 0; random letters 25 %, give or take 1.6 % (n = 3,012)."""
    draws = manifest(categories(SENTENCES), "sent2img", 1)
    metric = build("metric", "letter_start")

    def mean(answers: list[str]) -> float:
        samples = [Sample("", [], "ABCD"[d.label], list("ABCD")) for d in draws]
        return float(np.mean([metric.score(s, Answer(a)).value for s, a in zip(samples, answers, strict=True)]))

    rng = np.random.Generator(np.random.PCG64(0))
    assert mean(["A"] * 3012) == pytest.approx(sum(d.label == 0 for d in draws) / 3012)
    assert mean(["ABCD"[n] for n in rng.integers(4, size=3012)]) == pytest.approx(0.25, abs=0.016)
    assert mean(["ABCD"[d.label] + ". this one" for d in draws]) == 1


@pytest.mark.parametrize(
    ("text", "official", "strict", "tolerant"),
    [
        (" A", 1, 1, 1),
        ("A.", 1, 1, 1),
        ("A) foo", 1, 1, 1),
        ("The answer is A", 0, 0, 1),
        ("Answer: A", 1, 0, 1),  # official code looks at one character
        ("All of them", 1, 0, 0),
        ("It is (A).", 0, 0, 1),
        ("A or B? The answer is B", 1, 1, 1),
        ("Neither A nor B", 0, 0, 0),
        ("Dieser", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_answers_are_read_in_three_ways(text: str, official: int, strict: int, tolerant: int) -> None:
    score = build("metric", "letter_start").score(Sample("", [], "A", list("ABCD")), Answer(text))
    assert (score.value, score.ratios["strict"][0], score.ratios["tolerant"][0]) == (official, strict, tolerant)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((4000, 3000), (640, 480)),
        ((3000, 4000), (480, 640)),
        ((1000, 1000), (480, 480)),
        ((1600, 900), (640, 360)),
        ((300, 200), (300, 200)),
    ],
)
def test_pictures_are_made_smaller_and_never_larger(given: tuple[int, int], wanted: tuple[int, int]) -> None:
    assert shrunk(Image.new("RGB", given)).size == wanted


@pytest.mark.parametrize(("task", "k"), [("i2s", 1), ("i2s", 3), ("s2i", 1), ("s2i", 3), ("t2s", 1), ("s2t", 3)])
def test_dual_encoders_choose_by_the_mean_cosine(tmp_path: Path, task: str, k: int) -> None:
    path = download(tmp_path)
    model, words = dual()
    own = ContrastiveModel(model.eval(), words)
    groups = build("scenario", "mvl_sib", {"path": path, "task": task, "references": k}).groups(6, 0)
    from argus.core.images import load_image

    questions = [Question(g.id, s, [load_image(i) for i in s.images()]) for g in groups for s in g.samples]
    answers = build("inferencer", "cosine").answer(own, questions)
    for question, answer in zip(questions, answers, strict=True):
        sides = []
        for name in (REFERENCE_TEXTS, CANDIDATE_TEXTS):
            texts = question.sample.metadata.get(name)
            own.read(texts or [])
            with torch.inference_mode():
                vectors = own.see(question.images) if texts is None else torch.stack([own.known[t] for t in texts])
            sides.append(vectors)
        cosines = [float(np.mean([float(r @ c) for r in sides[0]])) for c in sides[1]]  # by hand
        assert answer.scores == pytest.approx(cosines, abs=1e-5)
        assert answer.text == "ABCD"[int(np.argmax(answer.scores))]
    with pytest.raises(UnsupportedError, match="compares embeddings"):
        build("inferencer", "cosine").answer(object(), questions)


@pytest.mark.parametrize(("task", "k"), [("i2s", 3), ("s2i", 1), ("t2s", 1)])
def test_models_of_several_pictures_are_asked(tmp_path: Path, model: Any, processor: Any, task: str, k: int) -> None:
    """Tiers are averages over languages; killed runs resume by id."""
    scenario = {"path": download(tmp_path), "task": task, "references": k, "tiers": {"low": ["nqo_Nkoo"]}}
    options = EvaluationOptions(
        scenario={"mvl_sib": scenario}, samples=6, inferencer={"generate": {"max_new_tokens": 2}}, metrics=["letter_start"]
    )
    result = evaluate(model, processor, options, progress=False)
    assert result.answered == 6
    assert {"all", "eng_Latn", "nqo_Nkoo", "low", "mean low", "strict", "tolerant"} <= set(result.measurements["letter_start"])


def test_all_205_languages_are_read(tmp_path: Path) -> None:
    codes = tuple(f"l{n:02}x_Latn" for n in range(205))
    scenario = build("scenario", "mvl_sib", {"path": download(tmp_path, 35, codes), "task": "s2t"})
    (group,) = scenario.groups(205, 0)
    assert [s.metadata["family"] for s in group.samples] == sorted(codes)
    assert len({s.target for s in group.samples}) == 1
