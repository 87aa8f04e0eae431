"""Dialogues about several pictures as training data: MMDU-45k's form, labels, pictures in their places, cuts between turns."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from argus.core.errors import DataError
from argus.core.formats import read_samples
from argus.core.registry import build
from argus.training.data import StageData
from argus.training.options import DataOptions
from argus.training.rows import IGNORE
from argus.training.turns import dialogue_ids, shortened
from tests.model.tiny import tiny

COLOURS = ("red", "green", "blue")
ROLES = ("user", "assistant")
TOKENS = 16  # visual tokens per picture of the tiny model


@pytest.fixture
def mmdu_45k(tmp_path: Path) -> Path:
    """One dialogue of four turns; two pictures come with the first and one with the third."""
    for colour in COLOURS:
        Image.new("RGB", (32, 32), colour).save(tmp_path / f"{colour}.png")
    asked = ("<ImageHere><ImageHere>What do they show?", "Which is warmer?", "And <ImageHere>?", "Which is the coldest?")
    said = ("Red and green.", "The first.", "Blue.", "Image 3.")
    turns = [
        {"from": who, "value": v}
        for pair in zip(asked, said, strict=True)
        for who, v in zip(("user", "assistant"), pair, strict=False)
    ]
    path = tmp_path / "mmdu-45k.json"
    path.write_text(json.dumps([{"id": "7", "image": [f"{c}.png" for c in COLOURS], "conversations": turns}]))
    return path


def bound(**options):
    objective = build("objective", "sft", {"turns": "conversation", **options})
    objective.bind(*(made := tiny()))
    return objective, *made


def test_a_dialogue_is_read_and_taught_answers_alone(mmdu_45k: Path) -> None:
    objective, model, processor = bound()
    batch = objective.collate([StageData(DataOptions(files=[str(mmdu_45k)]), 1)[0]])
    labels, ids = batch["labels"][0], batch["input_ids"][0]
    taught = processor.tokenizer.decode(labels[labels != IGNORE])
    assert taught == " Red and green.</s>\n The first.</s>\n Blue.</s>\n Image 3.</s>\n"
    assert int((ids == processor.image_token_id).sum()) == 3 * TOKENS
    assert not (labels[ids == processor.image_token_id] != IGNORE).any()
    assert batch["pixel_values"].mean((2, 3)).argmax(1).tolist() == [0, 1, 2]  # red, green, blue
    assert torch.isfinite(objective.loss(model, batch)[0])


def test_a_long_dialogue_is_cut_between_turns(mmdu_45k: Path) -> None:
    (sample,) = read_samples(mmdu_45k)
    _, _, processor = bound()
    sizes = [(32, 32)] * 3
    ends = [len(dialogue_ids(processor, sample.messages[:n], sizes)[0]) for n in (2, 4, 6, 8)]  # tokens up to each answer's end
    for limit in range(ends[0], ends[-1] + 1):
        short = shortened(processor, sample, limit)
        assert len(short.messages) == 2 * sum(end <= limit for end in ends)
        ids, _ = dialogue_ids(processor, short.messages, sizes)
        assert sum(i == processor.image_token_id for i in ids) == len(short.images()) * TOKENS
    with pytest.raises(DataError, match=f"the first turn has {ends[0]} tokens"):
        shortened(processor, sample, ends[0] - 1)


def test_pictures_of_turns_that_are_left_out_are_left_out(mmdu_45k: Path) -> None:
    (sample,) = read_samples(mmdu_45k)
    _, _, processor = bound()
    ids, _ = dialogue_ids(processor, sample.messages[:4], [(32, 32)] * 2)
    cutting, *_ = bound(max_tokens=len(ids))
    assert cutting.collate([sample])["pixel_values"].shape[0] == 2


def test_independent_turns_have_nothing_to_cut() -> None:
    with pytest.raises(Exception, match="turns: conversation"):
        build("objective", "sft", {"max_tokens": 64})
