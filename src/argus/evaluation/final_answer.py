"""The final answer of a response that may reason first: named and versioned, like every extraction.

`final-answer-1`:  hidden thoughts are cut; then the line behind the last "answer:", "answer is" or "answer" at its beginning,
or in `\\boxed{}`; else a sentence that concludes ("so", "therefore", ...), if it is the last one; else the whole of a
response that is one short sentence. What refuses or asks back is none.
"""

from __future__ import annotations

import re

SHORT = 8  # words of a response that can be nothing but an answer
_THOUGHT = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_MARKED = re.compile(r"(?:\banswer\s+is\b|\banswer\s*:|(?:^|[.;\n])[ *]*answer\b(?=\s+\S))\s*:?[\s*]*", re.IGNORECASE)
_CONCLUDES = re.compile(r"^(?:so|therefore|thus|hence|in conclusion)\b[,:]?\s*(?=\S)", re.IGNORECASE)
_REFUSES = re.compile(
    r"\b(?:i (?:cannot|can't|can not|do not|don't|am not|am unable)|i'm (?:not|unable|sorry)|unable to|not sure|unclear|unknown"
    r"|cannot be (?:determined|answered))\b|\?\s*$",
    re.IGNORECASE,
)


def visible(response: str) -> str:
    """A response without its hidden thoughts.

    >>> visible("<think>Two? No.</think>Three.")
    'Three.'
    """
    return _THOUGHT.sub("", response).strip()


def final_answer_1(response: str) -> str | None:
    """The final answer; None where a response gives none.

    >>> final_answer_1("The top left is 3; 3 and 2 make 1; answer 1"), final_answer_1("I cannot tell.")
    ('1', None)
    """
    text = visible(response)
    marks = [one.end() for one in _MARKED.finditer(text)]
    boxed = _BOXED.findall(text)
    sentences = [one.strip() for one in re.split(r"(?<=[.!?])\s+|\n", text) if one.strip()]
    if boxed or marks:
        found = boxed[-1] if boxed else text[marks[-1] :].partition("\n")[0]
    elif sentences and (said := _CONCLUDES.match(sentences[-1])):
        found = sentences[-1][said.end() :]
    else:
        found = text if len(sentences) == 1 and len(text.split()) <= SHORT else ""
    found = found.strip(" .*")
    return None if not found or _REFUSES.search(found) else found
