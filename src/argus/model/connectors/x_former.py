"""X-Former: a Q-Former whose queries also read a second encoder, which was trained to fill in what is hidden.

X-Former: Unifying Contrastive and Reconstruction Learning for MLLMs (arXiv 2407.13851). A contrastive encoder knows what things
are, a masked autoencoder how they look. The second one's features are enriched with the first one's, and the queries with those;
that a masked picture can be filled in with what the queries know makes them keep detail.

    M' = FFN(M + Attn(M, C));  Z' = FFN(Z + g Attn(Z, M'))          Z the states of the Q-Former's queries, which read C
    R  = FFN(M' + Attn(M', Z')) -> decoder -> hidden patches        in pre-training alone
    v  = W Z' + b

Shapes: tokens (B, N, C_c + C_m), the contrastive tower's channels first, as the encoder `comm` with `merge: select` gives them;
Z, Z' (B, Q, W); M' (B, N, W), of the visible patches alone where patches are hidden; v (B, Q, D).

The authors released no code. Order, W = 768, 12 heads, one fusion layer, 32 queries and half of the patches hidden are the
paper's as far as it says; norms in front and the feed-forward width (BERT's) are choices. Both encoders' features are brought
to W by a matrix; CLS tokens, which `comm` drops, are not read. Gates g start at 1; with `identity_start` at 0, where the
connector is the plain Q-Former. A text that is generated about the picture reads Z' by one more gated attention behind its
last block, since the blocks themselves know only Z. The decoder is MAE's (arXiv 2111.06377), with its sizes.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor, cat, full, nn
from transformers import ViTMAEConfig
from transformers.models.vit_mae.modeling_vit_mae import ViTMAEDecoder

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.connectors.qformer import QFormerBridge, QFormerBridgeOptions
from argus.model.features import VisualFeatures


class DecoderOptions(Options):
    """Sizes of the decoder that fills in hidden patches."""

    width: int = Field(512, ge=8, description="width")
    layers: int = Field(8, ge=1, description="blocks")
    heads: int = Field(16, ge=1, description="attention heads; divides the width")
    hidden: int = Field(2048, ge=8, description="width of the feed-forward layers")
    patch: int = Field(14, ge=1, description="side of a patch of the masked autoencoder, in pixels")


class XFormerOptions(QFormerBridgeOptions):
    """Sizes of the Q-Former, the fusion and the decoder."""

    through: int | None = Field(
        None, ge=1, description="width between two matrices behind the queries; one matrix when not given"
    )
    contrastive_width: int = Field(1408, ge=1, description="leading channels of the tokens, which are the contrastive tower's")
    fusion: int = Field(1, ge=1, description="fusion layers")
    identity_start: bool = Field(False, description="start as the plain Q-Former")
    decoder: DecoderOptions | None = Field(None, description="decoder for pre-training by reconstruction; none when not given")


class Reading(nn.Module):
    """x + g Attn(LN x, LN y), then the same with a feed-forward layer.

    Args:
        width, heads, hidden: of x and y, and of the feed-forward layer.
        gate: start of g.
    """

    def __init__(self, width: int, heads: int, hidden: int, gate: float = 1.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm_x, self.norm_y, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.gate = nn.Parameter(full((2,), gate))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        q = self.query(self.norm_x(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, h, X, d)
        k, v = self.key_value(self.norm_y(y)).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        seen = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v
        x = x + self.gate[0] * self.out(seen.transpose(1, 2).flatten(2))
        return x + self.gate[1] * self.feed(self.norm(x))


class XFormer(QFormerBridge):
    """Q-Former, fusion and, for pre-training, decoder.

    Args:
        grid: rows and columns of patches at the trained size, as the decoder knows them.

    Raises:
        UnsupportedError: an encoder with no channels beside the contrastive tower's.
    """

    Options = XFormerOptions
    options: XFormerOptions

    def __init__(self, options: XFormerOptions, *, vision_width: int, text_width: int, grid: tuple[int, int]) -> None:
        own, width = options.contrastive_width, options.width
        if own >= vision_width:
            raise UnsupportedError(
                f"x_former: {vision_width} channels leave none for a masked autoencoder behind {own} contrastive ones.",
                hint="Its encoder is comm with two towers; contrastive_width is the first one's width.",
            )
        super().__init__(options, vision_width=own, text_width=text_width)
        sizes = (width, options.heads, options.hidden)
        gate = 0.0 if options.identity_start else 1.0
        self.semantic, self.detail = nn.Linear(own, width), nn.Linear(vision_width - own, width)
        self.enrich = nn.ModuleList(Reading(*sizes) for _ in range(options.fusion))
        self.absorb = nn.ModuleList(Reading(*sizes, gate=gate) for _ in range(options.fusion))
        self.tell = Reading(*sizes, gate=gate) if options.words else None
        self.restore = Reading(*sizes) if options.decoder else None
        self.decoder = masked_decoder(options.decoder, width, grid) if options.decoder else None
        # The matrices that make visual tokens stay the last ones.
        last: list[Any] = [self._modules.pop(name) for name in ("project", "project_2")]
        self.project, self.project_2 = last

    def entries(self) -> tuple[nn.Module, ...]:
        return self.vision_norm, self.semantic, self.detail

    def picture(self, features: VisualFeatures) -> Tensor:
        return self.vision_norm(features.tokens[..., : self.vision_width])

    def fuse(self, queries: Tensor, semantic: Tensor, detail: Tensor) -> tuple[Tensor, Tensor]:
        """Z' (B, Q, W) and M' (B, V, W).

        Args:
            queries: Z (B, Q, W).
            semantic: tokens of the contrastive tower (B, N, C_c).
            detail: tokens of the masked autoencoder (B, V, C_m), of all patches or of the visible ones.
        """
        known, shown = self.semantic(semantic), self.detail(detail)
        for enrich, absorb in zip(self.enrich, self.absorb, strict=True):
            shown = enrich(shown, known)
            queries = absorb(queries, shown)
        return queries, shown

    def fused(self, queries: Tensor, features: VisualFeatures) -> Tensor:
        semantic, detail = features.tokens.tensor_split([self.vision_width], -1)
        return self.fuse(queries, semantic, detail)[0]

    def told(self, text: Tensor, queries: Tensor) -> Tensor:
        """States of a text (B, S, W) that also read the fused queries (B, Q, W)."""
        assert self.tell is not None  # there is a text, so there is a text branch
        return self.tell(text, queries)

    def decode(self, shown: Tensor, restore: Tensor) -> Tensor:
        """Pixels (B, N, 3 p p) of all patches from states (B, V, W) of the visible ones.

        Args:
            restore: (B, N) place of each patch among the visible ones and, behind them, the hidden ones.

        Raises:
            UnsupportedError: there is no decoder.
        """
        if self.decoder is None:
            raise UnsupportedError("this connector has no decoder.", hint="Give it sizes of one: decoder: {patch: 14}.")
        return filled_in(self.decoder, shown, restore)

    def reconstruct(self, shown: Tensor, queries: Tensor, restore: Tensor) -> Tensor:
        """As `decode`, from M' (B, V, W) once it has read Z' (B, Q, W)."""
        return self.decode(shown if self.restore is None else self.restore(shown, queries), restore)


def filled_in(decoder: ViTMAEDecoder, shown: Tensor, restore: Tensor) -> Tensor:
    """Pixels (B, N, 3 p p) of all patches, see `XFormer.decode`; there is no CLS token, so zeros stand in its place."""
    no_cls = shown.new_zeros(len(shown), 1, shown.shape[-1])
    return decoder(cat([no_cls, shown], 1), restore).logits


def masked_decoder(options: DecoderOptions, width: int, grid: tuple[int, int]) -> ViTMAEDecoder:
    """A new decoder over states of a width."""
    config = ViTMAEConfig(
        hidden_size=width,
        decoder_hidden_size=options.width,
        decoder_num_hidden_layers=options.layers,
        decoder_num_attention_heads=options.heads,
        decoder_intermediate_size=options.hidden,
        patch_size=options.patch,
        attn_implementation="eager",
    )
    return ViTMAEDecoder(config, grid[0] * grid[1])
