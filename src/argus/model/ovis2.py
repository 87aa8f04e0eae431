"""Published Ovis2 models as composed ones, so that their parts meet everything else.

Ovis: Structural Embedding Alignment for Multimodal Large Language Model (arXiv 2405.20797); transformers holds its later versions
as `ovis2`: an AIMv2 tower read behind its final norm, windows of patches, the visual vocabulary, and a language model.

    composed = compose_ovis2(AutoModelForImageTextToText.from_pretrained("thisisiron/Ovis2-1B-hf"))

There the indicators (a picture's begin and end, ...) are words of the prompt, whose embeddings give way to the visual table's
last rows. Here those rows are copied into the word table, so they are ordinary words: prompts and logits are the same, but for
the logits of the indicators themselves where the head is tied to the words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor
from transformers import Aimv2VisionConfig, Ovis2ForConditionalGeneration

from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig

NAMES = [
    (
        re.compile(r"^model\.vision_tower\.transformer\.embeddings\.patch_embedding"),
        "model.vision_tower.tower.embeddings.patch_embed",
    ),
    (re.compile(r"^model\.vision_tower\.transformer"), "model.vision_tower.tower"),
    (re.compile(r"^model\.vision_tower\.head_linear"), "model.multi_modal_projector.head"),
    (re.compile(r"^model\.vision_tower\.head_norm"), "model.multi_modal_projector.norm"),
    (re.compile(r"^model\.visual_embeddings_table"), "model.multi_modal_projector.table"),
]
OWN = ("model_type", "vocab_size", "hidden_stride", "num_visual_indicator_tokens", "tokenize_function")  # not the tower's


def published_weights(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of an `ovis2` checkpoint by the names of a composed model."""
    found = {}
    for name, weight in stored.items():
        for pattern, replacement in NAMES:
            if pattern.match(name):
                name = pattern.sub(replacement, name)
                break
        found[name] = weight
    return found


@torch.no_grad()
def compose_ovis2(model: Ovis2ForConditionalGeneration) -> ArgusForConditionalGeneration:
    """The composed model with the weights of a loaded Ovis2."""
    given = model.config
    vision = given.vision_config
    sizes = {name: value for name, value in vision.to_dict().items() if name not in OWN}
    connector = {
        "vocabulary": vision.vocab_size,
        "indicators": vision.num_visual_indicator_tokens,
        "framed": False,
        "stride": vision.hidden_stride,
        "tokenize": vision.tokenize_function,
    }
    config = ArgusConfig(
        Aimv2VisionConfig(**sizes, use_head=False, final_norm=True),
        given.text_config,
        connector={"ovis": connector},
        image_token_id=given.image_token_id,
    )
    composed = ArgusForConditionalGeneration(config).to(model.dtype).eval()
    composed.load_state_dict(published_weights(model.state_dict()))
    ids = torch.tensor(given.visual_indicator_token_ids)
    composed.get_input_embeddings().weight[ids] = composed.model.multi_modal_projector.table.weight[-len(ids) :]
    return composed
