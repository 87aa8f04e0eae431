"""What a vision tower is to the rest of Argus: a module whose forward gives `VisualFeatures`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig

from argus.core.errors import RecipeError, UnsupportedError
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
        self,
        pixel_values: Tensor,
        *,
        cls_attention: bool = False,
        hidden_states: bool = False,
        pooled: bool = False,
        tiles_per_pass: int | None = None,
    ) -> VisualFeatures:
        """Encode tiles (B, 3, H, W), so many at a time; all at once when not given (see `in_passes`)."""
        ...


class Tower:
    """What towers, which are modules beside it, have in common: how they are while they learn, and their blocks by number.

    Attributes:
        feature_layer: the hidden state that is given as tokens; 0 are the embeddings, -1 is behind the last block.
    """

    feature_layer: int = -1

    def train(self: Any, mode: bool = True) -> Any:
        """As in PyTorch; what does not learn stays as in evaluation: its norms keep their statistics, nothing is dropped."""
        nn.Module.train(self, mode)
        for module in self.modules() if mode else ():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.train(False)
        return self

    def reparameterise(self) -> None:
        """Fold what only helps to learn; the same function of the pixels. A tower that is folded learns no more."""

    def trunk(self) -> Iterable[nn.Module]:
        """The blocks that a picture passes, first to last; none of a tower that is made of others."""
        return ()

    def last_blocks(self, count: int, layer: int | None = None) -> list[nn.Module]:
        """The last blocks that its tokens come through; of each, where it is made of several towers.

        Args:
            layer: the hidden state that is read, if another than `feature_layer`.

        Raises:
            RecipeError: there are fewer.
        """
        towers: Any = getattr(self, "towers", ())
        if towers:
            return [block for tower in towers for block in tower.last_blocks(count)]
        blocks = list(self.trunk())
        blocks = blocks[: (self.feature_layer if layer is None else layer) % (len(blocks) + 1)]
        if count > len(blocks):
            raise RecipeError(f"tokens of this {type(self).__name__} come through {len(blocks)} blocks, not through {count}.")
        return blocks[-count:]


def in_passes(forward: Callable[..., VisualFeatures]) -> Callable[..., VisualFeatures]:
    """A tower's forward that can take its tiles some at a time.

    Tiles are encoded each by itself, so the features are the same, and what the blocks need at once is what one pass needs: a
    picture of 4K is 56 tiles in InternLM-XComposer2-4KHD (arXiv 2404.06512). Who listens to the tower sees one call.
    """

    @wraps(forward)
    def passes(self: Any, pixel_values: Tensor, *, tiles_per_pass: int | None = None, **asked: bool) -> VisualFeatures:
        if tiles_per_pass is None or len(pixel_values) <= tiles_per_pass:
            return forward(self, pixel_values, **asked)
        return VisualFeatures.join([forward(self, some, **asked) for some in pixel_values.split(tiles_per_pass)])

    return passes


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
