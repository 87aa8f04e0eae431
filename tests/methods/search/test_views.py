"""What a model is shown of a picture's parts."""

from __future__ import annotations

import numpy as np
from PIL import Image

from argus.methods.search.tree import Node
from argus.methods.search.views import Kind, Views, merged

WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 600, 3), dtype=np.uint8))
FILL = (1, 2, 3)


def views(kind: Kind = "local", smallest: int = 100, scale: float = 1.0, picture: Image.Image = WIDE) -> Views:
    return Views(picture, "p", kind, smallest, scale, FILL, "red", "Two pictures. ")


def node(x: int, y: int, w: int, h: int) -> Node:
    return Node((x, y, w, h), 1, ())


def test_a_patch_keeps_its_centre_and_is_no_smaller_than_the_input() -> None:
    """max(node, 100) on each axis, cut off at the picture's edge."""
    v = views()
    assert v.patch(node(300, 50, 150, 100)) == (300, 50, 450, 150)
    assert v.patch(node(300, 80, 40, 20)) == (270, 40, 370, 140)  # centre (320, 90)
    assert v.patch(node(0, 180, 20, 20)) == (0, 140, 100, 200)  # starts at the edge; cut off below
    assert views(scale=1.2).patch(node(300, 50, 150, 100)) == (285, 40, 465, 160)


def test_local_views_are_crops_and_the_whole_is_padded() -> None:
    crop = views().of([node(300, 50, 150, 100)])
    assert np.array_equal(crop.images[0], np.asarray(WIDE)[50:150, 300:450])
    assert (len(crop.images), crop.prefix) == (1, "")
    whole = views().of([]).images[0]
    assert whole.size == (600, 600)
    assert np.array_equal(np.asarray(whole)[200:400], np.asarray(WIDE))
    assert (np.asarray(whole)[:200] == FILL).all()


def test_global_views_frame_the_part_and_enlarge_it() -> None:
    """600 / 120 = 5 px of frame round the part, 200 px lower in the square; both pictures, in that order."""
    v = views("global_local", smallest=600)
    boxes = [(300, 50, 450, 150)]
    framed = np.asarray(v.framed(boxes))
    red = (framed == (255, 0, 0)).all(-1)
    assert red[245:250, 295:455].all()
    assert red[350:355, 295:455].all()
    assert not red[250:350, 300:450].any()
    assert red.sum() == 160 * 110 - 150 * 100
    view = views("global_local").of([node(300, 50, 150, 100)])
    assert [image.size for image in view.images] == [(100, 100), (150, 100)]
    assert view.prefix == "Two pictures. "
    assert views("global_local").of([]).images == (WIDE,)


def test_parts_within_50_px_of_each_other_are_merged() -> None:
    a, b, c = (0, 0, 100, 100), (199, 0, 300, 100), (401, 0, 500, 100)
    assert merged([a, b]) == [(0, 0, 300, 100)]  # 99 px apart, each grows by 50
    assert merged([a, c]) == [a, c]
    assert merged([b, c]) == [b, c]  # 101 px apart
    assert merged([a, c, (250, 0, 350, 100)]) == [a, (250, 0, 500, 100)]
    assert merged([a, (350, 0, 450, 100), (150, 0, 300, 100)]) == [(0, 0, 450, 100)]  # the third joins the first two


def test_two_far_parts_stand_side_by_side() -> None:
    """Their union is 1200 px wide. 200 px of difference in height, at most the input side (100), is shared between the two."""
    picture = Image.new("RGB", (1200, 400), "black")
    picture.paste("blue", (0, 0, 100, 100))
    picture.paste("lime", (1100, 200, 1200, 300))
    v = views(picture=picture)
    sheet = np.asarray(v.of([node(1100, 200, 100, 100), node(0, 0, 100, 100)]).images[0])
    assert sheet.shape == (200, 200, 3)
    assert (sheet[:100, :100] == (0, 0, 255)).all()
    assert (sheet[100:, 100:] == (0, 255, 0)).all()
    assert (sheet[100:, :100] == FILL).all()
    near = v.of([node(0, 0, 100, 100), node(800, 200, 100, 100)]).images[0]
    assert near.size == (900, 300)  # below 1000 px: the union


def test_equal_views_have_equal_names() -> None:
    v = views()
    assert v.of([node(300, 80, 40, 20)]).name == v.of([node(310, 85, 20, 10)]).name == "p@270,40,370,140"
    assert v.of([]).name == "p"
