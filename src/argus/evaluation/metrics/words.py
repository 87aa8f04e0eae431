"""Word matching, as LVLM-eHub scores free answers (arXiv 2306.09265): right if a gold answer occurs as whole words.

Both sides are normalised in this order: line breaks and tabs to blanks; punctuation dropped beside a blank or where the text
has a comma between digits, else replaced by a blank; periods not before a digit dropped; lower case; number words to digits;
articles dropped; contractions restored. An answer that names several options is right for each of them: the rule is kept for
comparison with published numbers, `accuracy` is the strict one. A gold answer that normalises to nothing is never found.

Classes and words in pictures (OCR) are compared by another form: lower case, and nothing but letters, digits and blanks, so that
"Golden-Retriever" is no "golden retriever". `form: letters` asks for it.

    word_match       right if a gold answer is found
    class_match      the same for names of classes; `class_match[per class]` is the mean over classes of their accuracies
    reciprocal_rank  1 / rank of the first candidate answer that is found (Visdial), the candidates in the order of the list
    word_f1          words shared with the target (KIE); `[precision]`, `[recall]`, `[f1]` count them over the whole corpus

Gold answers are the target and the metadata's `answers`; they are read, never changed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from argus.core.registry import Options
from argus.core.sample import Sample
from argus.evaluation.inferencers.base import Answer
from argus.evaluation.metrics.base import AnswerMetric, NoOptions, Score

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


def without_marks(text: str) -> str:
    """A text without line breaks, punctuation and periods."""
    text = re.sub(r"[\n\t]", " ", text).strip()
    comma = COMMA.search(text) is not None
    out = text
    for mark in PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside or comma else " ")
    return PERIOD.sub("", out)


def vqa_normalise(text: str) -> str:
    """The published normalisation of an answer."""
    words = [NUMBERS.get(w, w) for w in without_marks(text).lower().split()]
    return " ".join(CONTRACTIONS.get(w, w) for w in words if w not in ARTICLES)


def letters(text: str) -> str:
    """Lower case, and only letters, digits and blanks; what else there is leaves no blank behind."""
    return re.sub(r"[^a-zA-Z0-9 ]", "", text).lower()


FORMS: dict[str, Callable[[str], str]] = {"vqa": vqa_normalise, "letters": letters}


def has_word(answer: str, gold: str, form: str = "vqa") -> bool:
    """Whether the gold answer occurs in the answer as whole words, both in the same form."""
    normal = FORMS[form]
    wanted = normal(gold)
    return bool(wanted.strip()) and re.search(rf"\b{re.escape(wanted)}\b", normal(answer)) is not None


def golds(sample: Sample) -> list[str]:
    """All right answers of a sample, the target first."""
    return [sample.target or "", *sample.metadata.get("answers", [])]


class WordMatchOptions(Options):
    """How texts are compared."""

    form: Literal["vqa", "letters"] = Field("vqa", description="normalisation of VQA, or letters, digits and blanks alone")


class WordMatch(AnswerMetric):
    """Right if the target, or one of the `answers` in the metadata, occurs in the answer as whole words."""

    Options = WordMatchOptions
    options: WordMatchOptions

    def score(self, sample: Sample, answer: Answer) -> Score:
        form = self.options.form
        return Score(float(any(has_word(answer.text, gold, form) for gold in golds(sample))), FORMS[form](answer.text))


class ClassMatchOptions(Options):
    """What counts as a class's name."""

    rule: Literal["word", "exact"] = Field("word", description="the name occurs in the answer, or it is the answer")


class ClassMatch(AnswerMetric):
    """Right if the answer names the class of the picture."""

    Options = ClassMatchOptions
    options: ClassMatchOptions

    def score(self, sample: Sample, answer: Answer) -> Score:
        wanted, said = letters(sample.target or ""), letters(answer.text)
        right = bool(said) and said == wanted if self.options.rule == "exact" else has_word(said, wanted, "letters")
        return Score(float(right), said, labels=(wanted if right else f"not {wanted}", wanted))


class ReciprocalRank(AnswerMetric):
    """1 / rank of the first candidate that the answer holds as whole words; 0 if it holds none."""

    Options = NoOptions

    def score(self, sample: Sample, answer: Answer) -> Score:
        ranks = (1 / rank for rank, gold in enumerate(golds(sample), start=1) if has_word(answer.text, gold))
        return Score(next(ranks, 0.0), vqa_normalise(answer.text))


class WordF1(AnswerMetric):
    """F1 of the words of an answer and of the target, as multisets; the published numbers are the ratios over the corpus."""

    Options = NoOptions

    def score(self, sample: Sample, answer: Answer) -> Score:
        said, wanted = Counter(answer.text.split()), Counter((sample.target or "").split())
        shared, both = (said & wanted).total(), said.total() + wanted.total()
        ratios = {
            "precision": (float(shared), float(said.total())),
            "recall": (float(shared), float(wanted.total())),
            "f1": (2.0 * shared, float(both)),  # 2 P R / (P + R) of the sums
        }
        return Score(2 * shared / both if both else 0.0, answer.text, ratios)
