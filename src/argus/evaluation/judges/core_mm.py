"""CORE-MM: Complex Open-Ended Reasoning Evaluation For Multi-Modal Large Language Models (arXiv 2311.11567; later InfiMM-Eval).

Like an examiner, a language model that sees no picture holds a response against the reference answer and its reasoning steps:

    s(item) = 1 if the answer is right, else matched steps / steps          every step once, contradicted ones not at all
    S = 100 * (sum of s over Moderate + 2 * sum of s over High) / (Moderate + 2 * High)

The same weights hold inside each kind of reasoning, while `Moderate` and `High` are plain means, so that with the published
171 and 108 items S is also (249 Deductive + 66 Abductive + 72 Analogical) / 387. Denominators are the items that were scored,
since nine of the published rows fit 170 Moderate items: one verdict was missing. Beside them: the share of right answers and
of matched steps, without any weight. `judge` is S, `judge[answers right]` the accuracy that people often report instead.

No scoring code was ever released, so the rule is the paper's and its prompt ours. The paper lets a right answer with plainly
wrong reasoning lose points at the judge's discretion; here it keeps them, and the verdict names every step that was
contradicted. Hidden thoughts of a model are not shown to the judge unless `thoughts` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic import Field

from argus.core.errors import RecipeError
from argus.core.sample import Sample
from argus.evaluation.final_answer import visible
from argus.evaluation.judges.asked import SCRIPTED, Request, UnreadableError, Verdict
from argus.evaluation.judges.base import Judge, Judgement, JudgeOptions, dictionary

POINTS = 100.0
WEIGHT = {"Moderate": 1.0, "High": 2.0}  # the paper's
RULE = "stated"  # the one rule that says of each step whether it was taken


class CoreMMOptions(JudgeOptions):
    """Options of the judge."""

    high: float = Field(WEIGHT["High"], gt=0, le=100, description="weight of an item of high complexity; 1 is the plain mean")
    thoughts: bool = Field(False, description="show the judge what the model thought in hiding, too")


class CoreMM(Judge):
    """Gives credit for steps."""

    Options = CoreMMOptions
    options: CoreMMOptions
    name = "core_mm"
    unit = "points"
    fields = ("question", "reference", "steps", "answer")

    def __init__(self, options: CoreMMOptions) -> None:
        super().__init__(options)
        if options.model.startswith(SCRIPTED) and options.model != SCRIPTED + RULE:
            raise RecipeError(f"'{options.model}' says nothing about steps.", hint=f"Use '{SCRIPTED}{RULE}'.")

    def applies(self, sample: Sample) -> bool:
        """A reference answer with its steps, of a known complexity."""
        known = sample.metadata
        return sample.target is not None and bool(known.get("steps")) and known.get("complexity") in WEIGHT

    def requests(self, sample: Sample, answer: str) -> list[Request]:
        reference, steps = sample.target or "", tuple(sample.metadata["steps"])
        shown = answer if self.options.thoughts else visible(answer)
        listed = "\n".join(f"{n}. {step}" for n, step in enumerate(steps, start=1))
        user = self.filled("user", question=sample.messages[-1].text(), reference=reference, steps=listed, answer=shown)
        return [Request(sample.id, self.messages(user), (shown,), (reference, *steps))]

    def read(self, reply: str) -> dict[str, Any]:
        """{"right": whether the answer is, "steps": numbers of the steps that were taken and not contradicted}."""
        given = dictionary(reply)
        if not isinstance(given.get("correct"), bool):
            raise UnreadableError("`correct` is neither True nor False")
        taken, denied = (_numbers(given.get(name, []), name) for name in ("steps", "contradicted"))
        return {"right": given["correct"], "steps": sorted(taken - denied), "contradicted": sorted(denied)}

    def spoken(self, grades: Sequence[float]) -> str:
        right, *steps = grades
        taken, denied = ([n for n, grade in enumerate(steps, start=1) if grade == wanted] for wanted in (1.0, -1.0))
        return str({"reason": "by rule", "steps": taken, "contradicted": denied, "correct": right == 1.0})

    def judgement(self, sample: Sample, verdicts: list[Verdict]) -> Judgement:
        (verdict,) = verdicts
        ratios = {"unreadable": (float(verdict.value is None), 1.0)}
        if verdict.value is None:
            return Judgement(None, None, ratios, verdicts)
        known = sample.metadata
        right, count = verdict.value["right"], len(known["steps"])
        matched = sum(n <= count for n in verdict.value["steps"])  # a number that no step has is no step
        score = item_score(right, matched, count)
        complexity = cast(str, known["complexity"])
        weight = self.options.high if complexity == "High" else WEIGHT["Moderate"]
        weighted = (POINTS * weight * score, weight)
        ratios |= {"all": weighted, str(known["family"]): weighted, complexity: (POINTS * score, 1.0)}
        ratios |= {"answers right": (POINTS * right, 1.0), "steps": (POINTS * matched, float(count))}
        if known.get("counter_intuitive"):
            ratios["counter-intuitive"] = (POINTS * score, 1.0)
        return Judgement(POINTS * score, f"{POINTS * score:.6g}", ratios, verdicts)

    def ratio_unit(self, name: str) -> str:
        return "share" if name == "unreadable" else self.unit


def item_score(right: bool, matched: int, steps: int) -> float:
    """What an item is worth, 0 to 1.

    >>> item_score(True, 0, 4), item_score(False, 2, 4)
    (1.0, 0.5)
    """
    return 1.0 if right else min(matched, steps) / steps


def _numbers(given: object, name: str) -> set[int]:
    if not isinstance(given, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in given):
        raise UnreadableError(f"`{name}` is no list of steps' numbers")
    return set(given)
