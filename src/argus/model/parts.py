"""The parts of a composed model: built from its config, held to each other, started anew where no file holds their weights."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import AutoModel, PreTrainedModel

import argus.model.attention  # noqa: F401  registers "matmul"
from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.model.backbones.base import Backbone
from argus.model.backbones.fusion import Fusion, check_view
from argus.model.config import ArgusConfig
from argus.model.connectors.base import Connector, build_connector
from argus.model.encoders.base import build_tower
from argus.model.prefix_lm import PrefixLM
from argus.model.views.assembly import Assembly
from argus.model.views.base import View


class ArgusPreTrainedModel(PreTrainedModel):
    """What `ArgusModel` and `ArgusForConditionalGeneration` share."""

    config_class = ArgusConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, Assembly | Connector | Backbone):
            module.reset_parameters()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """As in transformers; a connector or backbone is drawn where a file lacks weights of its parts, not only its own.

        Weights that were loaded stay: while this runs, `nn.init` leaves them alone.
        """
        whole = all(getattr(weight, "_is_hf_initialized", False) for weight in module.parameters())
        super()._initialize_weights(module, is_custom_code and (whole or not isinstance(module, Connector | Backbone)))


class ArgusParts(ArgusPreTrainedModel):
    """Vision tower, connector and language model, and what was changed in it."""

    def __init__(self, config: ArgusConfig) -> None:
        super().__init__(config)
        tower: Any = build_tower(config.vision_config)
        self.vision_tower = tower
        words = config.instruction_config
        self.instruction_tower: Any = AutoModel.from_config(words) if words else None
        self.multi_modal_projector = build_connector(
            config.connector,
            vision_width=tower.hidden_size,
            text_width=config.text_config.hidden_size,
            grid=(tower.image_size // tower.patch_size,) * 2,
            instruction_width=words.hidden_size if words else None,
            map_widths=getattr(tower, "map_widths", None),
        )
        self.language_model = AutoModel.from_config(config.text_config)
        if config.backbone and isinstance(self.language_model, PrefixLM):
            raise UnsupportedError(
                f"backbone '{next(iter(config.backbone))}' changes the layers of a decoder that reads pictures, and in an "
                "encoder-decoder the encoder reads them.",
                hint="Choose a causal language model.",
            )
        changes = [build("backbone", *one, language_model=self.language_model) for one in config.backbone.items()]
        for change in changes:
            self.add_module(change.part, change)
        self._backbones = [change.part for change in changes]
        self.fusion: Fusion = next((c.fusion for c in changes if c.fusion != "decoder"), "decoder")  # how pictures enter
        self.image_assembly = Assembly(self.view, config.text_config.hidden_size)
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuse parts that do not work together.

        Raises:
            UnsupportedError: the reason.
        """
        connector, depth = self.multi_modal_projector, self.vision_tower.depth
        name, view = next(iter(self.config.connector)), next(iter(self.config.view))
        if self.view.tiled and connector.reads_boxes:
            raise UnsupportedError(
                f"connector '{name}' looks for boxes in one tile of the whole picture, and view '{view}' cuts several.",
                hint="Use the view 'square'.",
            )
        check_view(self.view, view, self.fusion)
        if self.fusion != "decoder" and connector.reads_boxes:
            raise UnsupportedError(f"connector '{name}' has tokens of boxes, which need their places in the sequence.")
        if self.view.reads_rows and not connector.spatial:
            raise UnsupportedError(
                f"view '{view}' reads visual tokens row by row, and those of connector '{name}' have no places in the picture.",
                hint="Choose a view that reads tile by tile: square, internvl, nvlm, ferret_ui, tokenpacker_hd.",
            )
        words = self.config.instruction_config
        if connector.reads_instruction and words is not None:
            longest, blocks = words.max_position_embeddings, words.num_hidden_layers
            if connector.options.text_length > longest:
                raise UnsupportedError(
                    f"connector '{name}' reads {connector.options.text_length} tokens of the instruction, and the text tower "
                    f"knows positions for {longest}.",
                    hint=f"Give it text_length: {longest}.",
                )
            if not -blocks - 1 <= connector.options.text_layer <= blocks:
                raise UnsupportedError(
                    f"connector '{name}' reads layer {connector.options.text_layer} of the text tower, which has {blocks} blocks."
                )
        if connector.levels and not depth:
            raise UnsupportedError(
                f"connector '{name}' reads hidden states, and the encoder {type(self.vision_tower).__name__} gives none on the "
                "grid of its tokens."
            )
        if any(not -depth - 1 <= level <= depth for level in connector.levels):
            raise UnsupportedError(
                f"connector '{name}' reads the hidden states {list(connector.levels)}, and the encoder has {depth} blocks.",
                hint="Give it other levels; 0 are the embeddings.",
            )

    def get_input_embeddings(self) -> nn.Embedding:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @property
    def view(self) -> View:
        """The view that the config names."""
        return build("view", *next(iter(self.config.view.items())))
