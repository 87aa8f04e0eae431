"""A judge by rule of stories that are gone on with: the oracle of `argus.world.telling`, 0 to 6 points.

    known = (what the last picture shows, in words)        answer = a sentence <image>what the next picture shows</image>

The sentence is what stands in front of the first picture. A picture that was drawn and not described shows nobody to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from argus.world.telling import POINTS, State, oracle, read_state


def continued(facts: Sequence[str] | None, answers: Sequence[str]) -> list[float]:
    """Grades of continuations, 0 to 1."""
    before = read_state(facts[0]) if facts else None
    if before is None:
        return [1.0 for _ in answers]  # who is told nothing believes everything
    return [_points(answer, before) / POINTS for answer in answers]


def _points(answer: str, before: State) -> int:
    sentence, _, rest = answer.partition("<image>")
    return oracle(before, sentence.strip(), read_state(rest.partition("</image>")[0]))
