"""COMM: features of many layers of two encoders, merged with learned weights and joined on the channels.

From CLIP to DINO: Visual Encoders Shout in Multi-modal Large Language Models (arXiv 2310.08825). Shallow layers of a contrastive
encoder help to locate, a self-supervised one sees finer detail; all layers of the first and the deep ones of the second count.

    v_t = sum_i a_ti (W_ti LN_ti(x_ti) + b_ti)          over the layers i of tower t ("LLN-LayerScale")
    f   = [v_1; MLP(v_2)]                               MLP: C -> r C, GELU, -> C aligns the second tower

Shapes: pixels (B, 3, H, W) -> tokens (B, N, C_1 + C_2) on the first tower's grid; `linear` is the paper's connector.
Layer i is the output of block i, 1 to L. Prefix tokens are dropped. All towers see the same picture, each normalised with its
own mean and deviation; a grid of another size is resampled bilinearly to the first one's.

The paper released no code. r = 8 and the layers (all of CLIP's 24, 19 to 24 of DINOv2's) are its; a starts at 1 / layers, and the
maps W at torch's default, which it leaves open. `mean` and `select` are the variants of its study.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from argus.core.errors import UnsupportedError
from argus.core.registry import Options
from argus.model.encoders.base import Tower, build_tower, in_passes, nested_config
from argus.model.encoders.pixel_statistics import pixel_statistics
from argus.model.encoders.transformers_tower import TransformersTower
from argus.model.features import VisualFeatures

Merge = Literal["lln", "mean", "select"]


class BranchOptions(Options):
    """One tower and how its layers are merged."""

    encoder: str | dict[str, dict[str, Any]] = Field(description="the encoder: a stored model, or {name: options}")
    layers: tuple[int, ...] | None = Field(
        None, min_length=1, description="layers, 1 to L; all of the first tower and the deepest quarter of the others by default"
    )
    merge: Merge = Field(
        "lln", description="learned maps and weights; the plain mean; or one layer (the encoder's own by default)"
    )
    align: int | None = Field(
        None, ge=0, description="widening r of the MLP behind the merge, 0 for none; 0 for the first tower and 8 for the others"
    )

    @model_validator(mode="after")
    def _one_layer(self) -> BranchOptions:
        if self.merge == "select" and self.layers is not None and len(self.layers) != 1:
            raise ValueError(f"merge: select takes one layer, not {len(self.layers)}")
        return self


class CommOptions(Options):
    """The towers."""

    towers: tuple[BranchOptions, ...] = Field(min_length=1, max_length=4, description="the towers; the first gives the grid")


class CommConfig(PretrainedConfig):
    """Config of the towers and of what merges their layers.

    Args:
        encoder_configs: config of each tower.
        branches: layers, merge and align of each tower, see `BranchOptions`.
    """

    model_type = "argus_comm"

    def __init__(
        self,
        encoder_configs: Sequence[PretrainedConfig | dict[str, Any]] = ({}, {}),
        branches: Sequence[dict[str, Any]] = ({}, {}),
        **kwargs: Any,
    ) -> None:
        configs = [nested_config(given, "argus_vit") for given in encoder_configs]
        self.encoder_configs = [config.to_dict() for config in configs]
        self.branches = [
            _resolved(config, dict(branch), first=not i) for i, (config, branch) in enumerate(zip(configs, branches, strict=True))
        ]
        mean, std = pixel_statistics(configs[0])
        self.image_mean, self.image_std = list(mean), list(std)
        super().__init__(**{k: v for k, v in kwargs.items() if k not in ("image_mean", "image_std")})


def _resolved(config: PretrainedConfig, branch: dict[str, Any], first: bool) -> dict[str, Any]:
    """A branch with its defaults filled in.

    Raises:
        UnsupportedError: layers that the tower has not.
    """
    merge, layers, align = branch.get("merge", "lln"), branch.get("layers"), branch.get("align")
    depth = getattr(getattr(config, "encoder_config", config), "num_hidden_layers", None)
    if depth is None and (merge != "select" or layers is not None):
        raise UnsupportedError(
            f"comm: a tower of type '{config.model_type}' gives no layers to merge.", hint="Use merge: select without layers."
        )
    if layers is None and merge != "select":
        assert depth is not None
        layers = range(1 if first else depth - max(depth // 4, 1) + 1, depth + 1)
    for layer in layers or ():
        if not 1 <= layer <= depth:
            raise UnsupportedError(f"comm: there is no layer {layer} in a tower of type '{config.model_type}' with 1 to {depth}")
    return {
        "merge": merge,
        "layers": None if layers is None else list(layers),
        "align": (0 if first else 8) if align is None else align,
    }


class CommEncoder:
    """The registry's entry: options -> the config of the towers together.

    Attributes:
        parts: the encoders inside.
    """

    Options = CommOptions

    def __init__(self, options: CommOptions) -> None:
        self.options = options
        self.parts = [branch.encoder for branch in options.towers]

    def config(self, *encoders: PretrainedConfig) -> CommConfig:
        """Config of the tower around the encoders'."""
        return CommConfig(encoders, [branch.model_dump(exclude={"encoder"}) for branch in self.options.towers])


class LayerMerge(nn.Module):
    """States of some layers, (B, P + N, C) each -> (B, N, C), then the aligning MLP.

    Args:
        width: C.
        layers: indices into the states; None takes the tokens as they are.
        merge, align: see `BranchOptions`.
    """

    def __init__(self, width: int, layers: Sequence[int] | None, merge: Merge, align: int) -> None:
        super().__init__()
        self.layers, self.merge = layers, merge
        learned = {f"layer_{i}": i for i in layers or ()} if merge == "lln" else {}
        # By layer's name, so that weights of another set of layers do not fit by accident.
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in learned})
        self.maps = nn.ModuleDict({name: nn.Linear(width, width) for name in learned})
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.tensor(1 / len(learned))) for name in learned})
        hidden = align * width
        self.align = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)) if align else nn.Identity()

    def forward(self, features: VisualFeatures) -> Tensor:
        if self.layers is None:
            return self.align(features.tokens)
        assert features.hidden_states is not None
        count, total = features.tokens.shape[1], torch.zeros_like(features.tokens)
        for layer in self.layers:
            x, name = features.hidden_states[layer][:, -count:], f"layer_{layer}"
            if self.merge == "lln":
                total = total + self.weights[name] * self.maps[name](self.norms[name](x))
            else:
                total = total + x / len(self.layers)
        return self.align(total)


class Comm(Tower, PreTrainedModel):
    """Pixels (B, 3, H, W) -> `VisualFeatures`.

    Raises:
        UnsupportedError: a tower that reads another size of pictures than the first one's, and nothing else.
    """

    config_class = CommConfig
    main_input_name = "pixel_values"
    base_model_prefix = "comm"
    _keep_in_fp32_modules_strict = ["weights.layer_"]  # noqa: RUF012  the weights a, whatever the type of the maps

    def __init__(self, config: CommConfig) -> None:
        super().__init__(config)
        configs = [nested_config(given, "argus_vit") for given in config.encoder_configs]
        self.towers = nn.ModuleList(build_tower(one) for one in configs)
        towers: list[Any] = list(self.towers)
        self.merges = nn.ModuleList(
            LayerMerge(tower.hidden_size, **branch) for tower, branch in zip(towers, config.branches, strict=True)
        )
        self.patch_size, self.image_size = towers[0].patch_size, towers[0].image_size
        self.has_cls, self.depth = False, 0
        self.hidden_size = sum(tower.hidden_size for tower in towers)
        for tower in towers:
            fixed = isinstance(tower, TransformersTower) and not tower.any_size
            if self.image_size % tower.patch_size or (fixed and tower.image_size != self.image_size):
                raise UnsupportedError(
                    f"comm: the first tower's pictures have {self.image_size} px, but one of type '{tower.config.model_type}' "
                    f"reads {tower.image_size} px in patches of {tower.patch_size} px"
                )
        self.statistics = [pixel_statistics(one) for one in configs]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """What merges the layers starts as it was made."""

    def last_blocks(self, count: int, layer: int | None = None) -> list[nn.Module]:
        """As of every tower; where layers are merged, up to the deepest of them."""
        pairs: list[Any] = list(zip(self.towers, self.merges, strict=True))
        return [b for tower, merge in pairs for b in tower.last_blocks(count, max(merge.layers) if merge.layers else None)]

    def layer_weights(self) -> list[dict[int, float]]:
        """The learned weight a of each layer, per tower."""
        merges: list[Any] = list(self.merges)
        return [{int(n.removeprefix("layer_")): a.item() for n, a in merge.weights.items()} for merge in merges]

    def normalised(self, pixels: Tensor, tower: int) -> Tensor:
        """Pixels that were normalised for the first tower, normalised for another one."""
        (mean, std), (own_mean, own_std) = (
            [pixels.new_tensor(v).view(1, 3, 1, 1) for v in self.statistics[i]] for i in (0, tower)
        )
        return pixels if self.statistics[0] == self.statistics[tower] else (pixels * std + mean - own_mean) / own_std

    @in_passes
    def forward(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles.

        Args:
            pixel_values: (B, 3, H, W), normalised with the first tower's mean and std.
            cls_attention: refused; CLS tokens are dropped.
            hidden_states: has no effect; the layers are merged.
            pooled: also give the mean of the tokens.
        """
        if cls_attention:
            raise UnsupportedError("COMM merges patch tokens alone and has no CLS token, so there is no CLS attention row")
        grid, parts = (0, 0), []
        for index, (tower, merge) in enumerate(zip(self.towers, self.merges, strict=True)):
            features = tower(self.normalised(pixel_values, index), hidden_states=merge.layers is not None)
            tokens = merge(features)  # (B, n, C_t)
            grid = grid if index else features.grid
            if features.grid != grid:
                maps = tokens.transpose(1, 2).unflatten(2, features.grid).float()
                maps = F.interpolate(maps, size=grid, mode="bilinear", align_corners=False)
                tokens = maps.flatten(2).transpose(1, 2).to(tokens.dtype)
            parts.append(tokens)
        tokens = torch.cat(parts, -1)  # (B, N, sum of C_t)
        return VisualFeatures(tokens=tokens, grid=grid, pooled=tokens.mean(1) if pooled else None)


AutoConfig.register("argus_comm", CommConfig, exist_ok=True)
AutoModel.register(CommConfig, Comm, exist_ok=True)
