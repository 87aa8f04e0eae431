"""Objectives: (model, batch) -> loss with named parts."""

from argus.core.registry import Component

COMPONENTS = (
    Component("objective", "contrastive", "argus.training.objectives.contrastive:Contrastive", "CLIP loss, and dense targets"),
    Component("objective", "language", "argus.training.objectives.language:Language", "next-token loss on texts"),
    Component(
        "objective", "naming", "argus.training.objectives.naming:Naming", "visual tokens start as the words of their patches"
    ),
    Component("objective", "sft", "argus.training.objectives.sft:SFT", "answers of conversations about pictures"),
)
