"""Truth re-derived from the pixels: count and colour by connected components, words by their ink, bars by their height."""

from dataclasses import replace

import numpy as np
from scipy import ndimage

from argus.world.charts import Charts, ChartsOptions
from argus.world.documents import Documents, DocumentsOptions
from argus.world.domain import COLOURS
from argus.world.object_layout import COMPANIONS
from argus.world.object_scene import PALETTE
from argus.world.objects import Objects, ObjectsOptions
from argus.world.raster import coverage
from argus.world.sheet import contact_sheet
from argus.world.tables import Tables, TablesOptions
from argus.world.text import ink


def test_count_and_colour_by_connected_components() -> None:
    domain = Objects(ObjectsOptions(ground="plain"))
    checked = 0
    for index in range(200):
        scene = domain.scene(domain.rng("test", index))
        boxes = [t.box for t in scene.things]
        apart = all(
            a is b or a[2] + 0.02 < b[0] or b[2] + 0.02 < a[0] or a[3] + 0.02 < b[1] or b[3] + 0.02 < a[1]
            for a in boxes
            for b in boxes
        )
        # Marks of a texture may have the ground's colour; on light grounds only brown's do.
        clear = all(t.texture == "plain" or (scene.ground[0] > 200 and t.colour != "brown") for t in scene.things)
        if not (apart and clear):
            continue
        checked += 1
        pixels = domain.render(scene, 384).astype(int)
        figure = np.abs(pixels - np.array(scene.ground)).sum(-1) > 24
        figure = ndimage.binary_closing(figure, iterations=2)
        labels, _ = ndimage.label(figure)
        parts = np.bincount(labels.ravel())[1:]
        assert (parts > 40).sum() == len(scene.things)  # a tip cut off by anti-aliasing is smaller
        for thing in scene.things:
            x, y, d = thing.x * 384 / 960, thing.y * 384 / 960, thing.d * 384 / 960
            inside = pixels[int(y) : int(y + d), int(x) : int(x + d)].reshape(-1, 3)
            expected = np.array(PALETTE[thing.colour]) + thing.jitter
            # A plain pixel of the thing has exactly its colour, clipped to the range of a byte.
            assert (np.abs(inside - expected.clip(0, 255)).sum(1) == 0).mean() > 0.1
    assert checked > 40


def test_named_colours_stay_apart_under_jitter() -> None:
    values = {name: np.array(v) for name, v in PALETTE.items()}
    for a in COLOURS:
        for b in COLOURS:
            if a != b:
                assert np.abs(values[a] - values[b]).max() > 40, (a, b)


def test_coverage_is_the_brute_force_count() -> None:
    domain = Objects(ObjectsOptions())
    for index in range(20):
        scene = domain.scene(domain.rng("test", index))
        boxes = [(t.shape, t.rotation, t.x / 960, t.y / 960, t.d / 960) for t in scene.things]
        top = coverage(boxes, 12)
        from argus.world.raster import stamp

        canvas = np.zeros((96, 96), dtype=int)
        for number, (shape, rotation, x, y, d) in enumerate(boxes, start=1):
            solid = np.asarray(stamp(shape, "plain", max(2, round(d * 96)), rotation)[0]) > 127
            for i, j in zip(*np.nonzero(solid), strict=True):
                r, c = round(y * 96) + i, round(x * 96) + j
                if r < 96 and c < 96:
                    canvas[r, c] = number
        for r in range(12):
            for c in range(12):
                cell = canvas[8 * r : 8 * r + 8, 8 * c : 8 * c + 8]
                counts = [(int((cell == n).sum()), -n) for n in range(1, len(boxes) + 1)]
                most, which = max(counts)
                assert top[r, c] == (-which if most > 0.35 * 64 else 0)


def test_traps_are_really_absent() -> None:
    domain = Objects(ObjectsOptions())
    traps = 0
    for index in range(300):
        scene = domain.scene(domain.rng("test", index))
        for q in domain.questions(scene, domain.rng("test", index, 1), 6, ("existence",)):
            words = q.text.strip("?").split()
            colour, shape = words[-2], words[-1]
            present = any((t.colour, t.shape) == (colour, shape) for t in scene.things)
            assert (q.answer == "yes") == present
            if q.trap:
                traps += 1
                assert any(t.colour == colour for t in scene.things)
                assert any(t.shape == shape for t in scene.things)
    assert traps > 100


def test_a_words_ink_lies_in_its_box() -> None:
    domain = Documents(DocumentsOptions())
    for index in range(40):
        scene = domain.scene(domain.rng("test", index))
        if scene.noise >= 10:
            continue
        pixels = domain.render(scene, 96).astype(int)
        dark = np.abs(pixels - np.array(scene.ground)).sum(-1) > 60
        allowed = np.zeros((96, 96), dtype=bool)
        for line in scene.words:
            x0, y0, x1, y1 = (v * 96 for v in ink(line))
            allowed[max(0, int(y0) - 1) : int(y1) + 2, max(0, int(x0) - 1) : int(x1) + 2] = True
            assert dark[max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1].any()
        assert not (dark & ~allowed).any()


def test_bars_are_as_high_as_their_values() -> None:
    domain = Charts(ChartsOptions())
    checked = 0
    for index in range(120):
        scene = domain.scene(domain.rng("test", index))
        if scene.kind != "bar":
            continue
        pixels = domain.render(scene, 480).astype(int)
        for value, colour in zip(scene.values, scene.colours, strict=True):
            mine = np.abs(pixels - np.array(PALETTE[colour])).sum(-1) == 0
            height = mine.any(1).sum()
            # The plot area is 710/960 high, 60/960 of it head room; 100 fills the rest: 325 px at 480 px.
            assert abs(height - 325 * value / 100) <= 3
            checked += 1
    assert checked > 60


def test_slices_are_as_large_as_their_shares() -> None:
    domain = Charts(ChartsOptions())
    checked = 0
    for index in range(80):
        scene = domain.scene(domain.rng("test", index))
        if scene.kind != "pie":
            continue
        pixels = domain.render(scene, 480).astype(int)
        areas = [(np.abs(pixels - np.array(PALETTE[c])).sum(-1) == 0).sum() for c in scene.colours]
        shares = 100 * np.array(areas) / sum(areas)
        assert np.abs(shares - np.array(scene.values)).max() < 2
        checked += 1
    assert checked > 15


def test_table_answers_follow_from_the_table() -> None:
    domain = Tables(TablesOptions())
    for index in range(100):
        scene = domain.scene(domain.rng("test", index))
        for q in domain.questions(scene, domain.rng("test", index, 1), 6, ("lookup", "extreme")):
            if q.family == "lookup":
                r = next(i for i, n in enumerate(scene.rows) if f" {n}" in q.text)
                c = next(i for i, h in enumerate(scene.headings) if f" {h}" in q.text.replace("?", " "))
                assert q.answer == str(scene.values[r][c])
            else:
                c = next(i for i, h in enumerate(scene.headings) if h in q.text)
                column = [row[c] for row in scene.values]
                best = max(column) if "highest" in q.text else min(column)
                assert q.answer == scene.rows[column.index(best)]


def test_large_tables_and_small_text_have_options() -> None:
    table = Tables(TablesOptions(min_rows=8, max_rows=12, columns=5))
    assert len(table.scene(table.rng("test", 0)).rows) >= 8
    page = Documents(DocumentsOptions(min_words=20, max_words=20, min_height=0.02, max_height=0.03))
    assert len(page.scene(page.rng("test", 0)).words) == 20


def test_a_contact_sheet_shows_every_picture(tmp_path) -> None:
    from PIL import Image

    out = contact_sheet(Objects(ObjectsOptions()), tmp_path / "sheet.png", count=6, size=96)
    with Image.open(out) as sheet:
        assert sheet.width >= 6 * 96
        assert len(set(sheet.resize((64, 64)).getdata())) > 100


def test_companions_go_together_and_leave_the_rest_of_the_scene() -> None:
    """All have theirs, none has, or most; places, sizes, textures and grounds are those of the scene without the option."""
    plain = Objects(ObjectsOptions())
    for share, low, high in ((1.0, 1, 1), (0.0, 0, 0), (0.9, 0.75, 0.95)):
        domain = Objects(ObjectsOptions(companions=share))
        together = []
        for index in range(300):
            base, scene = plain.scene(plain.rng("test", index)), domain.scene(domain.rng("test", index))
            kinds = {(t.colour, t.shape) for t in scene.things}
            together += [(t.colour, COMPANIONS[t.shape]) in kinds for t in scene.things if t.shape in COMPANIONS]
            same = [replace(t, colour=b.colour, shape=b.shape) for t, b in zip(scene.things, base.things, strict=True)]
            assert replace(scene, things=tuple(same)) == base
        assert low <= sum(together) / len(together) <= high
