"""What can be asked of a scene of objects: one function per family of questions.

Each chooses the answer first, uniformly among the options, and then what to ask, and gives None where the scene has nothing to
ask of its kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from argus.core.sample import box_text
from argus.world.dice import Dice
from argus.world.domain import COLOURS, SHAPES, SIZES, TEXTURES, Question
from argus.world.object_references import choices, referable, reference, two_named
from argus.world.object_scene import PLACES, ObjectsScene, hiding

Ask = Callable[[ObjectsScene, Dice, range], Question | None]  # of a scene, by lot, where scenes have so many things


def _existence(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    here = {(t.colour, t.shape) for t in scene.things}
    yes = dice(2) == 1
    trap = False
    if yes:
        colour, shape = dice.pick(sorted(here))
    else:
        # Half of the absent ones are traps: colour and shape are both in the scene, but not on one thing.
        crossed = sorted({(a[0], b[1]) for a in here for b in here} - here)
        trap = bool(crossed) and dice(2) == 1
        if trap:
            colour, shape = dice.pick(crossed)
        else:
            colour, shape = dice.pick(COLOURS), dice.pick(SHAPES)
            while (colour, shape) in here:
                colour, shape = dice.pick(COLOURS), dice.pick(SHAPES)
    article = "an" if colour[0] in "aeiou" else "a"
    text = dice.pick(
        (
            f"Is there {article} {colour} {shape}?",
            f"Can you see {article} {colour} {shape}?",
            f"Does the picture show {article} {colour} {shape}?",
        )
    )
    boxes = tuple(t.box for t in scene.things if (t.colour, t.shape) == (colour, shape))
    return Question("existence", text, "yes" if yes else "no", ("yes", "no"), boxes, trap=trap, cues=(f"{colour} {shape}",))


def _attribute(attribute: str, names: Sequence[str], templates: Sequence[str]) -> Ask:
    def ask(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
        found = referable(scene, dice, hide=attribute)
        if found is None:
            return None
        thing, phrase = found
        answer = getattr(thing, attribute)
        options = choices(answer, names, dice)
        return Question(attribute, dice.pick(templates).format(phrase), answer, options, (thing.box,), cues=(phrase,))

    return ask


def _count(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    kind = dice(3)
    if kind == 0:
        options = tuple(str(n) for n in numbers)
        text = dice.pick(("How many things are there?", "Count the things in the picture.", "What is the number of things?"))
        return Question("count", text, str(len(scene.things)), options, tuple(t.box for t in scene.things))
    attribute, names = ("colour", COLOURS) if kind == 1 else ("shape", SHAPES)
    counts = Counter(getattr(t, attribute) for t in scene.things)
    by_count: dict[int, list[str]] = {}
    for name in names:
        by_count.setdefault(counts[name], []).append(name)
    if len(by_count) < 3:
        return None  # two possible answers would be too easy to guess
    answer = dice.pick(sorted(by_count))
    name = dice.pick(by_count[answer])
    noun = f"{name} things" if attribute == "colour" else ("crosses" if name == "cross" else f"{name}s")
    text = dice.pick((f"How many {noun} are there?", f"Count the {noun}.", f"What is the number of {noun}?"))
    boxes = tuple(t.box for t in scene.things if getattr(t, attribute) == name)
    return Question("count", text, str(answer), tuple(str(n) for n in sorted(by_count)), boxes)


def _position(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    found = referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    x, y = thing.centre
    if min(abs(x - 0.5), abs(y - 0.5)) < 0.05:
        return None  # on a border between quarters
    answer = PLACES[2 * (y > 0.5) + (x > 0.5)]
    text = dice.pick(
        (f"In which quarter is the {phrase}?", f"Where is the {phrase}?", f"Which corner is the {phrase} nearest to?")
    )
    return Question("position", text, answer, tuple(dice.shuffled(PLACES)), (thing.box,), cues=(phrase,))


def _relation(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    pair = two_named(scene, dice)
    if pair is None:
        return None
    a, first, b, second = pair
    axis = dice(2)
    if abs(a.centre[axis] - b.centre[axis]) < 0.1:
        return None
    words = (("left of", "right of"), ("above", "below"))[axis]
    holds = words[0] if a.centre[axis] < b.centre[axis] else words[1]
    yes = dice(2) == 1
    word = holds if yes else words[1 - words.index(holds)]
    text = dice.pick((f"Is the {first} {word} the {second}?", f"Is it true that the {first} is {word} the {second}?"))
    return Question("relation", text, "yes" if yes else "no", ("yes", "no"), (a.box, b.box), trap=not yes, cues=(first, second))


def _nearest(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    found = referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    others = sorted(
        ((t.centre[0] - thing.centre[0]) ** 2 + (t.centre[1] - thing.centre[1]) ** 2, t.colour, t.box)
        for t in scene.things
        if t is not thing
    )
    colours = sorted({c for _, c, _ in others})
    # The runner-up of another colour must be clearly further: 1.2 times the distance.
    rivals = [d for d, c, _ in others if c != others[0][1]] if others else []
    if not rivals or min(rivals) < 1.44 * others[0][0]:
        return None
    options = tuple(dice.shuffled(colours))
    text = dice.pick(
        (
            f"What colour is the thing nearest to the {phrase}?",
            f"Which colour has the closest neighbour of the {phrase}?",
        )
    )
    return Question("nearest", text, others[0][1], options, (thing.box, others[0][2]))


def _comparison(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    yes = dice(2) == 1
    if dice(2):
        pair = two_named(scene, dice)
        if pair is None or pair[0].size == pair[2].size:
            return None
        a, first, b, second = pair
        if SIZES.index(a.size) < SIZES.index(b.size):
            a, first, b, second = b, second, a, first
        if not yes:
            first, second = second, first
        text = dice.pick((f"Is the {first} larger than the {second}?", f"Is the {first} bigger than the {second}?"))
        return Question("comparison", text, "yes" if yes else "no", ("yes", "no"), (a.box, b.box))
    counts = Counter(t.colour for t in scene.things)
    pairs = [(m, n) for m in sorted(counts) for n in sorted(counts) if counts[m] > counts[n]]
    if not pairs:
        return None
    more, fewer = dice.pick(pairs)
    if not yes:
        more, fewer = fewer, more
    text = dice.pick(
        (f"Are there more {more} things than {fewer} things?", f"Are {more} things more frequent than {fewer} things?")
    )
    boxes = tuple(t.box for t in scene.things if t.colour in (more, fewer))
    return Question("comparison", text, "yes" if yes else "no", ("yes", "no"), boxes)


def _odd_one_out(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    attribute, names = (("colour", COLOURS), ("shape", SHAPES))[dice(2)]
    counts = Counter(getattr(t, attribute) for t in scene.things)
    if len(scene.things) < 3 or sorted(counts.values()) != [1, len(scene.things) - 1]:
        return None
    odd = next(t for t in scene.things if counts[getattr(t, attribute)] == 1)
    answer = getattr(odd, attribute)
    text = dice.pick(
        (
            f"One thing has another {attribute} than all others. Which {attribute}?",
            f"What {attribute} is the odd one out?",
        )
    )
    return Question("odd_one_out", text, answer, choices(answer, names, dice), (odd.box,))


def _order(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    """Which of two things lies on the other, where that can be seen."""
    for a, b in dice.shuffled(hiding(scene)):
        first, second = reference(scene, a), reference(scene, b)
        if first is None or second is None:
            continue
        yes, word = dice(2) == 1, ("in front of", "behind")[dice(2)]
        if yes == (word == "behind"):
            first, second = second, first
        text = dice.pick((f"Is the {first} {word} the {second}?", f"Does the {first} lie {word} the {second}?"))
        return Question("order", text, "yes" if yes else "no", ("yes", "no"), (a.box, b.box), cues=(first, second))
    return None


def _locate(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    found = referable(scene, dice)
    if found is None:
        return None
    thing, phrase = found
    text = dice.pick(
        (
            f"Give the box of the {phrase}.",
            f"Locate the {phrase} with a box.",
            f"Where exactly is the {phrase}? Answer with a box.",
        )
    )
    return Question("locate", text, box_text(thing.box), (), (thing.box,))


def _caption(scene: ObjectsScene, dice: Dice, numbers: range) -> Question | None:
    things = sorted(scene.things, key=lambda t: (t.centre[1], t.centre[0]))
    facts = tuple(
        f"a {t.size} {t.colour} {t.texture} {t.shape} at the {PLACES[2 * (t.centre[1] > 0.5) + (t.centre[0] > 0.5)]}"
        for t in things
    )
    text = dice.pick(("Describe the picture in detail.", "What does the picture show? List everything."))
    return Question("caption", text, "; ".join(facts), (), tuple(t.box for t in things), facts=facts)


ASK: dict[str, Ask] = {
    "existence": _existence,
    "colour": _attribute("colour", COLOURS, ("What colour is the {}?", "Which colour has the {}?", "Name the colour of the {}.")),
    "shape": _attribute("shape", SHAPES, ("What shape is the {}?", "Which shape has the {}?", "Name the shape of the {}.")),
    "size": _attribute("size", SIZES, ("How large is the {}?", "What size is the {}?")),
    "texture": _attribute(
        "texture", TEXTURES, ("What pattern does the {} have?", "Is the {} plain, striped, dotted or checkered?")
    ),
    "count": _count,
    "position": _position,
    "relation": _relation,
    "nearest": _nearest,
    "comparison": _comparison,
    "odd_one_out": _odd_one_out,
    "order": _order,
    "locate": _locate,
    "caption": _caption,
}
