"""Models by reference: a shipped one (`argus/tiny-vlm`), a folder, or a name on the Hugging Face Hub.

Only safetensors are read, and no code that comes with a model is run unless the user says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForZeroShotImageClassification,
    AutoTokenizer,
    PreTrainedModel,
)

import argus.model.composed
import argus.model.processor  # noqa: F401  the two register the Auto classes
from argus.core.errors import ModelError, UnsupportedError, nearest
from argus.core.reference import SHIPPED, reference_models
from argus.model.backbones.added import RECORD, expected, restore_backbones
from argus.model.dual_encoder import DualEncoder, DualEncoderConfig
from argus.model.encoders.base import register_towers
from argus.model.int8 import quantised
from argus.model.pictures_only import read_processor

register_towers()


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
    with reading(reference):
        config = AutoConfig.from_pretrained(place, **common)
    dtype = dtype or (torch.float32 if device == "cpu" else "auto")
    with expected(config):
        model = read_weights(auto_class(config), reference, place, dtype=dtype, **common, **extra)
    if hasattr(config, RECORD):
        restore_backbones(model, Path(place) if Path(place).is_dir() else _downloaded(place, revision))
    has_images = hasattr(config, "vision_config") and not isinstance(config, DualEncoderConfig)
    if Path(place).is_dir() and not (Path(place) / "tokenizer_config.json").exists():
        hint = "Save the processor beside the model: processor.save_pretrained(folder)."
        raise ModelError("the folder has no tokenizer_config.json", where=reference, hint=hint)
    with reading(reference, "its processor" if has_images else "its tokenizer"):
        processor = read_processor(place, config, **common) if has_images else AutoTokenizer.from_pretrained(place, **common)
    return quantised(model.to(device).eval()) if eight else model.to(device).eval(), processor


def _downloaded(name: str, revision: str | None) -> Path:
    """The folder in which a model's weights from the hub lie, once they have been read."""
    return Path(snapshot_download(name, revision=revision, allow_patterns=["*.safetensors"], local_files_only=True))


@contextmanager
def reading(reference: str, what: str = "") -> Iterator[None]:
    """What transformers and safetensors raise, as one clear error."""
    try:
        yield
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        text = str(error).strip().splitlines()[0]
        hint = "" if Path(resolve(reference)).exists() else f"Without the Hub: {', '.join(reference_models())} or a folder."
        raise ModelError(f"cannot load{what and ' '}{what}: {text}", where=reference, hint=hint) from None


def read_weights(auto: Any, reference: str, place: str, *, tail: Callable[[str], bool] | None = None, **kwargs: Any) -> Any:
    """A model with all of its weights: none is left as it was drawn at random.

    Args:
        tail: says of a weight's name whether it may be missing, because nothing reads it.
    """
    with reading(reference):
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


def auto_class(config: Any) -> Any:
    """The class that loads a model of this config.

    Raises:
        UnsupportedError: an encoder-decoder that no causal class of transformers reads.
    """
    if isinstance(config, DualEncoderConfig):
        return DualEncoder
    if type(config) in MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING:
        return AutoModelForZeroShotImageClassification
    if hasattr(config, "vision_config"):
        return AutoModelForImageTextToText
    if config.is_encoder_decoder and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedError(
            f"'{config.model_type}' reads a prompt with an encoder of its own, so it is no causal language model.",
            hint="Of one of the T5 family a model can be composed: compose: {language_model: ...}.",
        )
    return AutoModelForCausalLM
