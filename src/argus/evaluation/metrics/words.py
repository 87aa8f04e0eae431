"""Word matching, as LVLM-eHub scores free answers (arXiv 2306.09265): right if a gold answer occurs as whole words.

Both sides are normalised in this order: line breaks and tabs to blanks; punctuation dropped beside a blank or where the text
has a comma between digits, else replaced by a blank; periods not before a digit dropped; lower case; number words to digits;
articles dropped; contractions restored. An answer that names several options is right for each of them: the rule is kept for
comparison with published numbers, `accuracy` is the strict one. A gold answer that normalises to nothing is never found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, Score

PUNCTUATION = ';/[]"{}()=+\\_-><@,?!`'
COMMA = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
NUMBERS = {"none": "0", "zero": "0"}
NUMBERS |= {word: str(n) for n, word in enumerate("one two three four five six seven eight nine ten".split(), start=1)}
ARTICLES = {"a", "an", "the"}
CONTRACTIONS = {
    whole.replace("'", ""): whole
    for whole in """
    ain't aren't can't couldn't could've didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's i'm i've
    isn't it'd
    it'll let's might've mightn't mustn't must've needn't oughtn't shan't should've shouldn't that's there'd there's they'd
    they'll
    they're they've wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've
    why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
    """.split()
}


def vqa_normalise(text: str) -> str:
    """The published normalisation of an answer."""
    text = re.sub(r"[\n\t]", " ", text).strip()
    comma = COMMA.search(text) is not None
    out = text
    for mark in PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside or comma else " ")
    out = PERIOD.sub("", out)
    words = [NUMBERS.get(w, w) for w in out.lower().split()]
    return " ".join(CONTRACTIONS.get(w, w) for w in words if w not in ARTICLES)


def has_word(answer: str, gold: str) -> bool:
    """Whether the gold answer occurs in the answer as whole words, both normalised."""
    wanted = vqa_normalise(gold)
    return bool(wanted) and re.search(rf"\b{re.escape(wanted)}\b", vqa_normalise(answer)) is not None


def reciprocal_rank(answer: str, golds: Sequence[str]) -> float:
    """1 / rank of the first gold answer, in their order, that the answer holds; 0 if it holds none."""
    return next((1 / rank for rank, gold in enumerate(golds, start=1) if has_word(answer, gold)), 0.0)


def word_f1(pairs: Iterable[tuple[str, str]]) -> tuple[float, float, float]:
    """Precision, recall and F1 of (answer, gold) pairs: words shared over the whole corpus, as multisets."""
    matched = said = wanted = 0
    for answer, gold in pairs:
        a, g = Counter(answer.split()), Counter(gold.split())
        matched += (a & g).total()
        said += a.total()
        wanted += g.total()
    precision, recall = matched / said if said else 0.0, matched / wanted if wanted else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if matched else 0.0


def class_mean(rows: Iterable[tuple[str, bool]]) -> float:
    """Mean over classes of their accuracies, from (class, right)."""
    right, total = Counter[str](), Counter[str]()
    for name, correct in rows:
        right[name] += correct
        total[name] += 1
    return sum(right[name] / n for name, n in total.items()) / len(total)


class WordMatchOptions(Options):
    """None."""


class WordMatch(AnswerMetric):
    """Right if the target, or one of the `answers` in the metadata, occurs in the answer as whole words."""

    Options = WordMatchOptions

    def score(self, sample: Sample, answer: Answer) -> Score:
        golds = [sample.target or "", *sample.metadata.get("answers", [])]
        return Score(float(any(has_word(answer.text, gold) for gold in golds)), vqa_normalise(answer.text))
