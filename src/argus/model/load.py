"""Models by reference: a shipped one (`argus/tiny-vlm`), a folder, or a name on the Hugging Face Hub; or composed of parts.

Only safetensors are read, and no code that comes with a model is run unless the user says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor

import argus.model.processor  # registers the Auto classes
from argus.core.errors import ModelError, RecipeError, UnsupportedError, nearest
from argus.core.registry import build, component
from argus.model.backbones.base import Backbone
from argus.model.composed import ArgusForConditionalGeneration
from argus.model.config import ArgusConfig
from argus.model.dual_encoder import DualEncoder, DualEncoderConfig
from argus.model.encoders.base import TOWERS, build_tower, register_towers
from argus.model.encoders.transformers_tower import pixel_statistics
from argus.model.int8 import quantised
from argus.model.pictures_only import read_processor

SHIPPED = "argus/"
register_towers()


def reference_models() -> dict[str, Path]:
    """The shipped models: name -> folder."""
    root = Path(str(files("argus") / "reference"))
    return {f"{SHIPPED}{p.name}": p for p in sorted(root.glob("*")) if (p / "config.json").exists()}


def resolve(reference: str) -> str:
    """A folder for shipped models and folders; a hub name as it is.

    Raises:
        ModelError: no such shipped model or folder, or a folder without what a model needs.
    """
    if reference.startswith(SHIPPED):
        known = reference_models()
        if reference not in known:
            raise ModelError(f"there is no shipped model '{reference}'.", hint=nearest(reference, known))
        return str(known[reference])
    path = Path(reference)
    if path.exists() or reference.startswith((".", "/", "~")) or reference.count("/") != 1:
        path = path.expanduser()
        if not path.is_dir():
            siblings = [str(p) for p in path.parent.glob("*") if p.is_dir()] if path.parent.is_dir() else []
            hint = nearest(str(path), [*siblings, *reference_models()])
            raise ModelError(f"there is no model folder '{reference}'.", hint=hint)
        missing = [n for n in ("config.json",) if not (path / n).exists()]
        if missing:
            raise ModelError(f"the folder has no {missing[0]}", where=reference)
        if not list(path.glob("*.safetensors")):
            pickled = [p.name for p in path.glob("*.bin")]
            convert = f"Convert {pickled[0]} to safetensors; pickled weights are not read." if pickled else None
            raise ModelError("the folder has no .safetensors file", where=reference, hint=convert)
        return str(path)
    return reference


def load(
    reference: str,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attn_implementation: str | None = None,
) -> tuple[PreTrainedModel, Any]:
    """A model in evaluation mode, and its processor.

    Args:
        reference: `argus/<name>`, a folder, or a hub name.
        dtype: `float32`, `bfloat16`, ..., or `int8` for a language model with 8-bit weights on CPU; float32 on CPU and the stored
            type elsewhere when not given.
        device: `cpu`, `cuda`, ...; a GPU where there is one when not given.
        revision: commit or tag on the hub.
        trust_remote_code: run code that comes with the model.
        attn_implementation: `sdpa`, `eager`, `matmul`, ...

    Raises:
        ModelError: the model cannot be found, reached or read.
    """
    place = resolve(reference)
    eight = dtype == "int8"
    device = device or ("cuda" if torch.cuda.is_available() and not eight else "cpu")
    dtype = None if eight else dtype
    if isinstance(dtype, str):
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ModelError(f"'{dtype}' is no dtype.", hint=nearest(dtype, ["float32", "bfloat16", "float16", "int8"]))
        dtype = getattr(torch, dtype)
    common: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    extra: dict[str, Any] = {"attn_implementation": attn_implementation} if attn_implementation else {}
    with _reading(reference):
        config = AutoConfig.from_pretrained(place, **common)
    dtype = dtype or (torch.float32 if device == "cpu" else "auto")
    model = _weights(_auto(config), reference, place, dtype=dtype, **common, **extra)
    has_images = hasattr(config, "vision_config") and not isinstance(config, DualEncoderConfig)
    if Path(place).is_dir() and not (Path(place) / "tokenizer_config.json").exists():
        hint = "Save the processor beside the model: processor.save_pretrained(folder)."
        raise ModelError("the folder has no tokenizer_config.json", where=reference, hint=hint)
    with _reading(reference, "its processor" if has_images else "its tokenizer"):
        processor = read_processor(place, config, **common) if has_images else AutoTokenizer.from_pretrained(place, **common)
    return quantised(model.to(device).eval()) if eight else model.to(device).eval(), processor


@contextmanager
def _reading(reference: str, what: str = "") -> Iterator[None]:
    """What transformers and safetensors raise, as one clear error."""
    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        text = str(error).strip().splitlines()[0]
        hint = "" if Path(resolve(reference)).exists() else f"Without the Hub: {', '.join(reference_models())} or a folder."
        raise ModelError(f"cannot load{what and ' '}{what}: {text}", where=reference, hint=hint) from None


def _weights(auto: Any, reference: str, place: str, *, tail: Callable[[str], bool] | None = None, **kwargs: Any) -> Any:
    """A model with all of its weights: none is left as it was drawn at random.

    Args:
        tail: says of a weight's name whether it may be missing, because nothing reads it.
    """
    with _reading(reference):
        model, info = auto.from_pretrained(
            place, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    for name, stored, wanted in sorted(info["mismatched_keys"]):
        raise ModelError(f"the weight {name} has shape {tuple(stored)}, the config says {tuple(wanted)}", where=reference)
    missing = sorted(name for name in info["missing_keys"] if tail is None or not tail(name))
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise ModelError(f"weights are missing ({len(missing)}): {shown}", where=reference)
    return model


def _auto(config: Any) -> Any:
    if isinstance(config, DualEncoderConfig):
        return DualEncoder
    if type(config) in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING:
        return AutoModelForZeroShotImageClassification
    if hasattr(config, "vision_config"):
        return AutoModelForImageTextToText
    if config.is_encoder_decoder and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedError(
            f"'{config.model_type}' reads a prompt with an encoder of its own, and visual tokens stand in what a decoder reads.",
            hint="Choose a causal language model.",
        )
    return AutoModelForCausalLM


def compose(spec: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    """Build a model of parts.

    Three shapes, by their keys:

    - `{language_model, encoder, connector, view, standardise}`: a multimodal model. `language_model` is a reference to a causal
      or composed model (its tokenizer comes with it), or {causal_lm, tokenizer} for new weights; `encoder` is a reference to a
      dual encoder, a composed model, or a vision model of transformers (CLIP, SigLIP, DINOv2, ...), or {name: options} for new
      weights; `standardise` is a number of scenes, see `standardise_connector`; `connector_weights` is a composed model whose
      connector's weights are taken where name and shape fit; `instruction_encoder` is the dual encoder whose text tower reads
      the question for connectors that want to know it, by default that of `encoder`; `boxes` says where the boxes of samples come
      from for connectors that read them, see `BoxOptions`.
      `backbone` is {name: options} of what is changed in the language model.
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
                *("connector_weights", "instruction_encoder", "boxes", "backbone"),
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
    return _auto(config).from_config(config, attn_implementation="matmul"), tokenizer


def _compose_dual(spec: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    from argus.world.domain import DENSE_CLASSES

    tokenizer = _tokenizer(spec["tokenizer"])
    options = dict(spec["dual_encoder"])
    options["text_config"] = {**options.get("text_config", {}), **_specials(tokenizer)}
    tower = None
    if "encoder" in options:
        tower, options["vision_config"] = _encoder(options.pop("encoder"))
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
    tower, vision_config = _encoder(spec.get("encoder", {"vit": {}}))
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


@torch.no_grad()
def standardise_connector(model: ArgusForConditionalGeneration, scenes: int) -> None:
    """Start the connector from standardised features.

    A tower's residual stream has a large part that all patches share; visual tokens made from it look alike (cosine 0.96 for
    tiny-clip), and a language model takes long to tell them apart. Mean m and deviation s of each channel over `scenes` pictures
    of every domain are folded into what meets the features first (`Connector.entries`), so the architecture is unchanged: into a
    matrix as W' = W / s and b' = b - W' m, into a norm as gain 1 / s and shift -m / s of what it normalised. The last matrix is
    scaled so that visual tokens are as large as embedded words.

    Raises:
        UnsupportedError: a connector that does not say what meets the features first, or that needs an instruction.
    """
    from argus.core.registry import components
    from argus.model.image_processor import ArgusImageProcessor

    tower, connector = model.model.vision_tower, model.model.multi_modal_projector
    size, entries = tower.image_size, connector.entries()
    if not entries or connector.reads_instruction:
        why = "reads the instruction too" if connector.reads_instruction else "does not say which weights meet the features first"
        raise UnsupportedError(f"a {type(connector).__name__} connector cannot be standardised: it {why}")
    process = ArgusImageProcessor(size, tower.patch_size, None, *pixel_statistics(tower.config))
    domains = [build("domain", row.name) for row in components("domain")]
    pixels = [d.draw("train", i, size, 0).pixels for d in domains for i in range(scenes)]
    batches = [process(pixels[i : i + 64])["pixel_values"] for i in range(0, len(pixels), 64)]
    seen = [model.model.encode_images(batch, hidden_states=bool(connector.levels)) for batch in batches]
    matrices = [module for module in connector.modules() if isinstance(module, nn.Linear)]
    for matrix in matrices:
        matrix.weight.normal_(std=matrix.in_features**-0.5)
    met: dict[nn.Module, list[Tensor]] = {entry: [] for entry in entries}
    hooks = [e.register_forward_pre_hook(lambda module, args: met[module].append(args[0].flatten(0, -2))) for e in entries]
    for features in seen:
        connector(features)
    for hook in hooks:
        hook.remove()
    for entry, inputs in met.items():
        _standardise(entry, torch.cat(inputs))
    made = torch.cat([connector(features) for features in seen[:4]])
    for part in matrices[-1].parameters():
        part.mul_(model.get_input_embeddings().weight.std() / made.std())


def _standardise(entry: Any, inputs: Tensor) -> None:
    """Fold mean and deviation of the inputs (n, C) into a matrix or a norm."""
    if isinstance(entry, nn.LayerNorm):
        inputs = F.layer_norm(inputs, entry.normalized_shape, eps=entry.eps)
    mean, deviation = inputs.mean(0), inputs.std(0).clamp(min=1e-4)  # (C,)
    if isinstance(entry, nn.LayerNorm):
        entry.weight.copy_(1 / deviation)
        entry.bias.copy_(-mean / deviation)
        return
    entry.weight.div_(deviation)
    if entry.bias is not None:
        entry.bias.copy_(-entry.weight @ mean)
    else:  # a matrix whose rows are orthogonal to the mean does not see it
        entry.weight.sub_(torch.outer(entry.weight @ mean, mean) / mean.square().sum())


def _language(given: Any) -> tuple[PreTrainedModel, Any]:
    """The causal language model of a composition and its tokenizer."""
    language, tokenizer = compose(given) if isinstance(given, Mapping) else load(given, device="cpu")
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


def load_tower(spec: Any) -> nn.Module:
    """A stored vision tower, frozen, for its features alone.

    Args:
        spec: as the `encoder` of a composed model: a reference, or {name: options} around one.

    Raises:
        RecipeError: an encoder without stored weights.
    """
    tower, config = _encoder(spec)
    if tower is None:
        raise RecipeError(f"an encoder that is asked what it knows needs stored weights; '{config.model_type}' would be new")
    return tower.requires_grad_(False).eval()


def _encoder(spec: Any) -> tuple[nn.Module | None, PretrainedConfig]:
    """A tower with its weights, or none where they are new, and its config."""
    if not isinstance(spec, str):
        return _named_encoder(*next(iter(spec.items())))
    place = resolve(spec)
    with _reading(spec):
        config = AutoConfig.from_pretrained(place)
    if isinstance(config, DualEncoderConfig):
        tower: Any = load(spec, device="cpu")[0].vision_tower
        return tower, tower.config
    if isinstance(config, ArgusConfig):
        return load(spec, device="cpu")[0].model.vision_tower, config.vision_config
    if config.model_type in TOWERS:
        return _weights(AutoModel, spec, place, dtype=torch.float32), config
    vision = getattr(config, "vision_config", config)
    tower = build_tower(vision)
    tower.tower = _weights(AutoModel, spec, place, config=vision, dtype=torch.float32, tail=getattr(tower, "unread", None))
    with suppress(OSError):  # without that file the family's statistics count
        stored, _ = BaseImageProcessor.get_image_processor_dict(place)
        if stored.get("do_normalize", True) and "image_mean" in stored:
            vision.image_mean, vision.image_std = stored["image_mean"], stored["image_std"]
    return tower, vision


def _named_encoder(name: str, options: Any) -> tuple[nn.Module | None, PretrainedConfig]:
    """An encoder of the registry. One that is made of others takes their weights, where they have any."""
    made = build("encoder", name, options)
    inner = [_encoder(part) for part in getattr(made, "parts", ())]
    config = made.config(*(config for _, config in inner))
    stored = made.weights() if hasattr(made, "weights") else None
    if stored is not None:
        found: Any = build_tower(config)
        missing, unexpected = found.load_state_dict(stored, strict=False)
        if missing or unexpected:
            raise ModelError(f"encoder '{name}': weights missing {missing[:3]}, not known {unexpected[:3]}")
        return found, config
    if all(tower is None for tower, _ in inner):
        return None, config
    if len(inner) == 1 and inner[0][1] is config:  # the stored model itself, read at another layer
        return inner[0][0], config
    whole: Any = build_tower(config)
    for slot, (tower, _) in zip(whole.towers, inner, strict=True):
        if tower is not None:
            slot.load_state_dict(tower.state_dict())
    return whole, config


def _part(spec: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(spec, str) and len(spec) > 1:
        raise RecipeError(f"one name is wanted, and {', '.join(map(repr, spec))} were given")
    return {spec: {}} if isinstance(spec, str) else {k: dict(v or {}) for k, v in spec.items()}
