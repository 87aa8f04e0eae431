"""Judges by rule, which know what a model would have to find out: exact on the procedural world, and free.

    said = clauses of the answer     known = the facts, one clause each     every word of a clause is a statement
    grade = (1 + true / words of the facts - false / words said) / 2

A said clause is held against the fact with most words in common, each fact once; shared words are true, the others false. So the
facts themselves get 1, silence 0.5 and nothing but falsehoods 0. Who is told no facts believes every answer: 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from argus.evaluation.judges.continued import continued
from argus.evaluation.judges.readings import READINGS
from argus.evaluation.judges.steps import stated
from argus.evaluation.metrics.normalise import number_1

Rule = Callable[[Sequence[str] | None, Sequence[str]], list[float]]  # facts, answers as shown -> grades 0 to 1
IDLE = frozenset("a an the at in on of is are it there and".split())
FAVOUR = 1 / 9  # one point of a scale from 1 to 10


def statements(text: str) -> list[set[str]]:
    """The words of each clause that say something.

    >>> [sorted(clause) for clause in statements("a red star; it is Large.")]
    [['red', 'star'], ['large']]
    """
    clauses = (set(number_1(clause).split()) - IDLE for clause in re.split(r"[.;\n]", text))
    return [clause for clause in clauses if clause]


def credit(facts: Sequence[str], answer: str) -> float:
    """How far an answer says the facts and nothing else."""
    right, total, wanted = counted(facts, answer)
    return (1 + right / max(1, wanted) - (total - right) / max(1, total)) / 2


def false_share(facts: Sequence[str], answer: str) -> float:
    """The share of an answer's words that no fact bears out."""
    right, total, _ = counted(facts, answer)
    return (total - right) / max(1, total)


def counted(facts: Sequence[str], answer: str) -> tuple[int, int, int]:
    """Words that are true, words said, words of the facts."""
    free = [clause for fact in facts for clause in statements(fact)]
    wanted = sum(map(len, free))
    said = statements(answer)
    right = 0
    for clause in said:
        best = max(free, key=lambda fact: len(fact & clause), default=set())
        if shared := len(best & clause):
            right += shared
            free.remove(best)
    return right, sum(map(len, said)), wanted


def truth(facts: Sequence[str] | None, answers: Sequence[str]) -> list[float]:
    """Grades by the facts alone."""
    return [1.0 if facts is None else credit(facts, answer) for answer in answers]


def exact(facts: Sequence[str] | None, answers: Sequence[str]) -> list[float]:
    """All or nothing: an answer is one of the facts, and says no more."""
    right = None if facts is None else {number_1(fact) for fact in facts}
    return [float(right is None or number_1(answer) in right) for answer in answers]


def supported(facts: Sequence[str] | None, answers: Sequence[str]) -> list[float]:
    """The share of what is said that is true; what is left out costs nothing, and silence says nothing false."""
    return [1.0 if facts is None else 1 - false_share(facts, answer) for answer in answers]


def first(facts: Sequence[str] | None, answers: Sequence[str]) -> list[float]:
    """The same, one point better for the answer that stands first."""
    return [grade + FAVOUR * (not place) for place, grade in enumerate(truth(facts, answers))]


RULES: dict[str, Rule] = {
    "continued": continued,
    "exact": exact,
    "first": first,
    "stated": stated,
    "supported": supported,
    "truth": truth,
    **READINGS,
}
