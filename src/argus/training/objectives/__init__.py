"""Objectives: (model, batch) -> loss with named parts."""

from argus.core.registry import Component

COMPONENTS = (
    Component("objective", "aim_icl", "argus.training.objectives.aim_icl:AimTraining", "answers behind virtual tokens", "aim"),
    Component(
        "objective",
        "atp_llava",
        "argus.training.objectives.atp_llava:ThresholdTraining",
        "answers through soft masks of visual tokens, towards a number of them",
        "atp-llava",
    ),
    Component("objective", "contrastive", "argus.training.objectives.contrastive:Contrastive", "CLIP loss, and dense targets"),
    Component("objective", "copying", "argus.training.objectives.copying:Copying", "random tokens that are said twice"),
    Component("objective", "dense", "argus.training.objectives.dense:Dense", "what lies on each patch, from a tower's tokens"),
    Component(
        "objective",
        "dynamic_llava",
        "argus.training.objectives.dynamic_llava:DynamicLlavaTraining",
        "answers while few visual and about half of the generated tokens are seen",
        "dynamic-llava",
    ),
    Component("objective", "dyvte", "argus.training.objectives.dyvte:ExitTraining", "after which layer pictures can go", "dyvte"),
    Component("objective", "language", "argus.training.objectives.language:Language", "next-token loss on texts"),
    Component("objective", "mae", "argus.training.objectives.mae:MAE", "hidden patches from those that are seen", "x-former"),
    Component(
        "objective", "naming", "argus.training.objectives.naming:Naming", "visual tokens start as the words of their patches"
    ),
    Component(
        "objective",
        "ola_vlm",
        "argus.training.objectives.ola_vlm:OlaVLM",
        "answers, and what experts know of the picture from the language model's layers",
        "ola-vlm",
    ),
    Component(
        "objective",
        "probe",
        "argus.training.objectives.probe:Probe",
        "how well what experts know can be read from each layer of a frozen language model",
        "ola-vlm",
    ),
    Component(
        "objective",
        "qformer",
        "argus.training.objectives.qformer:QFormerPretraining",
        "contrast, matching, generation and reconstruction for a Q-Former",
        "x-former",
    ),
    Component("objective", "sft", "argus.training.objectives.sft:SFT", "answers of conversations about pictures"),
)
