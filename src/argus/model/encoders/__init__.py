"""Encoders: pixels (B, 3, H, W) -> VisualFeatures."""

from argus.core.registry import Component

COMPONENTS = (
    Component(
        "encoder",
        "vit",
        "argus.model.encoders.vit:ViTEncoder",
        "plain pre-norm ViT with CLS and a cheap CLS attention row",
    ),
    Component(
        "encoder",
        "transformers",
        "argus.model.encoders.transformers_tower:TransformersEncoder",
        "any vision tower of transformers (CLIP, SigLIP, DINOv2, InternViT, MAE, ConvNeXt)",
    ),
    Component(
        "encoder", "s2", "argus.model.encoders.s2:S2Encoder", "one encoder at several scales, joined on the channels", paper="s2"
    ),
    Component(
        "encoder",
        "vitamin",
        "argus.model.encoders.vitamin:ViTaminEncoder",
        "convolution stages, then a ViT with gated MLPs at stride 16",
        paper="vitamin",
    ),
    Component(
        "encoder",
        "fastvit_hd",
        "argus.model.encoders.fastvit_hd:FastViTHDEncoder",
        "five stages to stride 64, re-parameterised for use: few tokens, fast",
        paper="fastvlm",
    ),
    Component(
        "encoder",
        "comm",
        "argus.model.encoders.comm:CommEncoder",
        "many layers of two encoders, merged with learned weights",
        paper="comm",
    ),
    Component(
        "encoder",
        "low_high",
        "argus.model.encoders.low_high:LowHighEncoder",
        "tokens of one encoder that looks small, maps of another that looks large",
        paper="mg-llava",
    ),
)
