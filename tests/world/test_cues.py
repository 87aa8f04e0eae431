"""Questions that ask for one thing say in words which, and things can be as small as a search needs them."""

from __future__ import annotations

from argus.core.registry import build


def test_cues_fit_the_things_that_are_asked_about() -> None:
    """Each word of a cue is an attribute of the thing in the question's box; an absent thing's cue fits none."""
    domain, seen = build("domain", "objects"), set()
    for index in range(60):
        drawing = domain.draw("test", index)
        for question in drawing.questions:
            if question.cues:
                assert all(cue in question.text for cue in question.cues)
            if question.family in ("colour", "shape", "texture", "size", "position", "relation"):
                assert len(question.cues) == len(question.boxes)
                for cue, box in zip(question.cues, question.boxes, strict=True):
                    (thing,) = [t for t in drawing.scene.things if t.box == box]
                    known = {thing.colour, thing.shape, thing.texture, thing.size, "thing"}
                    assert set(cue.split()) <= known
                seen.add(question.family)
            if question.family == "existence":
                (cue,) = question.cues
                fits = [t for t in drawing.scene.things if cue == f"{t.colour} {t.shape}"]
                assert bool(fits) == (question.answer == "yes")
    assert len(seen) == 6


def test_small_things_need_larger_pictures() -> None:
    """A quarter of 12 to 34 px of 96: in 384 px they are 12 to 34 px again, and every thing keeps its name."""
    usual, small = build("domain", "objects"), build("domain", "objects", {"scale": 0.25})
    sides = [t.d for index in range(60) for t in small.draw("test", index, 64, 0).scene.things]
    assert min(sides) >= 30  # of 960: 12 px of 384
    assert max(sides) <= 85  # 34 px
    first, other = usual.draw("test", 3, 64, 0).scene.things[0], small.draw("test", 3, 64, 0).scene.things[0]
    assert (first.colour, first.shape, first.size) == (other.colour, other.shape, other.size)
    assert other.d == round(first.d * 0.25)
