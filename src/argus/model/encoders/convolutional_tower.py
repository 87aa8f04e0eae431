"""ConvNeXt (A ConvNet for the 2020s, arXiv 2201.03545; V2, arXiv 2301.00808) of transformers as an encoder.

Stages of convolutions, each at half the size of the one before it: the cells of the last map are the tokens, and the maps of all
stages are there for connectors that read fine detail, as MG-LLaVA's (arXiv 2406.17770) does at 768 px.

    M_1 = S_1(stem(x)),  M_s = S_s(M_{s-1})          tokens = cells of M_S, in raster order

Shapes: pixels (B, 3, H, W) -> maps (B, C_s, H / (p 2^(s-1)), W / (p 2^(s-1))) -> tokens (B, N, C_S), N the cells of the last map,
p = 4 the stem's stride. No CLS and no position table: any multiple of the last stride works. `pooled` is the mean of the last
map, with the norm that the published classifiers have behind it. Options that choose a layer have no effect.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from argus.core.errors import UnsupportedError
from argus.model.encoders.base import Tower, in_passes
from argus.model.encoders.transformers_tower import side
from argus.model.features import VisualFeatures


class ConvolutionalTower(Tower, nn.Module):
    """Wraps a convolutional vision model of transformers.

    Args:
        config: its config.

    Attributes:
        map_widths: channels of each stage's map.
    """

    has_cls = False
    depth = 0

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = AutoModel.from_config(config)
        self.map_widths: tuple[int, ...] = tuple(config.hidden_sizes)
        self.hidden_size = self.map_widths[-1]
        self.patch_size = side(config.patch_size) * 2 ** (len(self.map_widths) - 1)
        self.image_size = side(config.image_size) // self.patch_size * self.patch_size

    def trunk(self) -> list[nn.Module]:
        return [block for stage in self.tower.encoder.stages for block in stage.layers]

    @in_passes
    def forward(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles.

        Args:
            pixel_values: (B, 3, H, W), normalised as the tower was trained.
            cls_attention: refused; there is no CLS token.
            hidden_states: has no effect; stages are of different sizes, and given as `feature_maps`.
            pooled: also give the mean of the last map behind the tower's norm.

        Raises:
            UnsupportedError: a CLS row was asked for.
        """
        if cls_attention:
            raise UnsupportedError(f"a {self.config.model_type} tower has no CLS token, so there is no CLS attention row")
        output = self.tower(pixel_values.to(next(self.tower.parameters()).dtype), output_hidden_states=True)
        maps = output.hidden_states[-len(self.map_widths) :]  # (B, C_s, H_s, W_s)
        last = maps[-1]
        return VisualFeatures(
            tokens=last.flatten(2).transpose(1, 2),
            grid=(last.shape[2], last.shape[3]),
            feature_maps=tuple(maps),
            pooled=output.pooler_output if pooled else None,
        )
