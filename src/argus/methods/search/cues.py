"""What to look for: a question's visual cues, named by the language model in context (ZoomEye, arXiv 2411.16044).

Six questions with their answers stand in front of the real one, all of them text; an answer ends with a fixed phrase and the list

    ... So I have to look at: the A and the B.

A cue that begins with "all " asks for every thing of its kind. Cues with a pronoun ("his bag") refer to another one and are
dropped. The published code finds pronouns with a part-of-speech tagger; English has few of them, and a list does.
"""

from __future__ import annotations

import re

from argus.core.sample import Message, TextPart

PHRASE = "So I have to look at: "
EXAMPLES = (  # question, thought, cues
    ("What colour is the kite?", "It asks for the colour of one thing.", "kite"),
    ("Is the ladder to the left of the wheelbarrow?", "It compares where two things are.", "ladder and wheelbarrow"),
    ("How many sailing boats are on the lake?", "To count them I need every one.", "all sailing boats"),
    ("What does the sign above the bakery say?", "The words are on one sign.", "sign above the bakery"),
    (
        "Which is tallest: the lamp post, the fir or the tent?",
        "It compares three things.",
        "lamp post, fir and tent",
    ),
    ("What is the woman with the umbrella holding in her other hand?", "It is about one woman.", "woman with the umbrella"),
)
PRONOUNS = frozenset(
    """
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers herself
    it its itself they them their theirs themselves this that these those who whom whose which what something anything
    someone anyone everyone everything
    """.split()
)


def conversation(question: str) -> list[Message]:
    """The examples, and the question."""
    turns: list[Message] = []
    for asked, thought, cues in EXAMPLES:
        turns += [_turn("user", asked), _turn("assistant", f"{thought} {PHRASE}{cues}.")]
    return [*turns, _turn("user", question)]


def parse(text: str) -> list[str]:
    """The cues that an answer names; none where it does not follow the examples."""
    match = re.search(re.escape(PHRASE) + r"(.+)", text)
    if match is None:
        return []
    cues = [cue.strip() for cue in re.split(r",? and |, ", match.group(1).strip().removesuffix("."))]
    return [cue for cue in cues if cue and not PRONOUNS & set(re.findall(r"[a-z]+", cue.lower()))]


def _turn(role: str, text: str) -> Message:
    return Message("user" if role == "user" else "assistant", [TextPart(text)])
