"""Models composed of parts: view, encoder, connector, backbone and language model, by name or by reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

import argus.model.processor
from argus.core.errors import ModelError, RecipeError, UnsupportedError, nearest
from argus.core.registry import build, component
from argus.model.backbones.base import Backbone
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.dual_encoder import DualEncoder, DualEncoderConfig
from argus.model.load import auto_class, load, resolve
from argus.model.seq2seq import FAMILIES, load_seq2seq, prefix_lm
from argus.model.standardise import standardise_connector
from argus.model.stored_tower import stored_tower


def compose(spec: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    """Build a model of parts.

    Three shapes, by their keys:

    - `{language_model, encoder, connector, view, standardise}`: a multimodal model. `language_model` is a reference to a causal
      or composed model or an encoder-decoder of the T5 family (its tokenizer comes with it), or {causal_lm, tokenizer} for new
      weights; `encoder` is a reference to a dual encoder, a composed model, or a vision model of transformers (CLIP, SigLIP,
      DINOv2, ...), or {name: options} for new weights; `standardise` is a number of scenes, see `standardise_connector`;
      `connector_weights` is a composed model whose connector's weights are taken where name and shape fit;
      `instruction_encoder` is the dual encoder whose text tower reads the question for connectors that want to know it, by
      default that of `encoder`; `boxes` says where the boxes of samples come from for connectors that read them, see
      `BoxOptions`.
      `backbone` is {name: options} of what is changed in the language model; `tiles_per_pass` is how many tiles the encoder takes
      at a time (all when not given), for large pictures in little memory.
    - `{dual_encoder: {...}, tokenizer: ...}`: a CLIP-like model; its vision tower is `vision_config` or, as above, `encoder`.
    - `{causal_lm: {model_type, ...}, tokenizer: ...}`: a language model with new weights.

    `tokenizer` is a reference to a model, or {vocabulary, scenes, domains} to train one on the world.

    Raises:
        RecipeError: keys that are not known, or missing ones.
        UnsupportedError: parts that do not work together, with the reason.
    """
    shapes = {
        "language_model": (
            {
                *("language_model", "encoder", "connector", "view", "standardise"),
                *("connector_weights", "instruction_encoder", "boxes", "backbone", "tiles_per_pass"),
            },
            _compose_multimodal,
        ),
        "dual_encoder": ({"dual_encoder", "tokenizer"}, _compose_dual),
        "causal_lm": ({"causal_lm", "tokenizer"}, _compose_causal),
    }
    for key, (allowed, make) in shapes.items():
        if key in spec:
            for unknown in set(spec) - allowed:
                raise RecipeError(f"model.compose: unknown part '{unknown}'.", hint=nearest(unknown, allowed))
            return make(spec)
    raise RecipeError("model.compose needs one of language_model, dual_encoder, causal_lm", hint=f"Given: {', '.join(spec)}.")


def _tokenizer(spec: Any) -> Any:
    if isinstance(spec, str):
        return AutoTokenizer.from_pretrained(resolve(spec))
    from argus.model.tokenizer import train_tokenizer, world_texts

    return train_tokenizer(world_texts(spec["domains"], spec["scenes"]), spec["vocabulary"])


def _specials(tokenizer: Any) -> dict[str, int]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _compose_causal(spec: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    tokenizer = _tokenizer(spec["tokenizer"])
    config = AutoConfig.for_model(**{**spec["causal_lm"], **_specials(tokenizer)})
    if config.model_type in FAMILIES:
        return prefix_lm(AutoModelForSeq2SeqLM.from_config(config, attn_implementation="matmul")), tokenizer
    return auto_class(config).from_config(config, attn_implementation="matmul"), tokenizer


def _compose_dual(spec: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    from argus.world.domain import DENSE_CLASSES

    tokenizer = _tokenizer(spec["tokenizer"])
    options = dict(spec["dual_encoder"])
    options["text_config"] = {**options.get("text_config", {}), **_specials(tokenizer)}
    tower = None
    if "encoder" in options:
        tower, options["vision_config"] = stored_tower(options.pop("encoder"))
    model = DualEncoder(DualEncoderConfig(**{"dense_classes": DENSE_CLASSES, **options}))
    if tower is not None:
        model.vision_tower.load_state_dict(tower.state_dict())
    return model, tokenizer


def _compose_multimodal(spec: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    language, tokenizer = _language(spec["language_model"])
    if tokenizer.convert_tokens_to_ids("<image>") in (None, tokenizer.unk_token_id):
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    if len(tokenizer) > language.get_input_embeddings().num_embeddings:  # many tables have rows to spare
        language.resize_token_embeddings(len(tokenizer))
    tower, vision_config = stored_tower(spec.get("encoder", {"vit": {}}))
    view, connector = _part(spec.get("view", "square")), _part(spec.get("connector", "mlp"))
    words, words_tokenizer = _instruction(spec, next(iter(connector)))
    config = ArgusConfig(
        vision_config,
        language.config,
        connector=connector,
        view=view,
        instruction_config=None if words is None else words.config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tag_length=argus.model.processor.tag_length(build("view", *next(iter(view.items()))), tokenizer),
        backbone=_part(spec.get("backbone", {})),
        picture_texts=argus.model.processor.picture_texts(build("view", *next(iter(view.items()))), tokenizer)
        if "backbone" in spec
        else None,
        tiles_per_pass=_tiles_per_pass(spec),
    )
    model = ArgusForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.base_model.state_dict())
    if not config.tie_word_embeddings:
        model.lm_head.load_state_dict(language.get_output_embeddings().state_dict())
    if all(part.keeps_words for part in model.model.children() if isinstance(part, Backbone)):
        _check_words(model, language)
    if tower is not None:
        model.model.vision_tower.load_state_dict(tower.state_dict())
    if words is not None:
        model.model.instruction_tower.load_state_dict(words.state_dict())
    if spec.get("standardise"):
        standardise_connector(model, spec["standardise"])
    if "connector_weights" in spec:
        _take_connector(model, spec["connector_weights"])
    processor = argus.model.processor.processor_for(model.model, tokenizer, spec.get("boxes"))
    if words is not None:
        processor.instruction_tokenizer = words_tokenizer
    return model, processor


def _instruction(spec: Mapping[str, Any], connector: str) -> tuple[Any, Any]:
    """The text tower that reads the question and its tokenizer, where the connector wants one and there is one.

    Raises:
        UnsupportedError: the instruction encoder has no text tower.
    """
    given = spec.get("instruction_encoder", spec.get("encoder"))
    if not component("connector", connector).load().reads_instruction or not isinstance(given, str):
        return None, None
    model, processor = load(given, device="cpu")
    inner = getattr(model, "model", model)
    names = ("text_tower", "text_model", "instruction_tower")
    tower = next((t for name in names if (t := getattr(inner, name, None)) is not None), None)
    if tower is None:
        if "instruction_encoder" in spec:
            raise UnsupportedError(f"'{given}' has no text tower that could read the instruction")
        return None, None
    if hasattr(processor, "instruction_tokenizer"):
        return tower, processor.instruction_tokenizer
    return tower, getattr(processor, "tokenizer", processor)


@torch.no_grad()
def _take_connector(model: ArgusForConditionalGeneration, reference: str) -> None:
    """Start the connector from a composed model's, where weights have the same names and shapes.

    Raises:
        ModelError: none has.
    """
    stored = load(reference, device="cpu")[0].model.multi_modal_projector.state_dict()
    if not model.model.multi_modal_projector.adopt(stored):
        raise ModelError(f"no weight of its connector fits: it has {', '.join(stored)}", where=reference)


def _language(given: Any) -> tuple[PreTrainedModel, Any]:
    """The causal language model of a composition and its tokenizer."""
    if isinstance(given, Mapping):
        language, tokenizer = compose(given)
    else:
        language, tokenizer = load_seq2seq(given) or load(given, device="cpu")
    if isinstance(language, ArgusForConditionalGeneration):
        whole, tokenizer = language, tokenizer.tokenizer
        language = AutoModelForCausalLM.from_config(whole.config.text_config, attn_implementation="matmul")
        language.base_model.load_state_dict(whole.model.language_model.state_dict())
        language.get_output_embeddings().load_state_dict(whole.lm_head.state_dict())
    kind = language.config.model_type
    if isinstance(language, DualEncoder) or hasattr(language.config, "text_config") or language.get_output_embeddings() is None:
        raise RecipeError(f"model.compose: language_model must be a causal language model, '{given}' is of type '{kind}'")
    language.config.lm_head_bias = getattr(language.get_output_embeddings(), "bias", None) is not None
    return language.eval(), tokenizer


@torch.no_grad()
def _check_words(model: ArgusForConditionalGeneration, language: PreTrainedModel) -> None:
    """Without a picture the composed model is the language model it was made of.

    Raises:
        UnsupportedError: a family whose causal class does more than body and head (scaled or capped logits), or has no KV cache.
    """
    kind, ids = language.config.model_type, torch.arange(4)[None]
    ids = ids[ids != model.config.image_token_id][None]
    expected = language(ids)
    if "past_key_values" not in expected:
        raise UnsupportedError(f"'{kind}' keeps no KV cache, so generation from a composed model cannot work")
    training = model.training
    model.eval()
    found = model(ids).logits
    model.train(training)
    if not torch.allclose(found, expected.logits, rtol=1e-3, atol=1e-4 * float(expected.logits.abs().max())):
        raise UnsupportedError(f"'{kind}' changes its logits behind the head (scales or caps them), which would be lost")


def _tiles_per_pass(spec: Mapping[str, Any]) -> int | None:
    given = spec.get("tiles_per_pass")
    if given is not None and (type(given) is not int or given < 1):
        raise RecipeError(f"model.compose: tiles_per_pass is a number of tiles from 1 on, not {given!r}")
    return given


def _part(spec: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(spec, str) and len(spec) > 1:
        raise RecipeError(f"one name is wanted, and {', '.join(map(repr, spec))} were given")
    return {spec: {}} if isinstance(spec, str) else {k: dict(v or {}) for k, v in spec.items()}
