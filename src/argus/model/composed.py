"""A multimodal model composed of parts: view, encoder, connector, language model.

The attribute names are LLaVA's (`vision_tower`, `multi_modal_projector`, `language_model`, `lm_head`), the classes are
registered with the Auto classes, and the model is saved as safetensors: `generate`, `pipeline`, PEFT and TRL work unchanged.

    pixels (T, 3, H, W) -> encoder -> (T, N, C) -> connector -> (T, M, D) -> placeholders of the sequence (B, S, D) -> logits

With a view of several tiles the sizes of the pictures say how their tiles are put together (`Assembly`), learned separators
between them, and how many positions each has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.llava.modeling_llava import LlavaCausalLMOutputWithPast, LlavaModelOutputWithPast
from transformers.utils.generic import can_return_tuple

import argus.model.attention  # noqa: F401  registers "matmul"
from argus.core.errors import ModelError, UnsupportedError
from argus.core.registry import build
from argus.model.backbones.base import Backbone, Pass
from argus.model.backbones.fusion import Crossed, Fusion, block, check_view, crossed_tiles, find, fused, mark
from argus.model.connectors.base import Connector, ConnectorContext, budget_grid, build_connector
from argus.model.encoders.base import build_tower, nested_config
from argus.model.encoders.vit import ViTConfig
from argus.model.features import VisualFeatures
from argus.model.token_map import ANSWER, PAD, SPECIAL, Filling, TokenMap, chunk_map, filling, mark_tags, plain
from argus.model.views.assembly import Assembly
from argus.model.views.base import Arrangement, View, places


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
        self.instruction_config = nested_config(instruction_config, "clip_text_model") if instruction_config else None
        kwargs.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, getattr(self.text_config, name, None))
        super().__init__(**kwargs)


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


class ArgusModel(ArgusPreTrainedModel):
    """Vision tower, connector and language model, without the head."""

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
        changes = [build("backbone", *one, language_model=self.language_model) for one in config.backbone.items()]
        for change in changes:
            self.add_module(change.part, change)
        self._backbones = [change.part for change in changes]
        self.fusion: Fusion = next((c.fusion for c in changes if c.fusion != "decoder"), "decoder")  # how pictures enter
        self.image_assembly = Assembly(self.view, config.text_config.hidden_size)
        self._check_parts()
        self.token_map: TokenMap | None = None  # of the sequence that runs through the layers
        self.prompt_length: int | None = None  # while generating: positions from here on are the model's own
        self.prompt_counts: list[int] | None = None  # while generating: placeholders of each prompt
        self._grid = self.visual_grid()  # of the pictures that were encoded last
        self.asked_tokens: int | None = None  # visual tokens that were asked of each of their tiles
        self._pictures: list[Arrangement] | None = None  # those that were encoded last, where they have several tiles
        self._filling: Filling | None = None  # which prompts show them
        self.prompt_ids: Tensor | None = None  # while generating, where tiles stay out of the sequence: the prompts
        self._crossed: Crossed | None = None  # such tiles of the pictures that were encoded last, until a pass reads them
        self._marks: tuple[int, Tensor, Tensor] | None = None  # first position, pictures and tiles of the prompt that runs
        self.post_init()

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

    def encode_images(self, pixel_values: Tensor, *, cls_attention: bool = False, hidden_states: bool = False) -> VisualFeatures:
        """Features of tiles (T, 3, H, W), before the connector."""
        return self.vision_tower(pixel_values, cls_attention=cls_attention, hidden_states=hidden_states)

    @property
    def view(self) -> View:
        """The view that the config names."""
        return build("view", *next(iter(self.config.view.items())))

    def get_image_features(
        self,
        pixel_values: Tensor,
        image_sizes: Tensor | None = None,
        visual_tokens: int | None = None,
        return_dict: bool = False,
        instruction_ids: Tensor | None = None,
        boxes: Tensor | None = None,
    ) -> Tensor | list[Tensor] | BaseModelOutputWithPooling:
        """Visual tokens (T, M, D) of tiles (T, 3, H, W); with a view of several tiles, what each picture (n, D) becomes.

        Where tiles stay out of the sequence, theirs stand behind those that are in it.

        Args:
            image_sizes: (P, 2) height and width of each picture in pixels, which such views need.
            visual_tokens: how many visual tokens a tile becomes, where the connector can choose; its most when not given.
            return_dict: as `pooler_output` of an output object, which is how `generate` wants them.
            instruction_ids: (T, L) the question that is asked of each tile, for connectors that read it.
            boxes: (T, K, 4) boxes of interest, see `ConnectorContext`, for connectors that read them.
        """
        connector = self.multi_modal_projector
        height, width = pixel_values.shape[-2:]
        self._grid = self.visual_grid(height, width, visual_tokens)
        self.asked_tokens = visual_tokens
        seen = self.encode_images(pixel_values, hidden_states=bool(connector.levels))
        asked = None if instruction_ids is None else self.encode_instruction(instruction_ids)
        features: Any = connector(seen, ConnectorContext(asked, boxes, visual_tokens))
        counts = [0] * len(pixel_values) if boxes is None else (boxes[..., 0] >= 0).sum(1).tolist()
        objects = None if boxes is None else connector.objects(seen, boxes)
        self._arrange(image_sizes, counts)
        if self._pictures is not None:
            stack = features
            features = self.image_assembly(stack, self._pictures, objects)
            if self.fusion != "decoder":
                features = self._behind(features, stack)
                features = self._apart(features) if return_dict else features
        return BaseModelOutputWithPooling(pooler_output=features) if return_dict else features

    def encode_instruction(self, ids: Tensor) -> Tensor:
        """The states (T, L, W) of an instruction (T, L) that the connector reads, padding included.

        Raises:
            UnsupportedError: a connector that reads none.
        """
        if not self.multi_modal_projector.reads_instruction:
            raise UnsupportedError(f"connector '{next(iter(self.config.connector))}' reads no instruction")
        states = self.instruction_tower(input_ids=ids, output_hidden_states=True).hidden_states
        return states[self.multi_modal_projector.options.text_layer]

    @property
    def arranges(self) -> bool:
        """Whether pictures differ in how many positions they have."""
        return self.view.tiled or self.multi_modal_projector.reads_boxes

    def arrangements(self, image_sizes: Tensor | None, grid: tuple[int, int], objects: Sequence[int]) -> list[Arrangement]:
        """How pictures are read: of these sizes (P, 2), or, where all have one tile, with so many boxes each.

        Raises:
            ModelError: a view of several tiles, and no sizes.
        """
        view, size = self.view, self.vision_tower.image_size
        if not view.tiled:
            one = view.arrange(size, size, size, grid)
            return [one.with_objects(count) for count in objects]
        if image_sizes is None:
            raise ModelError(
                f"pictures in tiles need their sizes (view '{next(iter(self.config.view))}')",
                hint="Pass image_sizes, which the processor gives.",
            )
        return [fused(view.arrange(int(w), int(h), size, grid), self.fusion) for h, w in image_sizes.tolist()]

    def _behind(self, sequence: Sequence[Tensor], stack: Tensor) -> list[Tensor]:
        """Visual positions (n, D) of each picture, and behind them its tiles in (T, M, D) that stay out of the sequence."""
        pictures = self._pictures or []
        tiles = stack.split([p.tiles for p in pictures])
        out = [t[crossed_tiles(p, self.fusion)].flatten(0, 1) for p, t in zip(pictures, tiles, strict=True)]
        return [torch.cat(pair) for pair in zip(sequence, out, strict=True)]

    def _apart(self, features: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """What `_behind` put together: visual positions of each picture; the rest is kept for the next pass."""
        pictures = self._pictures or []
        counts = [len(places(p.layout)) for p in pictures]
        rest = [one[n:] for one, n in zip(features, counts, strict=True)]
        tile = torch.tensor([t for p in pictures for t in crossed_tiles(p, self.fusion)], dtype=torch.long)
        tile = tile.repeat_interleave(math.prod(self._grid)).to(rest[0].device)
        self._crossed = Crossed(torch.cat(rest), tile, [len(one) for one in rest])
        return [one[:n] for one, n in zip(features, counts, strict=True)]

    def _arrange(self, image_sizes: Tensor | None, objects: Sequence[int]) -> None:
        """Remember how pictures are read, see `arrangements`."""
        self._filling = None
        self._pictures = self.arrangements(image_sizes, self._grid, objects) if self.arranges else None

    def note_features(
        self, features: Tensor | list[Tensor], image_sizes: Tensor | None = None, visual_tokens: int | None = None
    ) -> None:
        """Remember how visual tokens that were computed before lie."""
        grid = self.visual_grid(visual_tokens=visual_tokens)
        count = features.shape[1] if isinstance(features, Tensor) else math.prod(grid)
        self._grid = grid if math.prod(grid) == count else (1, count)
        self._arrange(image_sizes, [len(one) - math.prod(grid) for one in features])

    def visual_grid(
        self, height: int | None = None, width: int | None = None, visual_tokens: int | None = None
    ) -> tuple[int, int]:
        """Rows and columns of visual tokens per tile of this size in pixels (the trained size by default), or of so many."""
        tower = self.vision_tower
        if visual_tokens is not None:
            return budget_grid(visual_tokens, self.multi_modal_projector.most_tokens)
        rows = (height or tower.image_size) // tower.patch_size
        columns = (width or tower.image_size) // tower.patch_size
        return self.multi_modal_projector.tokens((rows, columns))

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        image_features: Tensor | list[Tensor] | None = None,
        image_sizes: Tensor | None = None,
        visual_tokens: int | None = None,
        instruction_ids: Tensor | None = None,
        boxes: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        mm_token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaModelOutputWithPast:
        """Run the parts.

        Args:
            input_ids: (B, S), one placeholder per visual token.
            pixel_values: (T, 3, H, W) tiles of all pictures of the batch, in reading order.
            image_features: what `get_image_features` gave before, instead of pixels.
            image_sizes: (P, 2) height and width of the pictures in pixels; views of several tiles need them.
            visual_tokens: how many visual tokens a tile becomes, where the connector can choose; the prompts hold as many.
            instruction_ids, boxes: what connectors may want to know of each tile, see `get_image_features`.
            mm_encoder_outputs: the same as `{"image": output}` with them in `pooler_output`; made by `generate`.
            mm_token_type_ids: (B, S), 1 on visual tokens; read where there are no input_ids.
            labels: (B, S), -100 where nothing is learned; the rest is marked as answer in the token map.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        encoded = (mm_encoder_outputs or {}).get("image")
        if sum(x is not None for x in (pixel_values, image_features, encoded)) > 1:
            raise ValueError("give only one of pixel_values, image_features and mm_encoder_outputs")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            image_features = cast(
                Any,
                self.get_image_features(pixel_values, image_sizes, visual_tokens, instruction_ids=instruction_ids, boxes=boxes),
            )
        elif image_features is not None:
            self.note_features(image_features, image_sizes, visual_tokens)
        elif encoded is not None:
            image_features = encoded.pooler_output
        if self.fusion != "decoder" and image_features is not None and encoded is None:
            image_features = self._apart(image_features)
        crossed = self._crossed if image_features is not None or self.prompt_ids is not None else None
        past = int(past_key_values.get_seq_length()) if past_key_values is not None else 0
        visual = self._placeholders(input_ids, inputs_embeds, mm_token_type_ids)  # (B, S)
        if image_features is not None:
            inputs_embeds = _place(visual, inputs_embeds, image_features)
        elif past:
            visual = torch.zeros_like(visual)  # in a continuation without pictures it is only the model saying the word
        elif visual.any():
            raise _mismatch(int(visual.sum()), 0, "no picture was given")
        self._crossed = None
        self._read_map(visual, input_ids, attention_mask, labels, past, crossed)
        start, shown = self._marks[:2] if self._marks is not None else (0, None)
        run = Pass(cast(TokenMap, self.token_map), past, attention_mask, past_key_values, crossed, shown, start)
        changes: list[Backbone] = [getattr(self, part) for part in self._backbones]
        given = {name: value for change in changes for name, value in change.begin(run).items()}
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
            **given,
        )
        for change in changes:
            change.end(given, output.past_key_values)
        if self.prompt_ids is None:
            self._marks = None
        return LlavaModelOutputWithPast(
            last_hidden_state=output.last_hidden_state,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=image_features,
        )

    def _placeholders(self, input_ids: Tensor | None, embeds: Tensor, types: Tensor | None) -> Tensor:
        """Where visual tokens belong: bool (B, S)."""
        if input_ids is not None:
            return input_ids == self.config.image_token_id
        if types is not None:
            return types == 1
        word = torch.tensor(self.config.image_token_id, device=embeds.device)
        return (embeds == self.get_input_embeddings()(word)).all(-1)

    def _read_map(
        self,
        visual: Tensor,
        input_ids: Tensor | None,
        mask: Tensor | None,
        labels: Tensor | None,
        past: int,
        crossed: Crossed | None,
    ) -> None:
        """Keep `token_map` for the whole sequence so far: built at prefill, extended at each further chunk or token."""
        batch, length = visual.shape
        known = self.token_map if past else None
        if known is not None and batch % known.kind.shape[0] == 0 and batch > known.kind.shape[0]:
            # A prefix that was computed once and repeated for several continuations.
            rows = torch.arange(known.kind.shape[0], device=visual.device)
            known = known.select(rows.repeat_interleave(batch // known.kind.shape[0]))
        if known is not None and (known.kind.shape[0] != batch or len(known) < past):
            known = None
        if known is not None:
            known = known.slice(0, past)
        elif past:
            known = plain(visual.long()[:, :1].expand(batch, past))  # a cache that was filled elsewhere
        chunk = chunk_map(visual, self._fill(visual, known), known)
        if crossed is not None:
            self._find(input_ids, known, past)
        if self._marks is not None:
            start, image, tile = self._marks
            here = slice(past - start, past - start + length)
            if image[:, here].shape[1] == length:
                image, tile = (m[:, here].repeat_interleave(batch // len(m), 0) for m in (image, tile))
                chunk = mark(chunk, image, tile)
        text = self.config.text_config
        if input_ids is not None:
            ends = text.eos_token_id if isinstance(text.eos_token_id, list) else [text.eos_token_id]
            special = [i for i in (text.bos_token_id, *ends) if i is not None]
            for token in special:
                chunk.kind = chunk.kind.masked_fill(input_ids == token, SPECIAL)
            if mask is not None and mask.ndim == 4 and text.pad_token_id is not None and text.pad_token_id not in special:
                chunk.kind = chunk.kind.masked_fill(input_ids == text.pad_token_id, PAD)
        if mask is not None and mask.ndim == 2:
            chunk.kind = chunk.kind.masked_fill(mask[:, -length:] == 0, PAD)
        if labels is not None:
            chunk.role = chunk.role.masked_fill(labels != -100, ANSWER)
        if self.prompt_length is not None and past + length > self.prompt_length:
            chunk.role[:, max(self.prompt_length - past, 0) :] = ANSWER
        self.token_map = known.join(chunk) if known is not None else chunk
        if self.config.tag_length and self.fusion == "decoder" and visual.any():
            self.token_map = mark_tags(self.token_map, self.config.tag_length)

    def _find(self, input_ids: Tensor | None, known: TokenMap | None, past: int) -> None:
        """Find the pictures that were encoded last in the text of the prompt.

        Raises:
            ModelError: there is no text, or a picture is not in it.
        """
        ids = self.prompt_ids if self.prompt_ids is not None else input_ids
        if ids is None:
            raise ModelError("pictures are found by what is written for them, and the model was given only embeddings")
        texts, word = self.config.picture_texts, self.config.image_token_id
        image, tile = find(ids, [block(p, texts, word) for p in self._pictures or []])
        if known is not None:
            before = known.image[:: len(known.kind) // len(ids)].amax(1, keepdim=True) + 1
            image = torch.where(image < 0, image, image + before)
        self._marks = past, image, tile

    def _fill(self, visual: Tensor, known: TokenMap | None) -> Filling | tuple[int, int]:
        """What fills the placeholders `visual` (B, S), and those of the prompts' later chunks."""
        if self._pictures is None:
            return self._grid
        batch = len(visual)
        if self._filling is None:
            counts = self.prompt_counts or visual.sum(1).tolist()
            copies = batch // len(counts)  # beams
            before = known.select(torch.arange(0, batch, copies)) if known is not None else None
            try:
                self._filling = filling(self._pictures, counts, before)
            except ValueError as error:
                raise ModelError(str(error), hint="Prepare text and pictures in one call of the processor.") from None
        rows = len(self._filling.cells)
        if rows == batch or not visual.any():
            return self._filling
        return self._filling.select(torch.arange(rows).repeat_interleave(batch // rows))


def _place(visual: Tensor, embeds: Tensor, features: Tensor | list[Tensor]) -> Tensor:
    """Embeddings (B, S, D) with the visual tokens of a stack (T, M, D), or of a list of (M, D), in their places (B, S)."""
    rows = torch.cat([one.reshape(-1, one.shape[-1]) for one in features]).to(embeds)  # (n, D)
    wanted = int(visual.sum())
    if wanted != len(rows):
        raise _mismatch(wanted, len(rows), f"{len(features)} tiles x {len(rows) // max(len(features), 1)}")
    return embeds.masked_scatter(visual[..., None], rows)


def _mismatch(wanted: int, given: int, how: str) -> ModelError:
    return ModelError(
        f"the prompts hold {wanted} image tokens, but the pictures give {given} visual tokens ({how})",
        hint="Prepare text and pictures in one call of the processor, and do not truncate.",
    )


class ArgusForConditionalGeneration(ArgusPreTrainedModel, GenerationMixin):
    """The composed model with its head; generates text from pictures and text."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: ArgusConfig) -> None:
        super().__init__(config)
        self.model = ArgusModel(config)
        words = config.text_config
        self.lm_head = nn.Linear(words.hidden_size, words.vocab_size, bias=getattr(words, "lm_head_bias", False))
        # The embedding table's name depends on the language model's family.
        table = self.model.get_input_embeddings()
        path = next(name for name, module in self.model.named_modules() if module is table)
        self._tied_weights_keys = {"lm_head.weight": f"model.{path}.weight"}
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def get_decoder(self) -> nn.Module:
        return self.model.language_model

    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> Tensor | list[Tensor] | BaseModelOutputWithPooling:
        """Visual tokens of tiles (T, 3, H, W); see `ArgusModel.get_image_features`."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def generate(
        self, inputs: Tensor | None = None, *args: Any, image_features: Tensor | list[Tensor] | None = None, **kwargs: Any
    ) -> Any:
        """As in transformers; `image_features`, computed before, take the place of `pixel_values`."""
        self.model._crossed = None
        if image_features is not None:
            self.model.note_features(image_features, kwargs.pop("image_sizes", None), kwargs.pop("visual_tokens", None))
            if self.model.fusion != "decoder":
                image_features = self.model._apart(image_features)
            kwargs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=cast(Any, image_features))}
        ids = inputs if inputs is not None else kwargs.get("input_ids")
        if self.model.arranges and ids is not None and kwargs.get("past_key_values") is None:
            self.model.prompt_counts = (ids == self.config.image_token_id).sum(1).tolist()
            self.model.prompt_ids = ids if self.model.fusion != "decoder" else None
        try:
            return super().generate(inputs, *args, **kwargs)
        finally:
            self.model.prompt_length = self.model.prompt_counts = self.model.prompt_ids = self.model._marks = None

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, inputs_embeds: Tensor | None = None, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """As in transformers; what follows the first pass, in one piece or in chunks, is the model's answer."""
        prepared = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration:
            cache, ids = prepared.get("past_key_values"), prepared.get("input_ids")
            length = (prepared["inputs_embeds"] if ids is None else ids).shape[1]
            self.model.prompt_length = length + (int(cache.get_seq_length()) if cache is not None else 0)
        return prepared

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        image_features: Tensor | list[Tensor] | None = None,
        image_sizes: Tensor | None = None,
        visual_tokens: int | None = None,
        instruction_ids: Tensor | None = None,
        boxes: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        mm_token_type_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> LlavaCausalLMOutputWithPast:
        """Logits, and the next-token loss where labels are given; see `ArgusModel.forward` for the inputs.

        In training the loss is computed from the rows that predict a label alone, and `logits` is None: a question and its
        picture make most of a sequence, and their logits are never read. `logits_to_keep` other than 0 asks for them.
        """
        output = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_features=image_features,
            image_sizes=image_sizes,
            visual_tokens=visual_tokens,
            instruction_ids=instruction_ids,
            boxes=boxes,
            mm_encoder_outputs=mm_encoder_outputs,
            mm_token_type_ids=mm_token_type_ids,
            labels=labels,
            **kwargs,
        )
        hidden, logits, loss = output.last_hidden_state, None, None
        size = self.config.text_config.vocab_size
        all_rows = isinstance(logits_to_keep, int) and logits_to_keep == 0
        if labels is not None and self.training and all_rows and "shift_labels" not in kwargs:
            learned = labels[:, 1:] != -100  # (B, S - 1)
            rows = self.lm_head(hidden[:, :-1][learned.to(hidden.device)])  # (n, V)
            loss = self.loss_function(logits=rows, labels=labels, shift_labels=labels[:, 1:][learned], vocab_size=size, **kwargs)
        else:
            logits = self.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
            if labels is not None:
                loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
        return LlavaCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            image_hidden_states=output.image_hidden_states,
        )


AutoConfig.register("argus", ArgusConfig, exist_ok=True)
AutoModel.register(ArgusConfig, ArgusModel, exist_ok=True)
AutoModelForImageTextToText.register(ArgusConfig, ArgusForConditionalGeneration, exist_ok=True)

__all__ = ["ArgusConfig", "ArgusForConditionalGeneration", "ArgusModel", "ViTConfig"]
