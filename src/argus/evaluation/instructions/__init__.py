"""Instructions: how a question is put to the model."""

from argus.core.registry import Component

COMPONENTS = (
    Component("instruction", "plain", "argus.evaluation.instructions.plain:Plain", "the question as it stands"),
    Component(
        "instruction",
        "options",
        "argus.evaluation.instructions.lettered:Lettered",
        "the question with lettered options",
    ),
    Component("instruction", "blind", "argus.evaluation.instructions.blind:Blind", "the question without its picture"),
    Component("instruction", "leading", "argus.evaluation.instructions.leading:Leading", "a wrong answer named first"),
    Component(
        "instruction",
        "statement",
        "argus.evaluation.instructions.statement:Statement",
        "options as texts, for dual encoders",
    ),
    Component(
        "instruction",
        "corrupted",
        "argus.evaluation.instructions.corrupted:Corrupted",
        "a worse picture, worse words, options out of order, at severities 0 to 5",
        "chef",
    ),
    Component(
        "instruction", "mapped", "argus.evaluation.instructions.mapped:Mapped", "options by other names, told in a rule", "chef"
    ),
    Component(
        "instruction",
        "query",
        "argus.evaluation.instructions.query:Query",
        "one query of a task's pool, options printed and lettered as in ChEF",
        "chef",
    ),
    Component(
        "instruction", "wordless", "argus.evaluation.instructions.wordless:Wordless", "the picture without its question", "chef"
    ),
    Component("instruction", "shots", "argus.evaluation.instructions.shots:Shots", "answered examples in front of the question"),
    Component("instruction", "pool", "argus.evaluation.instructions.pool:Pool", "one of several wordings of the question"),
)
