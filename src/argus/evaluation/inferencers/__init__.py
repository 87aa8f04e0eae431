"""Inferencers: how an answer is read out of a model."""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "inferencer",
        "likelihood",
        "argus.evaluation.inferencers.likelihood:Likelihood",
        "the option the model finds likeliest",
    ),
    Component(
        "inferencer",
        "dialogue",
        "argus.evaluation.inferencers.dialogue:Dialogue",
        "turn by turn, with the model's own earlier answers in the conversation",
        "mmdu",
    ),
    Component("inferencer", "generate", "argus.evaluation.inferencers.generate:Generate", "what the model writes, greedily"),
    Component(
        "inferencer",
        "search",
        "argus.evaluation.inferencers.search:SearchFirst",
        "another inferencer's answer, from the part of the picture that a search found",
    ),
    Component(
        "inferencer",
        "drawn",
        "argus.evaluation.inferencers.drawn:Drawn",
        "the option, a picture, that is most like what the model draws",
        "seed-bench-2",
    ),
    Component("inferencer", "stored", "argus.evaluation.inferencers.stored:Stored", "answers from a file of predictions"),
)
