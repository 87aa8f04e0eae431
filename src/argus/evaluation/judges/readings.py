"""Judges by rule that see what a language model would be shown - the right answer and the answer given - and read it as English.

    affirmed      what is left without what is denied holds a right answer, and leaves no alternative open
    alone         of all answers of its kind (colours, numbers, ...) that are left, the right one is the only one
    commits       a right answer is named and nothing is left open
    named_first   the first answer of its kind that is named is right
    named_last    the last one is

Each knows synonyms, and each errs in its own way: `named_first` falls for "not red but blue", `named_last` for "red, not
blue", both for "red or blue"; `commits` believes what is denied, and nobody knows the rivals of a word that was read from a
picture. Nobody is told what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from argus.evaluation.metrics.normalise import text_1
from argus.evaluation.wording import KIND, MEANING

_NAMES = {text_1(name): answer for name, answer in MEANING.items()}
_TERM = re.compile(r"\b(" + "|".join(re.escape(name) for name in sorted(_NAMES, key=lambda n: -len(n))) + r")\b")
# What follows these is denied, up to the next break of the sentence; before `but` and its like stands what is taken back.
_DENIED = re.compile(r"\b(?:not|rather than|instead of)\b[^,;.]*?(?=\bbut\b|[,;.]|$)")
_TAKEN_BACK = re.compile(r"^[^.]*?\b(?:but|yet|however)\b")
_OPEN = re.compile(r"\b(?:either|or|maybe|perhaps|could|possible|possibly)\b")


def affirmed(right: str, answer: str) -> bool:
    """Says a right answer and leaves no other one open."""
    return _holds(_kept(answer), right) and not _OPEN.search(answer)


def alone(right: str, answer: str) -> bool:
    """Names a right answer and none of its rivals; where these are not known, leaves nothing open."""
    named = _named(_kept(answer), right)
    return set(named) == {_meaning(right)} if named else affirmed(right, answer)


def commits(right: str, answer: str) -> bool:
    """Names a right answer and leaves nothing open."""
    return _holds(answer, right) and not _OPEN.search(answer)


def named_first(right: str, answer: str) -> bool:
    """Names a right answer first."""
    named = _named(answer, right)
    return named[0] == _meaning(right) if named else _holds(answer, right)


def named_last(right: str, answer: str) -> bool:
    """Names a right answer last; where its rivals are not known, behind what is denied."""
    named = _named(answer, right)
    return named[-1] == _meaning(right) if named else _holds(_kept(answer), right)


def _rule(reading: Callable[[str, str], bool]) -> Callable[[Sequence[str] | None, Sequence[str]], list[float]]:
    def rule(facts: Sequence[str] | None, answers: Sequence[str]) -> list[float]:
        said = [" ".join(answer.lower().split()) for answer in answers]
        return [float(facts is None or any(reading(text_1(fact), one) for fact in facts)) for one in said]

    return rule


READINGS = {f.__name__: _rule(f) for f in (affirmed, alone, commits, named_first, named_last)}


@lru_cache(4096)
def _kept(answer: str) -> str:
    """An answer without what is denied or taken back."""
    return _TAKEN_BACK.sub("", _DENIED.sub("", answer))


def _meaning(text: str) -> str:
    return _NAMES.get(text, text)


def _named(answer: str, right: str) -> list[str]:
    """Answers of the kind of the right one, in the order in which they are named; none where its kind is not known."""
    kind = KIND.get(_meaning(right))
    terms = (_NAMES[name] for name in _TERM.findall(answer)) if kind else ()
    return [term for term in terms if KIND[term] == kind]


def _holds(answer: str, right: str) -> bool:
    """Whether an answer names the right one, by whatever name."""
    wanted = _meaning(right)
    names = [name for name, meaning in _NAMES.items() if meaning == wanted] or [right]
    return any(name and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", answer) for name in names)
