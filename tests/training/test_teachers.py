"""Teachers: shares of the world's maps, and stored towers of any family."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional as F
from transformers import CLIPVisionModel, Dinov2Model

from argus.core.errors import RecipeError, UnsupportedError
from argus.core.sample import Sample
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.image_processor import normalise
from argus.model.load import load
from argus.training.teachers import Teacher, TeacherOptions
from argus.world.objects import Objects, ObjectsOptions
from tests.model.tiny import TOWERS

DOMAIN = Objects(ObjectsOptions(min_objects=2, max_objects=3, piled=0.5))


def teacher(cells: int = 144, **options: Any) -> Teacher:
    return Teacher(TeacherOptions.model_validate(options), cells)


def test_a_truth_is_the_share_of_each_class_in_each_block_beyond_the_ground() -> None:
    drawing = DOMAIN.draw("train", 5, 96, 0)
    maps = DOMAIN.maps(drawing.scene, 96)
    assert maps["depth"].max() == 2
    depth, seg = teacher(truth="depth"), teacher(truth="segmentation")
    (layers,), known = depth.collate([(drawing, DOMAIN)], [])
    (kinds,), _ = seg.collate([(drawing, DOMAIN)], [])
    assert known.tolist() == [True]
    assert (layers.shape, kinds.shape) == ((144, depth.width), (144, seg.width)) == ((144, 64), (144, 80))
    for cell in range(144):
        r, c = divmod(cell, 12)
        pixels = {head: maps[head][8 * r : 8 * r + 8, 8 * c : 8 * c + 8] for head in ("depth", "colour", "shape")}
        fine = pixels["depth"].reshape(4, 2, 4, 2)
        told = [8 * ((fine[i, :, j] == n).mean() - (n == 0)) for i in range(4) for j in range(4) for n in range(4)]
        np.testing.assert_allclose(layers[cell], told, atol=1e-6)
        told = [
            8 * ((pixels[head][4 * i : 4 * i + 4, 4 * j : 4 * j + 4] == n).mean() - (n == 0))
            for head, many in (("colour", 11), ("shape", 9))
            for i in range(2)
            for j in range(2)
            for n in range(many)
        ]
        np.testing.assert_allclose(kinds[cell], told, atol=1e-6)
        assert bool(layers[cell].any()) == bool(kinds[cell].any()) == bool(pixels["depth"].any())


def test_a_truth_knows_drawings_alone() -> None:
    drawing = DOMAIN.draw("train", 5, 96, 0)
    found, known = teacher(16, truth="depth").collate([Sample("file", []), (drawing, DOMAIN)], [])
    assert known.tolist() == [False, True]
    assert found.shape == (2, 16, 64)
    assert not found[0].any()


@pytest.mark.parametrize(("family", "kind"), [("clip", CLIPVisionModel), ("dinov2", Dinov2Model)])
def test_a_stored_tower_teaches_its_layers_on_the_wanted_grid(family: str, kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind(TOWERS[family]).save_pretrained(tmp_path)
    one = teacher(9, encoder=str(tmp_path), layers=[1, 2, 3], size=32)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 40, 3), dtype=np.uint8))
    pixels, known = one.collate([Sample("file", [])], [picture])
    sized = np.asarray(picture.resize((32, 32), Image.Resampling.BICUBIC))[None]
    assert torch.equal(pixels, normalise(sized, *pixel_statistics(one.tower.config)))
    assert known.tolist() == [True]
    found = one.targets(pixels)  # the tower's 4 x 4 on 3 x 3
    states = kind.from_pretrained(tmp_path).eval()(pixels, output_hidden_states=True).hidden_states
    mean = sum(states[n][:, 1:] for n in (1, 2, 3)) / 3
    expected = F.interpolate(mean.transpose(1, 2).unflatten(2, (4, 4)), (3, 3), mode="bilinear").flatten(2).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    assert not any(p.requires_grad for p in one.tower.parameters())


def test_the_shipped_tower_teaches_one_embedding() -> None:
    one = teacher(1, encoder="argus/tiny-clip", pooled=True)
    drawing = DOMAIN.draw("train", 0, 96, 0)
    pixels, _ = one.collate([(drawing, DOMAIN)], [Image.fromarray(drawing.pixels)])
    tower: Any = load("argus/tiny-clip")[0].vision_tower
    with torch.no_grad():
        assert torch.equal(one.targets(pixels)[:, 0], tower(pixels, pooled=True).pooled)


def test_what_cannot_teach_is_refused() -> None:
    with pytest.raises(ValidationError, match="either 'truth' or 'encoder'"):
        TeacherOptions()
    with pytest.raises(ValidationError, match="a tower's"):
        TeacherOptions(truth="depth", pooled=True)
    with pytest.raises(UnsupportedError, match="one embedding of the whole picture"):
        teacher(1, truth="depth")
    with pytest.raises(UnsupportedError, match=r"12 cells is no square\. Set cells to 9"):
        teacher(12, truth="depth")
    with pytest.raises(RecipeError, match="stored weights"):
        teacher(16, encoder={"vit": {}})
