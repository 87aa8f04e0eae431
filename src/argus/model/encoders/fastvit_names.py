"""The names of published FastVLM checkpoints (arXiv 2412.13303), whose encoder is re-parameterised.

Their code lists all stages, the downsamplings between them and the position encodings in front of them in one `network.<i>`.
Checkpoints that are converted to timm's names are not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

PREFIX = re.compile(r"^(?:model\.)?(?:vision_tower\.){0,2}(?:model\.)?")
NAMES = [
    (re.compile(rf"^{pattern}"), name)
    for pattern, name in [
        (r"patch_embed\.(\d+)\.reparam_conv", r"stem.\1.fused"),
        (r"conv_exp\.reparam_conv", "expand.fused"),
        (r"conv_exp\.se", "squeeze"),
        (r"(stages\.\d+)\.proj\.(\d)\.(?:lkb_reparam|reparam_conv)", r"\1.down.\2.fused"),
        (r"(stages\.\d+)\.reparam_conv", r"\1.position.fused"),
        (r"(stages\.\d+)\.(\d+)\.token_mixer\.reparam_conv", r"\1.blocks.\2.mixer.fused"),
        (r"(stages\.\d+)\.(\d+)\.token_mixer\.(qkv|proj)", r"\1.blocks.\2.\3"),
        (r"(stages\.\d+)\.(\d+)\.convffn\.conv\.conv", r"\1.blocks.\2.ffn.depthwise"),
        (r"(stages\.\d+)\.(\d+)\.convffn\.conv\.bn", r"\1.blocks.\2.ffn.norm"),
        (r"(stages\.\d+)\.(\d+)\.convffn\.(fc\d)", r"\1.blocks.\2.ffn.\3"),
        (r"(stages\.\d+)\.(\d+)\.norm", r"\1.blocks.\2.norm1"),
        (r"(stages\.\d+)\.(\d+)\.layer_scale_([12])", r"\1.blocks.\2.scale\3"),
        (r"(stages\.\d+)\.(\d+)\.layer_scale", r"\1.blocks.\2.scale"),
    ]
]


def published_weights(stored: Mapping[str, Tensor], stages: int, attention_stages: int) -> dict[str, Tensor]:
    """Weights of a published checkpoint by the names of a fused `FastViTHD`; what belongs to other parts is left out.

    Args:
        stored: the checkpoint's tensors, those of language model, projector and classification head among them.
        stages, attention_stages: stages of the tower, and how many of the last attend.
    """
    places: dict[int, int] = {}
    for stage in range(stages):  # index in `network` -> stage
        for _ in range(1 + (stage > 0) + (stage >= stages - attention_stages)):
            places[len(places)] = stage
    found = {}
    for name, weight in stored.items():
        plain = PREFIX.sub("", name)
        plain = re.sub(r"^network\.(\d+)", lambda m: f"stages.{places.get(int(m[1]), m[1])}", plain)
        for pattern, replacement in NAMES:
            if pattern.match(plain):
                found[pattern.sub(replacement, plain)] = weight
                break
    return found
