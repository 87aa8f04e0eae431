"""Answers as assistants word them: the words of the world with their synonyms, and sentences around one or two answers.

    sentence    "I would say red."                      explained   "Red. I went through the picture part by part to be sure."
    synonym     "It looks crimson."                     denied      "It is not pink but red."
    hedged      "It is either red or pink."

Who words an answer knows what is meant by it, so that a judge of words can be held against the truth. A hedged answer means
both of its answers, all others mean one. Whatever has no synonym - a word read from a picture - is put into a sentence.
"""

from __future__ import annotations

from typing import Literal
from zlib import crc32

from argus.world.domain import COLOURS, SHAPES, SIZES, TEXTURES

Form = Literal["sentence", "explained", "synonym", "denied", "hedged"]
FORMS: tuple[Form, ...] = ("sentence", "explained", "synonym", "denied", "hedged")

# Answers that exclude each other.
KINDS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "size": SIZES,
    "texture": TEXTURES,
    "place": ("top left", "top right", "bottom left", "bottom right"),
    "number": tuple(str(n) for n in range(7)),
    "truth": ("yes", "no"),
}
SYNONYMS: dict[str, tuple[str, ...]] = {
    word: tuple(names.split(", "))
    for word, names in (
        line.strip().split(": ")
        for line in """
        red: crimson, scarlet
        green: emerald
        blue: azure, cobalt
        yellow: golden
        orange: tangerine
        purple: violet
        pink: rose
        brown: chestnut
        cyan: turquoise
        gray: grey
        circle: disc
        square: quadrate
        triangle: trigon
        star: pentagram
        cross: plus sign
        diamond: rhombus, lozenge
        ring: hoop, annulus
        heart: love symbol
        small: tiny, little
        medium: middling, mid-sized
        large: big, huge
        plain: solid, uniform
        striped: banded
        dotted: spotted
        checkered: chequered
        top left: upper left
        top right: upper right
        bottom left: lower left
        bottom right: lower right
        yes: indeed, that is true
        no: nope, that is false
        0: zero, none
        1: one, a single one
        2: two, a pair
        3: three, a trio
        4: four, a quartet
        5: five, a quintet
        6: six, half a dozen
        """.strip().splitlines()
    )
}
MEANING = {name: word for word, names in SYNONYMS.items() for name in (word, *names)}  # any name -> the answer it stands for
KIND = {word: kind for kind, words in KINDS.items() for word in words}

NUMBER_WORDS = frozenset("zero none one two three four five six".split())  # every normalisation knows them: no synonyms

SENTENCES = ("I would say {a}.", "The answer is {a}.", "As far as I can see: {a}.", "Looking at the picture, I answer {a}.")
EXPLAINED = (
    "{A}. I went through the picture part by part to be sure.",
    "Since everything in the picture can be seen well, my answer is {a}.",
    "{A}, which is what the part in question clearly shows.",
)
DENIED = (
    "It is not {b} but {a}.",
    "{A}, not {b}.",
    "Rather than {b}, I would say {a}.",
    "My first thought was {b}, but {a} is what the picture shows.",
    "{A} instead of {b}.",
    "Many would call it {b}; {a} is my answer.",
)
HEDGED = (
    "It is either {a} or {b}.",
    "It could be {a}, though {b} is possible as well.",
    "{A} or {b}, hard to say.",
    "Maybe {a}, maybe {b}.",
)


def worded(answer: str, other: str, form: Form, key: str) -> tuple[str, list[str]]:
    """A sentence, and what is meant by it.

    Args:
        answer: what is meant.
        other: the answer that is denied, or named beside it.
        form: how it is said.
        key: chooses among the ways of a form; the same key, the same way.
    """
    number = crc32(key.encode())

    def said(ways: tuple[str, ...], a: str, b: str = "") -> str:
        return ways[number // len(FORMS) % len(ways)].format(a=a, b=b, A=a[:1].upper() + a[1:])

    names = [name for name in SYNONYMS.get(answer, ()) if name not in NUMBER_WORDS]
    match form:
        case "explained":
            return said(EXPLAINED, answer), [answer]
        case "synonym" if names:
            return said(SENTENCES, names[number // 97 % len(names)]), [answer]
        case "denied":
            return said(DENIED, answer, other), [answer]
        case "hedged":
            return said(HEDGED, answer, other), [answer, other]
        case _:
            return said(SENTENCES, answer), [answer]
