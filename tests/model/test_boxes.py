"""Boxes on their way from picture to token: from the world, a file or a detector, selected, moved with the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from argus.core.errors import DataError, RecipeError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.scenarios.world import to_samples
from argus.model.boxes import BoxOptions, BoxSource, in_frame, overlap, select
from argus.world.data import conversation
from tests.model.connectors.mg import BOXES, drawing, mg, picture


def test_boxes_of_the_world() -> None:
    scene = drawing()
    sample = to_samples(scene, "objects")[0]
    assert BoxSource(BoxOptions(source="scene"))(sample, [(64, 64)]) == [[t.box for t in scene.scene.things]]
    assert BoxSource(BoxOptions(source="question"))(sample, [(64, 64)]) == [list(scene.questions[0].boxes)]
    assert conversation(scene).metadata["scene_boxes"] == scene.boxes
    noisy = BoxSource(BoxOptions(source="scene", noise=0.1))
    assert noisy(sample, [(64, 64)]) == noisy(sample, [(64, 64)])
    moved = np.array(noisy(sample, [(64, 64)])[0]) - np.array(scene.boxes)
    assert 0 < np.abs(moved).max() < 0.2
    control = BoxSource(BoxOptions(source="random", most=3))
    counts = {len(control(Sample(str(n), []), [(64, 64)])[0]) for n in range(40)}
    assert counts == {1, 2, 3}
    (some,) = control(sample, [(64, 64)])
    assert all(0 <= a <= c <= 1 and 0 <= b <= d <= 1 for a, b, c, d in some)
    with pytest.raises(DataError, match="no 'scene_boxes'"):
        BoxSource(BoxOptions(source="scene"))(Sample("x", []), [(64, 64)])


def test_boxes_from_a_file(tmp_path: Path) -> None:
    """In pixels, joined on the id; of two that are nearly one the better stays."""
    rows = [
        {
            "id": 7,
            "boxes": [[10, 0, 30, 20], [11, 0, 31, 20], [0, 0, 40, 20]],
            "scores": [0.5, 0.9, 0.4],
            "labels": ["a", "a", "b"],
        }
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    source = BoxSource(BoxOptions(source="file", file=str(tmp_path / "boxes.json")))
    assert source(Sample("7", []), [(40, 20)]) == [[(11 / 40, 0.0, 31 / 40, 1.0), (0.0, 0.0, 1.0, 1.0)]]
    with pytest.raises(DataError, match="no boxes for '8'"):
        source(Sample("8", []), [(40, 20)])
    (tmp_path / "boxes.json").write_text("{")
    with pytest.raises(DataError, match="no list of"):
        BoxSource(BoxOptions(source="file", file=str(tmp_path / "boxes.json")))(Sample("7", []), [(40, 20)])


def test_boxes_from_a_detector() -> None:
    _, processor = mg()
    seen = []

    def detector(image: Image.Image) -> list[tuple[float, float, float, float]]:
        seen.append(image.size)
        return [(0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)]

    processor.detector = detector
    batch = processor([picture()], "<image>\nred", return_tensors="pt")
    assert seen == [(64, 64)]
    assert batch["boxes"].tolist() == [[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]]
    with pytest.raises(DataError, match="2 lists of boxes were given for 1 pictures"):
        processor([picture()], "<image>\nred", boxes=[[], []])


def test_selection_by_label_and_number() -> None:
    boxes = torch.tensor([[i / 10, 0, i / 10 + 0.05, 1] for i in range(6)])
    labels = ["a", "a", "a", "a", "b", "b"]
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert select(boxes, scores, labels, 0.2, 2, 6).tolist() == [5, 4, 3, 2, 1, 0]  # not too many
    assert select(boxes, scores, labels, 0.2, 2, 5).tolist() == [5, 4, 3, 2]  # two of each label
    a, b = torch.tensor([[0, 0, 2, 2.0]]), torch.tensor([[1, 0, 3, 2.0], [5, 5, 6, 6]])
    torch.testing.assert_close(overlap(a, b), torch.tensor([[1 / 3, 0.0]]))


def test_boxes_move_with_the_picture() -> None:
    """A picture of 200 x 100: padded above and below, or cut at the left and right."""
    pad, crop = (build("view", "square", {"mode": mode}).frame(200, 100) for mode in ("pad", "crop"))
    assert in_frame([(0.0, 0.0, 0.5, 1.0)], pad) == [(0.0, 0.25, 0.5, 0.75)]
    assert in_frame([(0.0, 0.0, 0.5, 1.0)], crop) == [(0.0, 0.0, 0.5, 1.0)]
    assert in_frame([(0.0, 0.0, 0.2, 1.0), (0.5, 0.5, 1.0, 1.0)], crop) == [(0.5, 0.5, 1.0, 1.0)]  # the first is outside
    assert in_frame([(0.0, 0.0, 0.2, 1.0)], crop) == [(0.0, 0.0, 0.0, 0.0)]


def test_several_pictures_have_their_own_boxes() -> None:
    _, processor = mg()
    batch = processor([picture(), picture(1)], "<image> <image>\nred", boxes=BOXES, return_tensors="pt")
    assert (batch["boxes"][..., 0] >= 0).sum(1).tolist() == [3, 1]
    sample = Sample(
        "s", [Message("user", [ImagePart(picture()), ImagePart(picture(1)), TextPart("red")])], metadata={"scene_boxes": BOXES[0]}
    )
    found = BoxSource(BoxOptions(source="scene"))(sample, [(64, 64)] * 2)
    assert [len(some) for some in found] == [3, 0]


def test_options_of_boxes() -> None:
    _, processor = mg(boxes={"source": "scen"})
    with pytest.raises(RecipeError, match="source"):
        processor.box_source  # noqa: B018
    _, processor = mg(boxes={"source": "file"})
    with pytest.raises(RecipeError, match="a file belongs to"):
        processor.box_source  # noqa: B018
