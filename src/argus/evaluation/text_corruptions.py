"""Corruptions of a question's text at severities 0 (none) to 5.

    characters   in a tenth of the words per severity: two letters swapped, one dropped, one doubled or the case turned
    words        a tenth of the words per severity: dropped, doubled or swapped with the next
    sentence     as many sentences before the question as the severity says, that have nothing to do with it

The kinds are those of ChEF's corrupted sets (arXiv 2311.02692: characters, words, sentences; options out of their order are the
instruction's matter); its files are made by a tool and published ready, the levels here are our own. What stands in braces or
quotes is text like all other. The same arguments give the same text.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal

from argus.core.errors import UnknownNameError, nearest

Kind = Literal["characters", "words", "sentence"]
SHARE = 0.1  # of the words, per severity
ASIDES = (
    "Thank you for your time.",
    "It has been raining all day.",
    "My neighbour sent me this.",
    "Please excuse the interruption.",
    "We will meet again next week.",
)


def corrupt_text(text: str, kind: str, severity: int, seed: str) -> str:
    """A corrupted text; the text itself at severity 0.

    Raises:
        UnknownNameError: no such kind.
    """
    if kind not in KINDS:
        raise UnknownNameError(f"there is no corruption of text '{kind}'.", hint=nearest(kind, KINDS))
    return KINDS[kind](text, severity, Random(f"{kind}/{severity}/{seed}")) if severity else text


def _chosen(words: list[str], severity: int, rng: Random) -> set[int]:
    """Places of the words to change; at least one."""
    return set(rng.sample(range(len(words)), max(1, round(SHARE * severity * len(words)))))


def _characters(text: str, severity: int, rng: Random) -> str:
    words = text.split(" ")
    for place in sorted(_chosen(words, severity, rng)):
        word = words[place]
        if not word:
            continue
        at = rng.randrange(len(word))
        change = rng.choice(("swap", "drop", "double", "case"))
        if change == "swap" and len(word) > 1:
            at = min(at, len(word) - 2)
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif change == "drop" and len(word) > 1:
            words[place] = word[:at] + word[at + 1 :]
        elif change == "case" and word.swapcase() != word:
            words[place] = word[:at] + word[at:].swapcase()
        else:
            words[place] = word[: at + 1] + word[at:]
    return " ".join(words)


def _words(text: str, severity: int, rng: Random) -> str:
    words = text.split(" ")
    chosen = _chosen(words, severity, rng)
    found: list[str] = []
    for place, word in enumerate(words):
        change = rng.choice(("drop", "double", "swap")) if place in chosen else "keep"
        if change == "swap" and found:
            found.insert(len(found) - 1, word)
        elif change != "drop" or len(words) == 1:
            found += [word, word] if change == "double" else [word]
    return " ".join(found)


def _sentence(text: str, severity: int, rng: Random) -> str:
    return " ".join([*rng.sample(ASIDES, min(severity, len(ASIDES))), text])


KINDS: dict[str, Callable[[str, int, Random], str]] = {"characters": _characters, "words": _words, "sentence": _sentence}
