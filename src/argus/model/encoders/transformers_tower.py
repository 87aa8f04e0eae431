"""Any vision transformer of transformers (CLIP, SigLIP, DINOv2, InternViT, ViT-MAE, ViT, ...) as an encoder.

SigLIP 2 (arXiv 2502.14786) in its NaFlex form, as NaViT (arXiv 2307.06304), reads rows of patches of pictures of any shape.

The tower's own modules do the work; this wrapper picks the layer, splits prefix tokens from patches, and reads the attention row
of the CLS query from the selected block's input as a hook sees it, so that the features are those of the plain tower.

Shapes: pixels (B, 3, H, W) -> tokens (B, N, C), raster order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import ConfigDict, Field, model_validator
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from argus.core.errors import ModelError, UnsupportedError, nearest
from argus.core.registry import Options
from argus.model.encoders.base import CONVOLUTIONAL, Tower, check_layer, in_passes
from argus.model.encoders.cls_row import cls_row, self_attention
from argus.model.features import VisualFeatures

# Prefix tokens in front of the patches by model type, CLS first; registers, where a config has them, come on top.
PREFIX = {
    "clip_vision_model": 1,
    "chinese_clip_vision_model": 1,
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "vit": 1,
    "vit_mae": 1,
    "vit_msn": 1,
    "deit": 2,  # CLS and the distillation token
    "internvl_vision": 1,
    "siglip_vision_model": 0,
    "siglip2_vision_model": 0,
    "aimv2_vision_model": 0,
    "ijepa": 0,
}

# Families that fit their position table to pictures of another size by themselves.
ANY_SIZE = {"dinov2", "dinov2_with_registers", "internvl_vision", "siglip2_vision_model"}

FLEX = "siglip2_vision_model"  # reads patches with their grid instead of pictures


class TransformersOptions(Options):
    """A stored vision model (`from`), or a config by type; all further keys are that config's own."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    reference: str | None = Field(None, alias="from", description="vision model to take with its weights: a folder or hub name")
    model_type: str | None = Field(None, description="type of transformers for new weights, e.g. clip_vision_model")
    feature_layer: int = Field(-2, description="layer whose states are the tokens; -2, the next to last, is LLaVA's choice")
    final_norm: bool = Field(False, description="take the last layer's states behind the tower's final norm instead")

    @model_validator(mode="after")
    def _one(self) -> TransformersOptions:
        if (self.reference is None) == (self.model_type is None):
            raise ValueError("give either 'from' (a stored model) or 'model_type' (new weights)")
        if self.reference is not None and self.model_extra:
            raise ValueError(f"a stored model has its sizes already; leave out {', '.join(self.model_extra)}")
        return self


class TransformersEncoder:
    """The registry's entry: options -> the config of a tower.

    Attributes:
        parts: the stored model, if the options name one.
    """

    Options = TransformersOptions

    def __init__(self, options: TransformersOptions) -> None:
        self.options = options
        self.parts = [options.reference] if options.reference else []

    def config(self, *stored: PretrainedConfig) -> PretrainedConfig:
        """Config of the tower."""
        own = {"reference", "feature_layer", "final_norm"}
        config = stored[0] if stored else AutoConfig.for_model(**self.options.model_dump(exclude=own))
        config.feature_layer, config.final_norm = self.options.feature_layer, self.options.final_norm
        return config


class TransformersTower(Tower, nn.Module):
    """Wraps a vision model of transformers.

    Args:
        config: its vision config. `feature_layer` in it is an index into the hidden states; -2, the next to last and LLaVA's
            choice, where it has none. With `final_norm` the tokens are the last layer's, behind the norm that follows it.

    Raises:
        UnsupportedError: a family whose token layout is not known here, a layer that it has not, or patches that are not square.

    Attributes:
        any_size: whether it reads pictures of other sizes than the one that it was trained on.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        kind = config.model_type
        if kind not in PREFIX:
            raise UnsupportedError(
                f"vision towers of type '{kind}' are not known.", hint=nearest(kind, [*PREFIX, *CONVOLUTIONAL])
            )
        if kind == "vit_mae":
            config.mask_ratio = 0.0  # a tower sees the whole picture
        self.config = config
        self.tower = AutoModel.from_config(config)
        self.final_norm = getattr(config, "final_norm", False)
        self.feature_layer = -1 if self.final_norm else getattr(config, "feature_layer", -2)
        self.has_cls = PREFIX[kind] > 0
        self.prefix = PREFIX[kind] + getattr(config, "num_register_tokens", 0)
        self.any_size, self.depth = kind in ANY_SIZE, config.num_hidden_layers
        check_layer(self.feature_layer, self.depth)
        self.hidden_size = config.hidden_size
        self.patch_size = side(config.patch_size)
        self.image_size = self.patch_size * math.isqrt(config.num_patches) if kind == FLEX else side(config.image_size)

    @in_passes
    def forward(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles.

        Args:
            pixel_values: (B, 3, H, W), normalised as the tower was trained.
            cls_attention: also give the CLS query's row of the block that made the tokens.
            hidden_states: also give every layer's states.
            pooled: also give the last layer's CLS token, or the mean of its patches where there is none.

        Raises:
            UnsupportedError: the row was asked of a tower without CLS.
        """
        if cls_attention and not self.has_cls:
            raise UnsupportedError(f"a {self.config.model_type} tower has no CLS token, so there is no CLS attention row")
        blocks = self.blocks()
        index = self.feature_layer % (len(blocks) + 1)  # hidden state `index` is the output of block `index - 1`
        if cls_attention and index == 0:
            raise UnsupportedError(
                "feature layer 0 is the patch embeddings: no block made them, so there is no CLS attention row"
            )
        inputs: list[Tensor] = []
        hook = None
        if cls_attention:
            attention = self_attention(blocks[index - 1])
            hook = attention.register_forward_pre_hook(
                lambda _, args, kwargs: inputs.append(_first(args, kwargs)), with_kwargs=True
            )
        try:
            given = self._patches(pixel_values) if self.config.model_type == FLEX else pixel_values
            output = self.tower(given.to(self.dtype), output_hidden_states=True, **self._extra(pixel_values))
        finally:
            if hook is not None:
                hook.remove()
        states = output.hidden_states
        if self.config.model_type == "vit_mae":  # it shuffles patches even unmasked
            states = [self._unshuffled(state, output.ids_restore) for state in states]
        state = output.last_hidden_state if self.final_norm else states[index]
        if self.final_norm and self.config.model_type == "vit_mae":
            state = self._unshuffled(state, output.ids_restore)
        tokens = state[:, self.prefix :]
        rows, columns = (s // self.patch_size for s in pixel_values.shape[-2:])
        row = cls_row(attention, inputs[0], self.config.num_attention_heads, self.prefix) if cls_attention else None
        if row is not None and self.config.model_type == "vit_mae":
            row = row.gather(2, output.ids_restore[:, None].expand_as(row))
        return VisualFeatures(
            tokens=tokens,
            grid=(rows, columns),
            cls=state[:, 0] if self.has_cls else None,
            prefix=state[:, : self.prefix] if self.prefix else None,
            cls_attention=row,
            hidden_states=tuple(states) if hidden_states else None,
            pooled=self._pooled(output.last_hidden_state) if pooled else None,
        )

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next(self.tower.parameters()).dtype

    def blocks(self) -> nn.ModuleList:
        """The tower's transformer blocks."""
        depth = self.config.num_hidden_layers
        for module in self.tower.modules():
            if isinstance(module, nn.ModuleList) and len(module) == depth:
                return module
        raise ModelError(f"no list of {depth} blocks in a {self.config.model_type} tower")

    def trunk(self) -> nn.ModuleList:
        return self.blocks()

    def _unshuffled(self, state: Tensor, restore: Tensor) -> Tensor:
        patches = state[:, self.prefix :]
        patches = patches.gather(1, restore[..., None].expand_as(patches))
        return torch.cat([state[:, : self.prefix], patches], 1)

    def _pooled(self, last: Tensor) -> Tensor:
        return last[:, 0] if self.has_cls else last[:, self.prefix :].mean(1)

    def unread(self, name: str) -> bool:
        """Whether a weight of the plain tower plays no part in what it gives: poolers, and norms behind all blocks."""
        paths = [n for n, m in self.tower.named_modules() if m is self.blocks() or "embeddings" in n.split(".")[-1]]
        if self.final_norm and "norm" in name:
            return False
        return not any(path and name.startswith(f"{path}.") for path in paths)

    def _extra(self, pixels: Tensor) -> dict[str, Any]:
        if self.config.model_type == "vit_mae":
            # Fixed noise keeps the (then undone) shuffle, and so the result, the same in every call.
            count = (pixels.shape[-2] // self.patch_size) * (pixels.shape[-1] // self.patch_size)
            noise = torch.arange(count, device=pixels.device, dtype=torch.float32)
            return {"noise": noise.expand(len(pixels), -1)}
        if self.config.model_type == FLEX:
            grid = torch.tensor([s // self.patch_size for s in pixels.shape[-2:]], device=pixels.device)
            every = torch.ones(len(pixels), int(grid.prod()), dtype=torch.long, device=pixels.device)
            return {"spatial_shapes": grid.expand(len(pixels), 2), "pixel_attention_mask": every}
        return {}

    def _patches(self, pixels: Tensor) -> Tensor:
        """Rows of patches: (B, 3, H, W) -> (B, N, p p 3)."""
        p = self.patch_size
        x = pixels.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # (B, 3, h, p, w, p)
        return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def side(given: int | Sequence[int]) -> int:
    """Side of a square that a config may state by height and width.

    Raises:
        UnsupportedError: height and width differ.
    """
    sides = {given} if isinstance(given, int) else set(given)
    if len(sides) != 1:
        raise UnsupportedError(f"towers read square pictures in square patches, not of {' x '.join(map(str, sides))} px")
    return int(sides.pop())


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
