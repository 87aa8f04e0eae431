"""A judge by rule of responses that reason: whether the answer is right, and what becomes of each reference step.

    known = (reference answer, step 1, ..., step n)  ->  1 or 0 for the answer; for a step 1 taken, -1 contradicted, 0 neither

Steps and the clauses of a response are compared word for word, without articles and the like, each clause standing for one
step. A clause contradicts a step if it says all of it but another last word: "the top left is 3" and "the top left is 2".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from argus.evaluation.final_answer import final_answer_1
from argus.evaluation.metrics.normalise import number_1

_IDLE = frozenset("a an the at in on of is are it there".split())


def stated(facts: Sequence[str] | None, answers: Sequence[str]) -> list[float]:
    """Grades of the answer and of each step."""
    (response,), (reference, *steps) = answers, facts or ("",)
    answer = final_answer_1(response)
    said = Counter(filter(None, map(_words, re.split(r"[.;\n]", response))))
    grades = [float(answer is not None and number_1(answer) == number_1(reference))]
    for step in map(_words, steps):
        denied = any(len(c) == len(step) and c[:-1] == step[:-1] and c != step for c in said)
        grades.append(-1.0 if denied else float(said[step] > 0))
        said[step] -= said[step] > 0
    return grades


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in number_1(text).split() if word not in _IDLE)
