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
    Component("instruction", "shots", "argus.evaluation.instructions.shots:Shots", "answered examples in front of the question"),
    Component("instruction", "pool", "argus.evaluation.instructions.pool:Pool", "one of several wordings of the question"),
)
