"""Connectors that start from standardised features, so that a language model can tell visual tokens apart from the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import UnsupportedError
from argus.core.registry import build, components
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.image_processor import ArgusImageProcessor


@torch.no_grad()
def standardise_connector(model: ArgusForConditionalGeneration, scenes: int) -> None:
    """Start the connector from standardised features.

    A tower's residual stream has a large part that all patches share; visual tokens made from it look alike (cosine 0.96 for
    tiny-clip), and a language model takes long to tell them apart. Mean m and deviation s of each channel over `scenes` pictures
    of every domain are folded into what meets the features first (`Connector.entries`), so the architecture is unchanged: into a
    matrix as W' = W / s and b' = b - W' m, into a norm as gain 1 / s and shift -m / s of what it normalised. The last matrix is
    scaled so that visual tokens are as large as embedded words.

    Raises:
        UnsupportedError: a connector that does not say what meets the features first, or that reads an instruction or boxes.
    """
    tower, connector = model.model.vision_tower, model.model.multi_modal_projector
    size, entries = tower.image_size, connector.entries()
    if not entries or connector.reads_instruction or connector.reads_boxes:
        why = "does not say which weights meet the features first"
        if connector.reads_instruction or connector.reads_boxes:
            why = f"reads {'the instruction' if connector.reads_instruction else 'boxes'} too"
        raise UnsupportedError(f"a {type(connector).__name__} connector cannot be standardised: it {why}")
    process = ArgusImageProcessor(size, tower.patch_size, None, *pixel_statistics(tower.config))
    domains = [build("domain", row.name) for row in components("domain")]
    pixels = [d.draw("train", i, size, 0).pixels for d in domains for i in range(scenes)]
    batches = [process(pixels[i : i + 64])["pixel_values"] for i in range(0, len(pixels), 64)]
    seen = [model.model.encode_images(batch, hidden_states=bool(connector.levels)) for batch in batches]
    matrices = [module for module in connector.modules() if isinstance(module, nn.Linear)]
    for matrix in matrices:
        matrix.weight.normal_(std=matrix.in_features**-0.5)
    met: dict[nn.Module, list[Tensor]] = {entry: [] for entry in entries}
    hooks = [e.register_forward_pre_hook(lambda module, args: met[module].append(args[0].flatten(0, -2))) for e in entries]
    for features in seen:
        connector(features)
    for hook in hooks:
        hook.remove()
    for entry, inputs in met.items():
        _standardise(entry, torch.cat(inputs))
    made = torch.cat([connector(features) for features in seen[:4]])
    for part in matrices[-1].parameters():
        part.mul_(model.get_input_embeddings().weight.std() / made.std())


def _standardise(entry: Any, inputs: Tensor) -> None:
    """Fold mean and deviation of the inputs (n, C) into a matrix or a norm."""
    if isinstance(entry, nn.LayerNorm):
        inputs = F.layer_norm(inputs, entry.normalized_shape, eps=entry.eps)
    mean, deviation = inputs.mean(0), inputs.std(0).clamp(min=1e-4)  # (C,)
    if isinstance(entry, nn.LayerNorm):
        entry.weight.copy_(1 / deviation)
        entry.bias.copy_(-mean / deviation)
        return
    entry.weight.div_(deviation)
    if entry.bias is not None:
        entry.bias.copy_(-entry.weight @ mean)
    else:  # a matrix whose rows are orthogonal to the mean does not see it
        entry.weight.sub_(torch.outer(entry.weight @ mean, mean) / mean.square().sum())
