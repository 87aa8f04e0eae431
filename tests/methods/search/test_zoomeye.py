"""ZoomEye's searches, traced by hand against a model that answers from a table.

The picture has 400 px and `smallest` is 101: a root, four quarters A B C D (200 px), sixteen leaves A0 ... D3 (100 px).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from PIL import Image

from argus.core.errors import RecipeError
from argus.core.registry import build
from argus.core.sample import Message
from argus.methods.search.base import Found, Look, explore
from argus.methods.search.cues import PHRASE
from argus.methods.search.tree import Box
from argus.methods.search.zoomeye import ZoomEye

PICTURE = Image.new("RGB", (400, 400))
PROMPTS = {
    "existence": "exists {cue}",
    "latent": "latent {cue}",
    "answering": "answers {question}",
    "appearance": "look of {cue}",
}
BOXES: dict[str, Box] = {"root": (0, 0, 400, 400)}
for i, quarter in enumerate("ABCD"):
    x, y = 200 * (i % 2), 200 * (i // 2)
    BOXES[quarter] = (x, y, 200, 200)
    BOXES |= {f"{quarter}{j}": (x + 100 * (j % 2), y + 100 * (j // 2), 100, 100) for j in range(4)}
NAMES = {box: name for name, box in BOXES.items()}


class Scripted:
    """A model that reads (prompt, node) -> confidence from a table; -0.9 where it has no entry."""

    def __init__(self, **table: float) -> None:
        self.table = {tuple(key.rsplit("__", 1)): value for key, value in table.items()}
        self.calls: list[list[tuple[str, str]]] = []
        self.text = ""

    def confidences(self, looks: Sequence[Look]) -> list[float]:
        keys = [(look.prompt.replace(" ", "_"), shown(look)) for look in looks]
        self.calls.append(keys)
        return [self.table.get(key, -0.9) for key in keys]

    def write(self, conversations: Sequence[list[Message]], max_new_tokens: int) -> list[str]:
        return [self.text for _ in conversations]

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [key for call in self.calls for key in call]


def shown(look: Look) -> str:
    """The node that a look shows; a leaf of 100 px is shown in a crop of 101."""
    if "@" not in look.view.name:
        return "root"
    x1, y1, x2, y2 = (round(int(v), -2) for v in look.view.name.partition("@")[2].split(","))
    return NAMES[x1, y1, x2 - x1, y2 - y1]


def zoomeye(**options: Any) -> ZoomEye:
    return build("search", "zoomeye", {"smallest": 101, **PROMPTS, **options})


def find(model: Scripted, *cues: str, question: str = "Q", **options: Any) -> Found:
    (found,) = explore(model, [zoomeye(**options).search(PICTURE, question, cues, "p")])
    return found


def names(boxes: Sequence[Box]) -> list[str]:
    return [NAMES[box] for box in boxes]


def test_the_best_node_is_popped_first() -> None:
    """R = w existence + (1 - w) latent; b = 0.2 and depth 2 of 2 give w = 0.4 for quarters and 1 for leaves.

    Quarters: A 0.4 * 0.5 + 0.6 * 0 = 0.2, B 0.4 * 0 + 0.6 * 0.5 = 0.3, C and D -0.9. Of B's leaves B2 has 0.1 and the rest -0.9,
    whatever latent says; so A comes next, whose leaf A3 has 0.4 and answers.
    """
    model = Scripted(
        exists_star__A=0.5, latent_star__A=0.0, exists_star__B=0.0, latent_star__B=0.5, latent_star__C=-0.9,
        exists_star__B2=0.1, latent_star__B1=1.0, exists_star__A3=0.4, answers_Q__A3=0.7,
    )  # fmt: skip
    found = find(model, "star")
    assert names(found.visited) == ["root", "B", "A", "A3"]
    assert names(found.boxes) == ["A3"]
    # root -> B in, B -> A same depth, A -> A3 in
    assert (found.pops, found.zoom_ins, found.zoom_outs) == ([4], [2], [0])
    # 4 pops, and existence and latent of 4 quarters, of B's 4 leaves and of A's
    assert found.looks == len(model.asked) == len(set(model.asked)) == 4 + 2 * 12
    assert [len(call) for call in model.calls] == [1, 8, 1, 8, 1, 8, 1]  # children are asked in one call
    assert found.view.images[0].size == (101, 101)


def test_zooming_out_again() -> None:
    """B's leaves look bad, so the search goes back up to A."""
    model = Scripted(
        exists_star__B=0.9, latent_star__B=0.9, exists_star__B0=0.2, exists_star__A=0.0, latent_star__A=0.1,
        exists_star__C=-0.5, latent_star__C=-0.5, exists_star__C1=0.9, answers_Q__C1=0.95,
    )  # fmt: skip
    found = find(model, "star", upper=0.9)
    assert names(found.visited) == ["root", "B", "B0", "A", "C", "C1"]
    assert (found.zoom_ins, found.zoom_outs) == ([3], [1])


def test_a_confident_root_is_the_whole_picture() -> None:
    found = find(Scripted(answers_Q__root=0.6), "star")
    assert (found.pops, names(found.boxes), found.looks) == ([1], ["root"], 1)
    assert found.view.images == (PICTURE,)
    assert found.view.name == "p"


def test_the_threshold_falls() -> None:
    """Limit 6: 0.6 - 0.1 after pop 6, 0.4 after 8, 0.2 after 10, 0 after 12, below 0 after 14: given up. Nothing is confident."""
    found = find(Scripted(), "star")
    assert (found.pops, found.boxes) == ([14], [])
    assert found.view.name == "p"
    # C answers with 0.45: not at pop 6 (0.5), but at pop 8 (0.4), from the trace.
    found = find(Scripted(answers_Q__C=0.45, exists_star__C=1.0), "star")
    assert (found.pops, names(found.boxes)) == ([8], ["C"])
    # The best of the trace, not the deepest.
    found = find(Scripted(answers_Q__C=0.45, exists_star__C=1.0, answers_Q__C0=0.41, exists_star__C0=0.9), "star")
    assert names(found.boxes) == ["C"]
    # A step of its own: 0.6 - 0.5 after pop 6.
    assert find(Scripted(answers_Q__C=0.15, exists_star__C=1.0), "star", decay=[0.5]).pops == [6]


def test_equal_priorities_keep_their_order() -> None:
    assert names(find(Scripted(), "star", bias=1.0).visited)[:6] == ["root", "A", "B", "C", "D", "A0"]


def test_several_things_are_looked_for_one_by_one() -> None:
    """Local views: the root is not asked, and the search ends only once a leaf was visited; the deepest candidate counts."""
    model = Scripted(
        answers_look_of_star__root=1.0, answers_look_of_star__B=0.9, exists_star__B=0.9, answers_look_of_star__B1=0.7,
        exists_star__B1=0.5, answers_look_of_ring__C=0.8, exists_ring__C=0.9, exists_ring__C3=0.9,
    )  # fmt: skip
    found = find(model, "star", "ring")
    assert names(found.visited) == ["root", "B", "B1", "root", "C", "C3"]
    assert names(found.boxes) == ["B1", "C"]
    assert ("answers_look_of_star", "root") not in model.asked
    assert not any("Q" in prompt for prompt, _ in model.asked)
    assert found.pops == [3, 3]
    # B1 (300, 0, 401, 101 -> 400) and C (0, 200, 200, 400) lie more than 50 px apart, and the crop is the box round both.
    assert found.view.images[0].size == (400, 400)


def test_all_of_a_kind() -> None:
    """Type 2, threshold 0.6: a node counts where nothing inside it is surer.

    A0 0.7 counts, A 0.65 does not (A0 inside), B 0.9 does over B1 0.8, which counts too; C3 0.5 is below 0.6; the
    root has 0.9 and counts over B. Post-order: A0 A1 A2 A3 A B0 ... D root.
    """
    table = {"A0": 0.7, "A": 0.65, "B1": 0.8, "B": 0.9, "C3": 0.5, "root": 0.9}
    model = Scripted(**{f"exists_star__{name}": c for name, c in table.items()})
    found = find(model, "all stars")
    assert names(found.boxes) == ["A0", "B1", "B", "root"]
    assert names(found.visited)[:6] == ["A0", "A1", "A2", "A3", "A", "B0"]
    assert names(found.visited)[-1] == "root"
    assert (found.pops, found.looks, len(model.calls)) == ([], 21, 1)


def test_global_views_skip_the_search_when_one_cue_is_plain_to_see() -> None:
    seen = Scripted(answers_look_of_star__root=0.6)
    found = find(seen, "star", "ring", views="global_local")
    assert (found.pops, found.boxes, found.looks) == ([], [], 2)
    hidden = find(Scripted(answers_look_of_star__root=0.5), "star", "ring", views="global_local")
    assert len(hidden.pops) == 2


def test_weights() -> None:
    """b + (1 - b) (depth / 2)^2 for b = 0.6: 0.6, 0.7, 1."""
    eye = zoomeye(bias=0.6).eye(PICTURE, "Q", "p")
    assert [eye.weight(depth) for depth in range(3)] == pytest.approx([0.6, 0.7, 1.0])
    model = Scripted(exists_star__A=1.0, latent_star__A=-1.0, exists_star__B=0.45, latent_star__B=0.35)
    # A: 0.7 - 0.3 = 0.4; B: 0.7 * 0.45 + 0.3 * 0.35 = 0.42
    assert names(find(model, "star", bias=0.6).visited)[1:3] == ["B", "A"]


def test_by_lot() -> None:
    """The control pops by lot, always the same one, and asks no more than whether the node answers."""
    model = Scripted()
    first, second = find(model, "star", order="random"), find(Scripted(), "star", order="random")
    assert first.visited == second.visited
    assert names(first.visited) != names(find(Scripted(), "star").visited)
    assert first.looks == first.pops[0] == 14
    assert {prompt for prompt, _ in model.asked} == {"answers_Q"}


def test_searches_of_a_batch_run_side_by_side() -> None:
    """Three questions take as many calls as the longest of them alone, and find what each finds alone."""
    table = {"answers_Q__root": 0.9, "answers_R__D": 0.8, "exists_ring__D": 0.5}
    asked = [("Q", "star"), ("R", "ring"), ("S", "cross")]
    alone = [find(Scripted(**table), cue, question=q) for q, cue in asked]
    model = Scripted(**table)
    together = explore(model, [zoomeye().search(PICTURE, q, [cue], "p") for q, cue in asked])
    assert [f.record() for f in together] == [f.record() for f in alone]
    longest = Scripted(**table)
    find(longest, "cross", question="S")
    assert len(model.calls) == len(longest.calls)


def test_the_model_names_the_cues() -> None:
    model = Scripted()
    model.text = f"It compares two. {PHRASE}red star, his bag and all rings."
    assert zoomeye().cues(model, ["Q"], [None]) == [["red star", "all rings"]]
    assert zoomeye(cues="given").cues(model, ["Q"], [("ring",)]) == [["ring"]]
    model.text = "I do not know."
    assert zoomeye().cues(model, ["Q"], [None]) == [[]]
    assert find(model).pops == []  # nothing to look for: the whole picture answers


def test_a_small_picture_is_not_cut() -> None:
    (found,) = explore(Scripted(), [zoomeye(smallest=500).search(PICTURE, "Q", ["star"], "p")])
    assert (found.pops, found.boxes, found.looks) == ([1], [], 1)


def test_prompts_with_unknown_places_are_refused() -> None:
    with pytest.raises(RecipeError, match="option 'existence'"):
        zoomeye(existence="Is {thing} here?")
