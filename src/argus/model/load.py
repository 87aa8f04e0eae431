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
from torch import nn
from transformers import (
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForZeroShotImageClassification,
    AutoProcessor,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor

import argus.model.processor  # registers the Auto classes
from argus.core.errors import ModelError, RecipeError, UnsupportedError, nearest
from argus.core.registry import build
from argus.model.composed import ArgusConfig, ArgusForConditionalGeneration
from argus.model.dual_encoder import DualEncoder, DualEncoderConfig
from argus.model.encoders.base import TOWERS, build_tower, register_towers
from argus.model.encoders.transformers_tower import TransformersTower, pixel_statistics

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
        dtype: `float32`, `bfloat16`, ...; float32 on CPU and the stored type elsewhere when not given.
        device: `cpu`, `cuda`, ...; a GPU where there is one when not given.
        revision: commit or tag on the hub.
        trust_remote_code: run code that comes with the model.
        attn_implementation: `sdpa`, `eager`, `matmul`, ...

    Raises:
        ModelError: the model cannot be found, reached or read.
    """
    place = resolve(reference)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(dtype, str):
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ModelError(f"'{dtype}' is no dtype.", hint=nearest(dtype, ["float32", "bfloat16", "float16"]))
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
        processor = (AutoProcessor if has_images else AutoTokenizer).from_pretrained(place, **common)
    return model.to(device).eval(), processor


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
    return AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM


def compose(spec: Mapping[str, Any]) -> tuple[PreTrainedModel, Any]:
    """Build a model of parts.

    Three shapes, by their keys:

    - `{language_model, encoder, connector, view, standardise}`: a multimodal model. `language_model` is a reference to a causal
      model (its tokenizer comes with it), or {causal_lm, tokenizer} for new weights; `encoder` is a reference to a dual encoder,
      a composed model, or a vision model of transformers (CLIP, SigLIP, DINOv2, ...), or {name: options} for new weights;
      `standardise` is a number of scenes, see `standardise_connector`.
    - `{dual_encoder: {...}, tokenizer: ...}`: a CLIP-like model; its vision tower is `vision_config` or, as above, `encoder`.
    - `{causal_lm: {model_type, ...}, tokenizer: ...}`: a language model with new weights.

    `tokenizer` is a reference to a model, or {vocabulary, scenes, domains} to train one on the world.

    Raises:
        RecipeError: keys that are not known, or missing ones.
        UnsupportedError: parts that do not work together, with the reason.
    """
    shapes = {
        "language_model": ({"language_model", "encoder", "connector", "view", "standardise"}, _compose_multimodal),
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
    return AutoModelForCausalLM.from_config(config, attn_implementation="matmul"), tokenizer


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
    view = _part(spec.get("view", "square"))
    config = ArgusConfig(
        vision_config,
        language.config,
        connector=_part(spec.get("connector", "mlp")),
        view=view,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        tag_length=argus.model.processor.tag_length(build("view", *next(iter(view.items()))), tokenizer),
    )
    model = ArgusForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.base_model.state_dict())
    if not config.tie_word_embeddings:
        model.lm_head.load_state_dict(language.get_output_embeddings().state_dict())
    _check_words(model, language)
    if tower is not None:
        model.model.vision_tower.load_state_dict(tower.state_dict())
    if spec.get("standardise"):
        standardise_connector(model, spec["standardise"])
    return model, argus.model.processor.processor_for(model.model, tokenizer)


@torch.no_grad()
def standardise_connector(model: ArgusForConditionalGeneration, scenes: int) -> None:
    """Start the connector from standardised features.

    A tower's residual stream has a large part that all patches share; visual tokens made from it look alike (cosine 0.96 for
    tiny-clip), and a language model takes long to tell them apart. Mean m and deviation s of each channel over `scenes` pictures
    of every domain are folded into the connector's first matrix, W' = W / s and b' = b - W' m, so the architecture is unchanged;
    its last matrix is scaled so that visual tokens are as large as embedded words.

    Raises:
        UnsupportedError: a connector whose first layer is not one matrix per token.
    """
    from argus.core.registry import components
    from argus.model.features import VisualFeatures
    from argus.model.processor import ArgusImageProcessor

    tower, connector = model.model.vision_tower, model.model.multi_modal_projector
    size = tower.image_size
    matrices = [module for module in connector.modules() if isinstance(module, nn.Linear)]
    if connector.mixes_tokens or not matrices or matrices[0].in_features != connector.vision_width:
        raise UnsupportedError(f"a {type(connector).__name__} connector has no per-token first matrix to standardise")
    process = ArgusImageProcessor(size, tower.patch_size, None, *pixel_statistics(tower.config))
    domains = [build("domain", row.name) for row in components("domain")]
    pixels = [d.draw("train", i, size, 0).pixels for d in domains for i in range(scenes)]
    batches = [process(pixels[i : i + 64])["pixel_values"] for i in range(0, len(pixels), 64)]
    tokens = torch.cat([model.model.encode_images(batch).tokens for batch in batches])  # (pictures, N, C)
    mean, deviation = tokens.mean((0, 1)), tokens.std((0, 1)).clamp(min=1e-4)  # (C,)
    first, last = matrices[0], matrices[-1]
    first.weight.normal_(std=first.in_features**-0.5)
    first.weight.div_(deviation)
    first.bias.copy_(-first.weight @ mean)
    if last is not first:
        last.weight.normal_(std=last.in_features**-0.5)
    made = connector(VisualFeatures(tokens[:256], (1, tokens.shape[1])))
    last.weight.mul_(model.get_input_embeddings().weight.std() / made.std())


def _language(given: Any) -> tuple[PreTrainedModel, Any]:
    """The causal language model of a composition and its tokenizer."""
    language, tokenizer = compose(given) if isinstance(given, Mapping) else load(given, device="cpu")
    kind = language.config.model_type
    if isinstance(language, DualEncoder) or hasattr(language.config, "text_config") or language.get_output_embeddings() is None:
        raise RecipeError(f"model.compose: language_model must be a causal language model, '{given}' is of type '{kind}'")
    if getattr(language.get_output_embeddings(), "bias", None) is not None:
        raise UnsupportedError(f"the output head of '{kind}' has a bias, which the head of a composed model has not")
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


def _encoder(spec: Any) -> tuple[nn.Module | None, PretrainedConfig]:
    """A tower with its weights, or none where they are new, and its config."""
    if not isinstance(spec, str):
        return _named_encoder(*next(iter(spec.items())))
    place = resolve(spec)
    with _reading(spec):
        config = AutoConfig.from_pretrained(place)
    if isinstance(config, DualEncoderConfig):
        tower = load(spec, device="cpu")[0].vision_tower
        return tower, tower.config
    if isinstance(config, ArgusConfig):
        return load(spec, device="cpu")[0].model.vision_tower, config.vision_config
    if config.model_type in TOWERS:
        return _weights(AutoModel, spec, place, dtype=torch.float32), config
    vision = getattr(config, "vision_config", config)
    tower = TransformersTower(vision)
    tower.tower = _weights(AutoModel, spec, place, config=vision, dtype=torch.float32, tail=tower.unread)
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
    return {spec: {}} if isinstance(spec, str) else {k: dict(v or {}) for k, v in spec.items()}
