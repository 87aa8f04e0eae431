"""Several pictures of one scene: what happens in clips is in their pixels, and every picture stands where it is meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from argus.core.registry import build
from argus.core.sample import ImagePart, TextPart
from argus.world.clips import KINDS, MOVES, TRAVEL, Clips, ClipScene
from argus.world.data import conversation
from argus.world.domain import COLOURS
from argus.world.object_scene import JITTER, PALETTE, UNIT
from argus.world.sheet import contact_sheet


def clips(**options) -> Clips:
    return build("domain", "clips", {"ground": "plain", **options})


def centre(pixels: np.ndarray, colour: str) -> tuple[float, float] | None:
    """Where a colour is in a picture, in its sides; None where it is not."""
    near = np.abs(pixels.astype(int) - PALETTE[colour]).max(-1) <= JITTER
    rows, columns = near.nonzero()
    return None if len(rows) < 12 else (columns.mean() / len(near), rows.mean() / len(near))


def test_pixels_show_what_happens() -> None:
    domain, seen = clips(), set()
    for index in range(120):
        drawing = domain.draw("test", index, 192, 0)
        for event in drawing.scene.events:
            seen.add(event.kind)
            colour = event.thing.colour
            first, last = (centre(drawing.frames[n], colour) for n in (event.start, event.end))
            match event.kind:
                case "appears":
                    assert first is None
                    assert last is not None
                case "vanishes":
                    assert first is not None
                    assert last is None
                case "changes its colour":
                    assert first is not None
                    assert last is None
                    assert centre(drawing.frames[event.end], event.colour) == pytest.approx(first, abs=0.05)
                case kind:
                    x, y = MOVES[kind]
                    way = TRAVEL / UNIT
                    assert last == pytest.approx((first[0] + x * way, first[1] + y * way), abs=0.02)
        for thing in drawing.scene.idle:
            places = [centre(frame, thing.colour) for frame in drawing.frames]
            assert all(place == pytest.approx(places[0], abs=0.01) for place in places)
    assert seen == set(KINDS)


def test_events_have_things_kinds_and_slots_of_their_own() -> None:
    for length, events in ((8, 2), (16, 3), (2, 1), (3, 2)):
        for index in range(20):
            scene = clips(length=length, events=events).draw("test", index, 32, 0).scene
            assert len(scene.frames) == length
            assert len({e.kind for e in scene.events}) == len({e.thing.shape for e in scene.events}) == events
            assert [e.start for e in scene.events] == [0, *(e.end for e in scene.events[:-1])]
            assert scene.events[-1].end == length - 1
            assert all(0 <= t.x <= UNIT - t.d and 0 <= t.y <= UNIT - t.d for f in scene.frames for t in f.things)


def test_answers_follow_from_events() -> None:
    asked = set()
    for index in range(150):
        drawing = clips().draw("test", index, 32, 8)
        events = {event.thing.shape: event for event in drawing.scene.events}
        order = [event.text for event in drawing.scene.events]
        for q in drawing.questions:
            asked.add(q.family)
            words = q.text.rstrip("?").split()
            about = next((events[w] for w in words if w in events), None)
            match q.family:
                case "action":
                    assert q.answer == (about.kind if about else "stays as it is")
                case "which":
                    assert events[q.answer].kind in q.text
                case "happens":
                    assert q.answer == ("yes" if about.kind in q.text else "no")
                    if q.trap:  # it happens, but to another thing
                        assert any(e.kind in q.text for e in events.values() if e is not about)
                case "first":
                    assert q.answer == order["later" in q.text]
                case "procedure":
                    assert q.answer == ", then ".join(order)
                    assert len(set(q.options)) == 4
                case "turns":
                    assert q.answer == about.colour
                    assert about.thing.colour in q.options
                case "prediction":
                    assert f"moves {q.answer}" == order[-1].partition(" ")[2].partition(" ")[2]
    assert asked == set(Clips.families)


def test_the_next_picture_goes_on_and_the_others_do_not() -> None:
    domain, answers = clips(last="movement"), set()
    for index in range(40):
        drawing = domain.draw("test", index, 192, 1, ("next_frame",))
        ((question,), (pictures,)) = drawing.questions, drawing.drawn
        event, place = drawing.scene.events[-1], "ABCD".index(question.answer)
        step = TRAVEL / (event.end - event.start) / UNIT
        x, y = MOVES[event.kind]
        before, after = centre(drawing.frames[-1], event.thing.colour), centre(pictures[place], event.thing.colour)
        assert after == pytest.approx((before[0] + x * step, before[1] + y * step), abs=0.02)
        assert len({p.tobytes() for p in pictures}) == 4
        shown = {frame.tobytes() for frame in drawing.frames}
        assert [p.tobytes() in shown for p in pictures] == [n != place for n in range(4)]
        answers.add(question.answer)
    assert answers == set("ABCD")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(Exception, match="each event has a thing of its own"):
        clips(events=3, max_objects=2)
    with pytest.raises(Exception, match="need more than 2 frames"):
        clips(events=2, length=2)


def test_the_sheet_shows_all_frames(tmp_path: Path) -> None:
    path = contact_sheet(clips(), tmp_path / "clips.png", count=2, size=192)
    sheet = np.asarray(Image.open(path))
    drawing = clips().draw("test", 0, 192, 0)
    side = 64
    for number, frame in enumerate(drawing.frames):
        x, y = 24 + number % 3 * side, 24 + number // 3 * side
        shown = sheet[y : y + side - 2, x : x + side - 2].astype(int)
        assert np.abs(shown - np.asarray(Image.fromarray(frame).resize((side - 2, side - 2)))).max() == 0


def test_a_clip_is_shown_once_per_conversation() -> None:
    sample = conversation(clips().draw("train", 0, 32, 3))
    assert [sum(isinstance(p, ImagePart) for p in m.content) for m in sample.messages[::2]] == [8, 0, 0]


# Pictures inside the text


def test_every_marker_shows_the_next_picture() -> None:
    domain = build("domain", "interleaved")
    for index in range(40):
        drawing = domain.draw("train", index, 32, 1, ("in_context", "analysis", "which"))
        parts = conversation(drawing).messages[0].content
        assert [np.asarray(p.image).tobytes() for p in parts if isinstance(p, ImagePart)] == [f.tobytes() for f in drawing.frames]
        assert "".join(p.text if isinstance(p, TextPart) else "<image>" for p in parts) == drawing.questions[0].text


def test_captions_in_context_name_what_the_examples_name() -> None:
    copied = []
    for index in range(300):
        drawing = build("domain", "interleaved").draw("test", index, 32, 1, ("in_context",))
        (q,) = drawing.questions
        names = {a: drawing.scene.values(a) for a in ("colour", "shape", "texture")}
        (kind,) = (a for a, v in names.items() if q.text == f"<image> Caption: {v[0]}. <image> Caption: {v[1]}. <image> Caption:")
        assert q.answer == names[kind][2]
        assert sum(option in {v[2] for v in names.values()} for option in q.options) >= 2  # another kind fits, too
        copied.append(q.answer in names[kind][:2])
    assert np.mean(copied) == pytest.approx(0.5, abs=0.1)


def test_analyses_ask_for_one_of_the_pictures() -> None:
    for index in range(60):
        drawing = build("domain", "interleaved").draw("test", index, 32, 6, ("analysis", "which"))
        for q in drawing.questions:
            last = q.text.rpartition("<image>")[2]
            if q.family == "analysis":
                place = next(n for n, name in enumerate(("first", "second", "third")) if name in last)
                attribute = next(a for a in ("colour", "shape", "texture") if f"What {a}" in last)
                assert q.answer == drawing.scene.values(attribute)[place]
            else:
                value = last.rstrip("?").split()[-1]
                holds = [value in (t.colour, t.shape, t.texture) for t in (p.things[0] for p in drawing.scene.pictures)]
                assert holds == [q.answer == name for name in ("first", "second", "third")]


def test_a_frame_is_drawn_around_the_thing_that_is_asked_about() -> None:
    domain = build("domain", "marked")
    for index in range(30):
        drawing = domain.draw("test", index, 192, 4)
        thing = drawing.scene.thing
        plain = domain.objects.render(drawing.scene.picture, 192)
        rows, columns = (drawing.pixels != plain).any(-1).nonzero()
        x1, y1, x2, y2 = (min(1, max(0, v)) * 192 for v in thing.box)
        assert columns.min() <= x1 + 1
        assert columns.max() >= min(190, x2 - 1)
        assert rows.min() <= y1 + 1
        assert rows.max() >= min(190, y2 - 1)
        assert all(q.answer == getattr(thing, q.family) for q in drawing.questions)


def test_pictures_to_choose_from_differ_in_one_attribute() -> None:
    domain = build("domain", "described")
    for index in range(40):
        drawing = domain.draw("test", index, 64, 1)
        (q,) = drawing.questions
        right = q.drawn["ABCD".index(q.answer)]
        assert right.thing == drawing.scene.thing
        assert drawing.shown == ()
        for option in q.drawn:
            if option is not right:
                attributes = ("colour", "shape", "texture", "size")
                assert sum(getattr(option.thing, a) != getattr(right.thing, a) for a in attributes) == 1
        assert len({p.tobytes() for p in drawing.drawn[0]}) == 4
        (both,) = domain.draw("test", index, 64, 1, ("both",)).questions
        assert [option.thing.colour for option in both.drawn] == list(both.options)
        assert both.text.count(both.answer) == 2
        assert both.answer in COLOURS


def test_frames_are_scenes_and_nothing_more() -> None:
    """The frame behind the last one is known though it is not shown."""
    scene = clips(last="movement").draw("test", 0, 32, 0).scene
    assert isinstance(scene, ClipScene)
    assert all(scene.frame(n) == frame for n, frame in enumerate(scene.frames))
    assert scene.frame(len(scene.frames)) not in scene.frames
