"""Inferencers: how an answer is read out of a model."""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "inferencer",
        "likelihood",
        "argus.evaluation.inferencers.likelihood:Likelihood",
        "the option the model finds likeliest",
    ),
    Component("inferencer", "generate", "argus.evaluation.inferencers.generate:Generate", "what the model writes, greedily"),
)
