"""The Q-Former: a few learned queries read a picture, and a text may run beside them.

BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language Models (arXiv 2301.12597). Queries
and text share the self-attention of a BERT; queries alone look at the picture, in every second block, and each of the two has
feed-forward layers of its own. A mask says what the three pre-training tasks let them see of each other.

    q, t = SelfAttn([q; t], mask);  q = q + CrossAttn(q, picture) in blocks 0, 2, ...;  q, t = FFN_q(q), FFN_t(t)

    separate   queries see queries, text sees text                       image-text contrast
    joint      everything sees everything                                image-text matching
    causal     queries see queries, text sees queries and earlier text   image-grounded text generation

Shapes: picture (B, N, C), text (B, S) -> states (B, Q, W) and (B, S, W). Sizes are BERT-base's, and the blocks are transformers'
`Blip2QFormerModel`, so BLIP-2's weights load under its names. Without `words` there is no text branch: a language model that
reads the queries needs none.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel, Blip2TextEmbeddings

import argus.model.attention  # noqa: F401  registers "matmul"
from argus.core.errors import UnsupportedError
from argus.core.registry import Options

Sight = Literal["separate", "joint", "causal"]


class QFormerOptions(Options):
    """Sizes of a Q-Former."""

    queries: int = Field(32, ge=1, description="Q, learned queries, and so visual tokens of a tile")
    width: int = Field(768, ge=8, description="W of queries and text")
    layers: int = Field(12, ge=1, description="blocks")
    heads: int = Field(12, ge=1, description="attention heads; divides the width")
    hidden: int = Field(3072, ge=8, description="width of the feed-forward layers")
    cross_every: int = Field(2, ge=1, description="one block in so many looks at the picture, the first of them included")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in training, BERT's")
    words: int = Field(0, ge=0, description="vocabulary of the text branch; 0 leaves it out")
    max_length: int = Field(512, ge=2, description="positions of the text branch")
    contrast: int = Field(256, ge=1, description="width of the space in which pictures and texts are compared")

    @model_validator(mode="after")
    def _heads(self) -> QFormerOptions:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class TextBranch(nn.Module):
    """What only text needs: embeddings, and the heads of the three tasks.

    Attributes:
        embeddings: words and positions.
        look, read: projections of queries and of the text's first state, to be compared; `temperature` divides.
        match: whether picture and text belong together, of each query.
        transform, bias: words are predicted as BERT does, by the embeddings themselves.
    """

    def __init__(self, config: Blip2QFormerConfig, contrast: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.embeddings = Blip2TextEmbeddings(config)
        self.look, self.read = nn.Linear(width, contrast), nn.Linear(width, contrast)
        self.match = nn.Linear(width, 2)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=config.layer_norm_eps))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.temperature = nn.Parameter(torch.tensor(0.07))
        nn.init.normal_(self.embeddings.word_embeddings.weight, std=config.initializer_range)
        nn.init.normal_(self.embeddings.position_embeddings.weight, std=config.initializer_range)

    def predictions(self, states: Tensor) -> Tensor:
        """Logits (..., V) of the words that follow states (..., W)."""
        return F.linear(self.transform(states), self.embeddings.word_embeddings.weight, self.bias)


class QFormer(nn.Module):
    """Queries, blocks and, with words, the text branch.

    Args:
        vision_width: C of the picture's tokens.
    """

    def __init__(self, options: QFormerOptions, vision_width: int) -> None:
        super().__init__()
        config = Blip2QFormerConfig(
            vocab_size=max(options.words, 1),
            hidden_size=options.width,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            intermediate_size=options.hidden,
            hidden_dropout_prob=options.dropout,
            attention_probs_dropout_prob=options.dropout,
            max_position_embeddings=options.max_length,
            cross_attention_frequency=options.cross_every,
            encoder_hidden_size=vision_width,
            use_qformer_text_input=options.words > 0,
            pad_token_id=None,
        )
        # Plain matrix products, whose backward pass is the faster one on CPUs.
        self.former = Blip2QFormerModel._from_config(config, attn_implementation="matmul")
        self.queries = nn.Parameter(torch.empty(1, options.queries, options.width))
        nn.init.normal_(self.queries, std=config.initializer_range)
        self.text = TextBranch(config, options.contrast) if options.words else None

    def branch(self) -> TextBranch:
        """The text branch.

        Raises:
            UnsupportedError: there is none.
        """
        if self.text is None:
            raise UnsupportedError("this Q-Former has no text branch.", hint="Give its connector `words`, the tokenizer's size.")
        return self.text

    def forward(self, picture: Tensor) -> Tensor:
        """States (B, Q, W) of the queries alone."""
        queries = self.queries.repeat(len(picture), 1, 1)
        return self.former(query_embeds=queries, encoder_hidden_states=picture).last_hidden_state

    def with_text(self, picture: Tensor, ids: Tensor, mask: Tensor, sight: Sight) -> tuple[Tensor, Tensor]:
        """States of the queries (B, Q, W) and of the text (B, S, W).

        Args:
            picture: (B, N, C).
            ids, mask: (B, S) words, and which of them are no padding.
            sight: what sees what, see above.
        """
        count = self.queries.shape[1]
        both = self.branch().embeddings(input_ids=ids, query_embeds=self.queries.expand(len(ids), -1, -1))  # (B, Q + S, W)
        output = self.former(
            query_embeds=both,
            query_length=count,
            attention_mask=visible(count, mask, sight)[:, None],
            encoder_hidden_states=picture,
        )
        states = output.last_hidden_state
        return states[:, :count], states[:, count:]


def visible(queries: int, mask: Tensor, sight: Sight) -> Tensor:
    """What row i may see of column j: bool (B, Q + S, Q + S) for texts with a padding mask (B, S).

    Padding is seen by nothing but itself, so that no row is empty.
    """
    length = queries + mask.shape[1]
    row, column = torch.arange(length, device=mask.device)[:, None], torch.arange(length, device=mask.device)[None]
    asks, told = row < queries, column < queries
    rules = {
        "separate": asks == told,
        "joint": torch.ones(length, length, dtype=torch.bool, device=mask.device),
        "causal": told | (~asks & (column <= row)),
    }
    there = torch.cat([mask.new_ones(len(mask), queries), mask], 1).bool()  # (B, Q + S)
    return (rules[sight] & there[:, None]) | (row == column)
