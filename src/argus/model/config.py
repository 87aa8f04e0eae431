"""The config of a composed model: its parts, by name."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig

from argus.model.encoders.base import nested_config


class ArgusConfig(PretrainedConfig):
    """Parts of a composed model, by name.

    Args:
        vision_config: config of one of Argus's own towers, or any vision config of transformers.
        text_config: any causal language model's config.
        connector: {name: options} of the connector.
        view: {name: options} of the view.
        image_token_id: id of the placeholder.
        tag_length: tokens of the text that announces a tile; 0 for views without such text.
        instruction_config: config of the text tower that reads the question for connectors that want to know it.
        backbone: {name: options} of what is changed in the language model.
        picture_texts: ids of each text that the view may write, where tiles stay out of the sequence.
        tiles_per_pass: most tiles that the encoder takes at a time; all of a batch when None. It may change at any time.
    """

    model_type = "argus"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012

    def __init__(
        self,
        vision_config: PretrainedConfig | dict[str, Any] | None = None,
        text_config: PretrainedConfig | dict[str, Any] | None = None,
        connector: dict[str, dict[str, Any]] | None = None,
        view: dict[str, dict[str, Any]] | None = None,
        image_token_id: int = 3,
        tag_length: int = 0,
        instruction_config: PretrainedConfig | dict[str, Any] | None = None,
        backbone: dict[str, dict[str, Any]] | None = None,
        picture_texts: dict[str, list[int]] | None = None,
        tiles_per_pass: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.vision_config = nested_config(vision_config, "argus_vit")
        self.text_config = nested_config(text_config, "llama")
        self.connector = connector or {"mlp": {}}
        self.view = view or {"square": {}}
        self.image_token_id = image_token_id
        self.tag_length = tag_length
        self.backbone = backbone or {}
        self.picture_texts = picture_texts or {}
        self.tiles_per_pass = tiles_per_pass
        self.instruction_config = nested_config(instruction_config, "clip_text_model") if instruction_config else None
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, getattr(self.text_config, name, None))
        super().__init__(**kwargs)
