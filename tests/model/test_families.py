"""Folders that transformers saved, of every family: loaded, asked and pruned as `argus chat` and an evaluation do it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    InternVLProcessor,
    LlavaNextProcessor,
    LlavaOnevisionProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available

import argus
from argus.core.errors import UnsupportedError
from argus.core.registry import build
from argus.core.sample import ImagePart, Message, Sample, TextPart
from argus.evaluation.inferencers.base import Question
from argus.evaluation.inferencers.search import Looks
from argus.evaluation.local import LocalModel
from argus.methods.search.base import Look, View
from argus.model.anatomy import anatomy
from argus.model.pictures_only import pictures_only
from tests.methods.families import FAMILIES
from tests.methods.tiny import made

pytestmark = pytest.mark.skipif(is_torchvision_available(), reason="processors are whole where there is torchvision")

SHOWN = {"internvl": "<IMG_CONTEXT>", "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>"}
SHOWN |= {"qwen2_5_vl": SHOWN["qwen2_vl"], "llava_next": "<image>", "llava_onevision": "<image>"}
QWEN = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
NAMED = {
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
    "qwen2_vl": QWEN,
    "qwen2_5_vl": QWEN,
    "llava_next": {"image_token": "<image>"},
    "llava_onevision": {"image_token": "<image>", "video_token": "<video>"},
}


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    """Bytes as tokens, and the family's own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens=NAMED[family],
    )
    made.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>", "<|vision_start|>", "<|vision_end|>"]})
    made.chat_template = (
        "{{ '<s>' }}{% for m in messages %}{{ '<user>' if m.role == 'user' else '<assistant>' }}"
        f"{{% for p in m.content %}}{{{{ '{SHOWN[family]}' if p.type == 'image' else p.text }}}}{{% endfor %}}"
        "{{ '</s>' if m.role == 'assistant' else '' }}{% endfor %}{{ '<assistant>' if add_generation_prompt else '' }}"
    )
    return made


def processor(family: str) -> Any:
    """The family's own, for the sizes of its tiny model."""
    words = tokenizer(family)
    common = {"chat_template": words.chat_template}
    if family == "internvl":
        tiles = GotOcr2ImageProcessorPil(size={"height": 24, "width": 24}, crop_to_patches=True, min_patches=1, max_patches=2)
        return pictures_only(InternVLProcessor)(tiles, words, image_seq_length=9, **common)
    if family == "llava_next":
        pinpoints = FAMILIES[family].model().config.image_grid_pinpoints
        side = {"height": 24, "width": 24}
        crops = LlavaNextImageProcessorPil(size=side, crop_size=side, image_grid_pinpoints=pinpoints)
        how = {"patch_size": 4, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        return LlavaNextProcessor(crops, words, **how, **common)
    if family == "llava_onevision":
        pinpoints = FAMILIES[family].model().config.image_grid_pinpoints
        crops = LlavaOnevisionImageProcessorPil(size={"height": 16, "width": 16}, image_grid_pinpoints=pinpoints)
        how = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_2"}
        return pictures_only(LlavaOnevisionProcessor)(crops, words, **how, **common)
    kind = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}[family]
    patches = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=64, max_pixels=1024)
    return pictures_only(kind)(patches, words, **common)


@pytest.fixture(scope="module", params=sorted(SHOWN))
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of the family whose vocabulary is the processor's, saved as transformers saves it."""
    family, place = request.param, tmp_path_factory.mktemp(request.param)
    words = processor(family)
    config, known = FAMILIES[family].model().config, words.tokenizer.get_vocab()
    text = config.text_config
    text.vocab_size, text.bos_token_id, text.eos_token_id, text.pad_token_id = (
        len(known),
        *words.tokenizer.convert_tokens_to_ids(["<s>", "</s>", "<pad>"]),
    )
    names = NAMED[family]
    config.image_token_id = known[names.get("context_image_token") or names["image_token"]]
    if "video_token" in names and family != "internvl":
        config.video_token_id = known[names["video_token"]]
    if family in ("qwen2_vl", "qwen2_5_vl"):
        config.vision_start_token_id, config.vision_end_token_id = known["<|vision_start|>"], known["<|vision_end|>"]
    made(type(FAMILIES[family].model()), config, "sdpa").save_pretrained(place)
    words.save_pretrained(place)
    file = place / "processor_config.json"  # as saved where there is torchvision
    file.write_text(json.dumps({**json.loads(file.read_text()), "video_processor": {"video_processor_type": "Any"}}))
    return place


def question(pictures: int = 1, text: str = "Which?") -> Question:
    random = np.random.default_rng(3)
    shown = [Image.fromarray(random.integers(0, 255, (30, 48, 3), dtype=np.uint8)) for _ in range(pictures)]
    parts = [ImagePart(image) for image in shown]
    sample = Sample("a", [Message("user", [*parts, TextPart(text)])], "ab", ["ab", "cd"], {})
    return Question(f"{pictures} pictures", sample, shown)


def test_loaded_asked_and_pruned(folder: Path) -> None:
    model, words = argus.load(str(folder))
    asked = [question(), question(text="Where is it?"), question(2)]
    local = LocalModel(model, words)
    answers, scores = local.generate(asked, 4), local.score(asked, mean=False)
    assert [len(row) for row in scores] == [2, 2, 2]
    with argus.attach(model, "fastervlm", keep=1.0) as attachment:
        whole = LocalModel(model, words, attachment)
        assert [a.text for a in whole.generate(asked, 4)] == [a.text for a in answers]
    with argus.attach(model, "fastervlm", keep=0.3) as attachment:
        fewer = LocalModel(model, words, attachment).score(asked[-1:], mean=False)
        assert attachment.counts[0].kept < 0.4 * attachment.counts[0].total
        assert {k.image for k in attachment.kept} == {0, 1}
    assert fewer[0] != scores[-1]


def test_the_processor_and_the_anatomy_count_alike(folder: Path) -> None:
    """Prompts of one and of two pictures in one padded batch."""
    model, words = argus.load(str(folder))
    local = LocalModel(model, words)
    asked = [question(), question(2)]
    inputs = local.held.head_inputs(asked, local.held.prompter.prompts(asked, options=False))
    tokens = anatomy(model).visual_tokens(inputs)
    assert [(c.item, c.image) for c in tokens.crops if c.tile == 0] == [(0, 0), (1, 0), (1, 1)]
    assert int(tokens.pictures(*inputs["input_ids"].shape).sum()) == int(anatomy(model).visual_mask(inputs["input_ids"]).sum())


def test_a_search_asks_every_family(folder: Path) -> None:
    """ZoomEye's confidences are tanh((z_yes - z_no) / 2) of one full forward pass, and its search answers."""
    model, words = argus.load(str(folder))
    local, asked = LocalModel(model, words), question()
    look = Look(View("v", tuple(asked.images)), "Is there a star?", ("yes", "no"))
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": look.prompt}]}]
    text = words.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    with torch.no_grad():
        logits = model(**words(text=[text], images=asked.images, return_tensors="pt")).logits[0, -1]
    yes, no = (float(logits[words.tokenizer(word, add_special_tokens=False).input_ids[0]]) for word in look.words)
    assert Looks(local, 1).confidences([look]) == [pytest.approx(math.tanh((yes - no) / 2), abs=1e-4)]
    cued = replace(asked, sample=replace(asked.sample, metadata={"cues": ("star",)}))
    options = {"search": {"zoomeye": {"smallest": 24, "cues": "given", "words": ("yes", "no")}}, "answer": "likelihood"}
    (answer,) = build("inferencer", "search", options).answer(local, [cued])
    assert len(answer.scores) == 2
    assert answer.notes["search"]["pops"][0] >= 1


def test_partial_lora_is_saved_and_loaded_with_the_model(folder: Path, tmp_path: Path) -> None:
    model, words = argus.load(str(folder))
    asked = [question(), question(2)]
    before = LocalModel(model, words).score(asked, mean=False)
    build("tuner", "partial_lora", {"r": 4, "alpha": 8}).apply(model)
    assert LocalModel(model, words).score(asked, mean=False) == before
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    tuned = LocalModel(model, words).score(asked, mean=False)
    assert tuned != before
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    again, words = argus.load(str(tmp_path))
    assert not again.training
    assert LocalModel(again, words).score(asked, mean=False) == tuned


def test_videos_need_torchvision(folder: Path) -> None:
    _, words = argus.load(str(folder))
    if hasattr(words, "video_token"):
        with pytest.raises(UnsupportedError, match="torchvision"):
            words(text=[words.video_token], videos=[np.zeros((2, 24, 24, 3), dtype=np.uint8)])
