"""EMMA: Efficient Visual Alignment in Multi-Modal LLMs (arXiv 2410.02080): the question is mixed into the picture early.

The text tower that was trained with the vision tower reads the instruction; its tokens are mapped to the vision width and mixed
into the patches by one matrix over the *token* axis, which starts as the identity on the picture. What follows is LLaVA's MLP.

    T' = GELU(W_t T + b_t)                              T (B, L, W) -> (B, L, C)
    V* = W [V; T'] + b,  W = [I | 0], b = 0 at first     V (B, N, C), W (N, N + L), b (N,) -> V* (B, N, C)
    v  = MLP(V*)                                        (B, N, D)

L = 77 tokens: start, instruction, end, zeros. The text tower is causal and gets no mask, so padding is read too, and its columns
of W are trained: it has to be that of the checkpoint. For CLIP ViT-L/14-336 (N 576, C 1024, W 768) 1,164,160 weights are new.

Constants are the paper's: layer -2 of the text tower, all positions, N and L as in CLIP. The published code has two variants
that are not in the paper's results. Its v3 leaves W and b as they were trained before and adds a table, V* + E, E (N, C) from 0;
that is `variant: v3`, whose W starts from `connector_weights`. Its v2, learnable tokens in place of text, does not run as
released and is left out. There a dialogue's shortest question is the instruction of its picture in training, and its first line
when asked; here it is the first question's first line in both. `pool`, from the MLP, is not the paper's.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from argus.core.errors import ModelError, UnsupportedError
from argus.model.connectors.base import ConnectorContext
from argus.model.connectors.mlp import MLP, MLPOptions
from argus.model.features import VisualFeatures

SELECT = {"cls_patch": slice(None), "patch": slice(1, None), "cls": slice(0, 1)}


class EMMAOptions(MLPOptions):
    """What is read of the instruction."""

    text_layer: int = Field(-2, description="layer of the text tower whose states are read")
    text_length: int = Field(77, ge=3, description="tokens of the instruction L, start, end and padding included")
    text_select: Literal["cls_patch", "patch", "cls"] = Field(
        "cls_patch", description="all positions of the instruction, all but the first, or the first alone"
    )

    variant: Literal["v1", "v3"] = Field("v1", description="learn the mixing matrix, or a table beside one that stays as it is")


class Infusion(nn.Module):
    """V* = W F + b over the token axis: (B, M, C) -> (B, N, C). Starts as the first N tokens as they are.

    No `nn.Linear`, whose weights a model draws anew when it is made. What does not learn are buffers, which no stage can train.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, given: int, wanted: int, learns: bool) -> None:
        super().__init__()
        for name, start in (("weight", torch.eye(wanted, given)), ("bias", torch.zeros(wanted))):  # [I | 0]
            if learns:
                self.register_parameter(name, nn.Parameter(start))
            else:
                self.register_buffer(name, start)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.matmul(self.weight, tokens) + self.bias[:, None]


class EMMA(MLP):
    """The mixing matrix in front of LLaVA's MLP."""

    Options: ClassVar[type[EMMAOptions]] = EMMAOptions
    options: EMMAOptions
    reads_instruction = True

    def __init__(
        self, options: EMMAOptions, *, vision_width: int, text_width: int, grid: tuple[int, int], instruction_width: int | None
    ) -> None:
        if instruction_width is None:
            raise UnsupportedError(
                "emma needs the text tower that belongs to the vision tower, and this model has none.",
                hint="Name a dual encoder (CLIP, argus/tiny-clip) as encoder or as instruction_encoder.",
            )
        super().__init__(options, vision_width=vision_width, text_width=text_width)
        self.mixes_tokens = True
        self.count = grid[0] * grid[1]
        words = len(range(options.text_length)[SELECT[options.text_select]])
        self.text_projection = nn.Linear(instruction_width, vision_width)
        self.image_text_infusion = Infusion(self.count + words, self.count, learns=options.variant == "v1")
        self.image_table = nn.Parameter(torch.zeros(self.count, vision_width)) if options.variant == "v3" else None

    def fuse(self, tokens: Tensor, instruction: Tensor) -> Tensor:
        """V* (B, N, C) of patches (B, N, C) and the text tower's states (B, L, W).

        Raises:
            UnsupportedError: another number of patches than W was made for.
        """
        if tokens.shape[1] != self.count:
            raise UnsupportedError(
                f"emma mixes {self.count} patches with the instruction, but the picture has {tokens.shape[1]}."
            )
        words = F.gelu(self.text_projection(instruction[:, SELECT[self.options.text_select]].to(tokens.dtype)))  # (B, L, C)
        fused = self.image_text_infusion(torch.cat([tokens, words], 1))  # (B, N, C)
        return fused if self.image_table is None else fused + self.image_table

    def forward(self, features: VisualFeatures, context: ConnectorContext | None = None) -> Tensor:
        if context is None or context.instruction is None:
            raise ModelError(
                "emma's visual tokens depend on the instruction, and none was given",
                hint="Prepare text and pictures in one call of the processor, and pass its instruction_ids.",
            )
        return self.project(self.fuse(features.tokens, context.instruction), features.grid)
