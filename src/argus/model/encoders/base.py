"""What a vision tower is to the rest of Argus: a module whose forward gives `VisualFeatures`."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from argus.core.errors import UnsupportedError
from argus.model.features import VisualFeatures

# Argus's own towers by the model type of their config; all other types are towers of transformers, see `build_tower`.
TOWERS = {
    "argus_vit": "argus.model.encoders.vit:ViT",
    "argus_s2": "argus.model.encoders.s2:S2",
    "argus_vitamin": "argus.model.encoders.vitamin:ViTamin",
    "argus_fastvit_hd": "argus.model.encoders.fastvit_hd:FastViTHD",
    "argus_comm": "argus.model.encoders.comm:Comm",
    "argus_low_high": "argus.model.encoders.low_high:LowHigh",
}
CONVOLUTIONAL = ("convnext", "convnextv2")  # of transformers, whose tokens are the cells of a last map


@runtime_checkable
class Encoder(Protocol):
    """The contract of `model.vision_tower`.

    Attributes:
        hidden_size: width C of the tokens.
        patch_size, image_size: sides in pixels of a patch and of the picture it was trained on.
        has_cls: whether there is a CLS token, and so a CLS attention row.
        depth: blocks whose states it gives on the tokens' grid when asked; 0 for none.
    """

    hidden_size: int
    patch_size: int
    image_size: int
    has_cls: bool
    depth: int

    def __call__(
        self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False, pooled: bool = False
    ) -> VisualFeatures:
        """Encode tiles (B, 3, H, W)."""
        ...


def build_tower(config: PretrainedConfig) -> nn.Module:
    """The tower for a vision config: one of Argus's own, or a tower of transformers."""
    kind = config.model_type
    foreign = "convolutional_tower:ConvolutionalTower" if kind in CONVOLUTIONAL else "transformers_tower:TransformersTower"
    target = TOWERS.get(kind, f"argus.model.encoders.{foreign}")
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)(config)


def register_towers() -> None:
    """Let transformers' Auto classes know Argus's own towers."""
    for target in TOWERS.values():
        import_module(target.partition(":")[0])


def check_layer(layer: int, depth: int) -> None:
    """Refuse a feature layer that a tower of so many blocks has not.

    Raises:
        UnsupportedError: there is no such hidden state.
    """
    if not -depth - 1 <= layer <= depth:
        raise UnsupportedError(
            f"feature_layer: there is no hidden state {layer} in a tower of {depth} blocks.",
            hint=f"0 are the embeddings, {depth} is behind the last block, and negative numbers count from the end.",
        )


def nested_config(given: PretrainedConfig | dict[str, Any] | None, default: str) -> PretrainedConfig:
    """The config of a part, which a saved config holds as a mapping; `default` is the type of one that names none.

    The type of the weights that such a mapping may hold is left out: a part has that of the whole.
    """
    if isinstance(given, PretrainedConfig):
        return given
    values = {key: value for key, value in (given or {}).items() if key != "dtype"}
    kind = values.pop("model_type", default)
    if kind in TOWERS:
        import_module(TOWERS[kind].partition(":")[0])
    return AutoConfig.for_model(kind, **values)
