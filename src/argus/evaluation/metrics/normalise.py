"""Named, versioned forms in which answers are compared; a changed rule gets a new name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_DIGITS = {word: str(number) for number, word in enumerate(NUMBERS)}
_EDGE = re.compile(r"^[^\w\-+%$€£]+|[^\w%]+$")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")


def exact(text: str) -> str:
    """The answer without blanks around it."""
    return text.strip()


def text_1(text: str) -> str:
    """Compatibility forms of characters unified, lower case, single blanks, no punctuation around words.

    Signs that belong to a number (-, +, %, currency) stay; punctuation inside a word (3.5, x-ray) stays.
    """
    words = unicodedata.normalize("NFKC", text).lower().split()
    return " ".join(word for word in (_EDGE.sub("", w) for w in words) if word)


def number_1(text: str) -> str:
    """`text-1`, then number words up to twenty as digits, and 1,000 as 1000."""
    words = _THOUSANDS.sub("", text_1(text)).split()
    return " ".join(_DIGITS.get(word, word) for word in words)


NORMALISATIONS: dict[str, Callable[[str], str]] = {"exact": exact, "text-1": text_1, "number-1": number_1}
