"""Decoding: how the next token is chosen, by contrast with what the model would say without (most of) the picture.

`contrastive` runs a second branch beside the model and combines the two; a method of the package says what that branch is shown.
"""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "decoding",
        "damro",
        "argus.methods.decoding.damro:Damro",
        "subtract what a few outlier patches alone suggest, those that the vision encoder attends to most",
        "damro",
    ),
)
